"""Fuzz target: Postfix's policy delegation protocol, and what is answered to it."""

from collections.abc import Iterable

from netmail_common.connmgr.model import Binding, Decision, Reason, SenderDecision, UserKey
from netmail_connmgr.domain.address_map import AddressMap, parse_entries
from netmail_connmgr.domain.policy_answers import OVER_RATE, PolicyAnswers, PolicySettings
from netmail_connmgr.protocol.postfix_policy import MAX_REQUEST, PolicyReader, PolicyRequest, answer

_MAP = AddressMap(parse_entries("alice@example.org alice\n"), ["example.net"])
_ALLOWED = SenderDecision(Decision.ALLOWED, Reason.LISTED)
_REFUSED = SenderDecision(Decision.MUST_AUTHENTICATE, Reason.NO_LOGIN)
_RELAY = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"
    b"client_address=192.0.2.1\nsender=alice@example.org\nrecipient=eve@example.net\n"
    b"instance=167.6b07039a.9e095.0\nsasl_username=\n\n"
)


def seeds() -> Iterable[bytes]:
    """Requests of Postfix and what may pass for one. The first octet is the piece size."""
    yield b"\xff" + _RELAY
    yield b"\x01" + _RELAY + _RELAY.replace(b"RCPT", b"DATA")
    yield b"\x07" + _RELAY.replace(b"RCPT", b"DATA").replace(b"username=", b"username=j\xc3\xbc")
    yield b"\xff" + _RELAY.replace(b"RCPT", b"DATA").replace(b"username=", b"username=a\rb")
    yield b"\x40" + _RELAY.replace(b"192.0.2.1", b"2001:db8::1") + b"\n"
    yield b"\x10" + _RELAY.replace(b"\n", b"\r\n") + _RELAY
    yield b"\xff" + _RELAY.replace(b"RCPT", b"END-OF-MESSAGE").replace(
        b"sasl_username=", b"recipient_count=3\nsasl_username=bob"
    )
    yield b"\x03request=smtpd_access_policy\nrequest=smtpd_access_policy\n\n"
    yield b"\x20request=smtpd_access_policy\nsender=\xff\nprotocol_state=DATA\n\n=\n\nx\n\n"


def one_input(data: bytes) -> None:
    """Pieces make no difference, nothing grows, every answer is one line that says one thing."""
    size, octets = (data[0] or 1) if data else 1, data[1:]
    whole, pieces = PolicyReader(), PolicyReader()
    requests = whole.feed(octets)
    found: list[PolicyRequest] = []
    for at in range(0, len(octets), size):
        found += pieces.feed(octets[at : at + size])
        assert len(pieces) <= MAX_REQUEST
    assert found == requests
    assert bool(whole.broken) == bool(pieces.broken)
    if whole.broken:
        assert whole.feed(_RELAY) == []
    for request in requests:
        _judge(request)


def _judge(request: PolicyRequest) -> None:
    assert len(request.client_address) in {0, 4, 16}
    settings = PolicySettings(Binding.STRICT, known="OK", unknown="REJECT")
    answers = PolicyAnswers(settings, lambda name: UserKey(name, ""))
    at_once = answers.at_once(request)
    if at_once is not None:
        _check(request, at_once)
        assert at_once != "OK"  # nobody is let in without a decision
        return
    enquiry = answers.enquiry(request, _MAP)
    over = answers.action(request, _ALLOWED, within_rate=False)
    _check(request, over)
    if enquiry is None:
        mail = answers.mail(request, None)
        assert mail is not None
        assert mail.authenticated
        assert over == OVER_RATE
        _check(request, answers.action(request, None))
        return
    assert (over == OVER_RATE) == (request.state == "RCPT")
    assert bool(enquiry.question.senders) == bool(request.sender)
    for sender in enquiry.question.senders:
        assert not sender.key or sender.key.rpartition("@")[2] == sender.domain
    _check(request, answers.action(request, None))
    assert answers.action(request, None) != "OK"
    assert answers.action(request, _REFUSED) != "OK"
    action = answers.action(request, _ALLOWED)
    _check(request, action)
    assert (action == "OK") == (request.state == "RCPT")


def _check(request: PolicyRequest, action: str) -> None:
    wire = answer(action)
    assert wire.startswith(b"action=")
    assert wire.endswith(b"\n\n")
    assert wire.count(b"\n") == 2
    assert b"\r" not in wire
    assert b"\0" not in wire
    if action.startswith("PREPEND"):
        assert request.state in {"DATA", "BDAT"}
        assert action.startswith("PREPEND X-Auth-OK: ")
        assert action.isascii()
