"""Certificates in Secrets: made once, kept, renewed, never another's."""

from collections.abc import Mapping

import pytest
from cryptography import x509
from netmail_cli.commands.certificates import issue_all, remove_all
from netmail_common.roles import Role, role_uri

EVERY_SECRET = {
    "netmail-ca",
    "netmail-tls",
    *(f"netmail-grpc-{role.value.replace('_', '-')}" for role in Role),
}


class Secrets:
    """A namespace."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, bytes]] = {}
        self.kinds: dict[str, str] = {}
        self.foreign: set[str] = set()

    def read(self, name: str) -> dict[str, bytes] | None:
        return self.held.get(name)

    def is_ours(self, name: str) -> bool:
        return name not in self.foreign

    def create(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> bool:
        if name in self.held:
            return False
        self.write(name, data, kind)
        return True

    def write(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> None:
        self.held[name] = dict(data)
        self.kinds[name] = kind

    def remove(self, name: str) -> bool:
        return name not in self.foreign and self.held.pop(name, None) is not None


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


def issue(secrets: Secrets, host_name: str | None = "mail.example.org") -> set[str]:
    return set(issue_all(secrets, prefix="netmail", installation="example", host_name=host_name))


def test_everything_is_made_at_once_and_only_once(secrets: Secrets) -> None:
    assert issue(secrets) == EVERY_SECRET
    assert issue(secrets) == set()


def test_an_agent_gets_its_own_pair_and_the_ca_without_its_key(secrets: Secrets) -> None:
    issue(secrets)
    for role in Role:
        held = secrets.held[f"netmail-grpc-{role.value.replace('_', '-')}"]
        assert set(held) == {"ca.pem", f"{role.value}.pem", f"{role.value}.key"}
        assert held["ca.pem"] == secrets.held["netmail-ca"]["ca.pem"]
        certificate = x509.load_pem_x509_certificate(held[f"{role.value}.pem"])
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uris == [role_uri("example", role)]


def test_the_listeners_secret_has_the_form_that_everybody_knows(secrets: Secrets) -> None:
    issue(secrets)
    assert set(secrets.held["netmail-tls"]) == {"tls.crt", "tls.key"}
    assert secrets.kinds["netmail-tls"] == "kubernetes.io/tls"


def test_what_is_broken_or_of_another_ca_is_made_anew_and_nothing_else(secrets: Secrets) -> None:
    issue(secrets)
    other = Secrets()
    issue(other)
    secrets.held["netmail-grpc-smtp"] = other.held["netmail-grpc-smtp"]
    secrets.held["netmail-tls"]["tls.key"] = b"broken"
    assert issue(secrets) == {"netmail-grpc-smtp", "netmail-tls"}


def test_a_certificate_of_somebody_else_is_left_alone(secrets: Secrets) -> None:
    secrets.held["netmail-tls"] = {"tls.crt": b"theirs", "tls.key": b"theirs"}
    secrets.foreign.add("netmail-tls")
    assert "netmail-tls" not in issue(secrets)
    assert secrets.held["netmail-tls"]["tls.crt"] == b"theirs"


def test_no_listeners_certificate_where_none_is_wanted(secrets: Secrets) -> None:
    assert issue(secrets, host_name=None) == EVERY_SECRET - {"netmail-tls"}


def test_two_that_start_together_agree_on_one_ca(secrets: Secrets) -> None:
    first = Secrets()
    issue(first)

    class Late(Secrets):
        """Somebody else makes the CA between the look and the making."""

        def create(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> bool:
            if name == "netmail-ca":
                self.held.setdefault(name, first.held[name])
                return False
            return super().create(name, data, kind)

    late = Late()
    written = issue(late)
    assert "netmail-ca" not in written
    assert late.held["netmail-grpc-nmap"]["ca.pem"] == first.held["netmail-ca"]["ca.pem"]


def test_what_was_made_is_removed_and_nothing_of_others(secrets: Secrets) -> None:
    issue(secrets)
    secrets.foreign.add("netmail-tls")
    secrets.held["another"] = {"key": b"value"}
    secrets.held["netmail-cert-manager-ca"] = {"tls.key": b"of cert-manager's"}
    removed = remove_all(secrets, prefix="netmail")
    assert set(removed) == (EVERY_SECRET - {"netmail-tls"}) | {"netmail-cert-manager-ca"}
    assert set(secrets.held) == {"netmail-tls", "another"}
    assert remove_all(secrets, prefix="netmail") == []
