"""Which logins the Connection Manager is told of, and when."""

from ipaddress import ip_address

from netmail_common.nmap import AuthenticatedUser
from netmail_pop_imap.domain.login_book import Login, LoginBook
from netmail_pop_imap.domain.session import Ending


class OpenSession:
    protocol_name = "pop3"

    def end(self, ending: Ending) -> None: ...

    def cut(self) -> None: ...


def login(
    at: float, name: str = "alice", address: str = "192.0.2.1", *, epoch: int = 1, ident: str = "1"
) -> Login:
    user = AuthenticatedUser(1, name, "users.demo", "mail1", (), (), epoch)
    return Login(user, ip_address(address), "pop3", ident, at, OpenSession())


def book(*, renew: bool = True) -> LoginBook:
    return LoginBook(lifetime=900, retry_for=60, renew=renew)


def test_an_open_session_is_renewed_every_third_of_the_lifetime() -> None:
    logins = book()
    one = login(0)
    logins.add(one)
    logins.registered(one, 0, renewed=False)
    assert logins.take_renewals(299) == []
    assert logins.take_renewals(300) == [one]
    assert logins.take_renewals(301) == []
    assert logins.take_renewals(600) == [one]


def test_without_renewal_nothing_is_ever_due() -> None:
    logins = book(renew=False)
    logins.add(login(0))
    assert logins.take_renewals(10_000) == []


def test_an_ended_session_is_renewed_no_more_but_lives_on_until_it_expires() -> None:
    logins = book()
    one = login(0)
    logins.add(one)
    logins.registered(one, 0, renewed=False)
    logins.end(one)
    assert logins.take_renewals(300) == []
    assert list(logins.unexpired(899)) == [one]
    assert list(logins.unexpired(900)) == []
    logins.expire(900)
    assert len(logins) == 0


def test_a_session_that_was_renewed_lives_a_whole_lifetime_from_then() -> None:
    logins = book()
    one = login(0)
    logins.add(one)
    logins.registered(one, 600, renewed=True)
    logins.end(one)
    assert list(logins.unexpired(1499)) == [one]
    assert list(logins.unexpired(1500)) == []


def test_a_client_that_polls_leaves_one_entry() -> None:
    logins = book()
    for at in range(100):
        one = login(at, ident=str(at))
        logins.add(one)
        logins.registered(one, at, renewed=False)
        logins.end(one)
    assert [entry.session_id for entry in logins.unexpired(100)] == ["99"]


def test_a_registration_that_failed_is_retried_with_growing_pauses_until_the_time_is_over() -> None:
    logins = book()
    one = login(0)
    logins.add(one)
    now, times = 0.0, []
    while logins.failed(one, now):
        assert logins.waiting == 1
        assert logins.retries(one.retry_at - 0.01) == []
        assert logins.retries(one.retry_at) == [one]
        now = one.retry_at
        times.append(now)
    assert times[:5] == [0.5, 1.5, 3.5, 7.5, 12.5]
    assert times[-1] <= 60
    assert logins.waiting == 0


def test_a_retry_goes_on_when_the_session_has_ended() -> None:
    logins = book()
    one = login(0)
    logins.add(one)
    logins.failed(one, 0)
    logins.end(one)
    assert logins.retries(1) == [one]
    logins.registered(one, 1, renewed=False)
    assert logins.retries(100) == []


def test_revoked_logins_are_forgotten_open_or_ended() -> None:
    logins = book()
    first, second, other = login(0), login(0, address="192.0.2.2"), login(0, name="bob")
    for one in (first, second, other):
        logins.add(one)
    logins.end(second)
    logins.failed(first, 0)
    assert set(logins.revoke(lambda one: one.user.name == "alice")) == {first, second}
    assert list(logins.unexpired(1)) == [other]
    assert logins.waiting == 0
    assert first.revoked
    assert not other.revoked
    logins.end(first)
    assert list(logins.unexpired(1)) == [other]
