"""Certificates: the local CA, identities and listeners that follow their files."""

import ssl
import stat
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import ConfigError, TlsConfig
from netmail_common.roles import Role
from netmail_common.tls import ServerTls


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_ca_is_its_owners_alone_and_agents_do_not_get_its_key(tmp_path: Path) -> None:
    authority = LocalAuthority.open_or_create(tmp_path / "ca", "netmail")
    authority.issue(Role.SMTP, tmp_path / "tls")
    assert mode(tmp_path / "ca") == 0o700
    assert mode(tmp_path / "ca" / "ca.key") == 0o600
    assert mode(tmp_path / "tls" / "smtp.key") == 0o600
    assert sorted(p.name for p in (tmp_path / "tls").iterdir()) == [
        "ca.pem",
        "smtp.key",
        "smtp.pem",
    ]


def test_a_certificate_says_the_role_and_what_to_call_the_server(tmp_path: Path) -> None:
    LocalAuthority.open_or_create(tmp_path / "ca", "netmail").issue(Role.POP_IMAP, tmp_path)
    certificate = x509.load_pem_x509_certificate((tmp_path / "pop_imap.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://netmail/pop_imap"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["pop-imap.netmail"]


def test_a_second_start_keeps_the_ca_and_good_certificates(tmp_path: Path) -> None:
    LocalAuthority.open_or_create(tmp_path / "ca", "netmail").issue(Role.SMTP, tmp_path / "tls")
    first = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    LocalAuthority.open_or_create(tmp_path / "ca", "netmail").issue(Role.SMTP, tmp_path / "tls")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == first


def test_certificates_of_another_ca_are_replaced(tmp_path: Path) -> None:
    LocalAuthority.open_or_create(tmp_path / "old", "netmail").issue(Role.SMTP, tmp_path / "tls")
    new = LocalAuthority.open_or_create(tmp_path / "new", "netmail")
    new.issue(Role.SMTP, tmp_path / "tls")
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == new.certificate_pem
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls" / "smtp.pem").read_bytes())
    certificate.verify_directly_issued_by(new._certificate)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Identity.from_folder(tmp_path, Role.SMTP)


def test_an_identity_keeps_the_last_good_pair(tmp_path: Path) -> None:
    clock = Clock()
    authority = LocalAuthority.open_or_create(tmp_path / "ca", "netmail")
    authority.issue(Role.SMTP, tmp_path)
    identity = Identity(tmp_path, Role.SMTP, clock)
    good = identity.current()
    (tmp_path / "smtp.pem").write_text("half a certificate")
    clock.now += 2
    with structlog.testing.capture_logs() as logs:
        assert identity.current() == good
    assert logs[0]["log_level"] == "error"
    authority.issue(Role.SMTP, tmp_path)
    clock.now += 2
    assert identity.current() != good
    assert identity.generation == 2


def test_a_listener_follows_its_files_and_keeps_the_last_good_pair(
    tmp_path: Path, authority: LocalAuthority
) -> None:
    clock = Clock()
    paths = tmp_path / "x.pem", tmp_path / "x.key"
    authority.issue_server("mail.example.org", *paths)
    tls = ServerTls(*paths, "1.2", clock)
    first = tls.context
    clock.now += 2
    assert tls.context is first
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"")
    clock.now += 2
    with structlog.testing.capture_logs() as logs:
        assert tls.context is first
    assert logs[0]["log_level"] == "error"
    paths[1].write_bytes(good)
    clock.now += 2
    assert tls.context is not first


@pytest.mark.parametrize(
    ("text", "version"), [("1.2", ssl.TLSVersion.TLSv1_2), ("1.3", ssl.TLSVersion.TLSv1_3)]
)
def test_the_floor_is_the_listeners_own_or_the_configurations(
    text: str, version: ssl.TLSVersion, tmp_path: Path, authority: LocalAuthority
) -> None:
    paths = tmp_path / "x.pem", tmp_path / "x.key"
    authority.issue_server("mail.example.org", *paths)
    config = TlsConfig.model_validate({"certificate": paths[0], "key": paths[1]})
    assert ServerTls.from_config(config).context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert ServerTls.from_config(config, text).context.minimum_version is version


def test_a_listener_without_a_certificate_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls\.certificate"):
        ServerTls.from_config(TlsConfig())
    with pytest.raises(ConfigError, match="nothing"):
        ServerTls(tmp_path / "nothing", tmp_path / "nothing", "1.2")


def test_an_identity_reads_a_secret_as_cert_manager_writes_it(tmp_path: Path) -> None:
    authority = LocalAuthority.open_or_create(tmp_path / "ca", "netmail")
    authority.issue(Role.SMTP, tmp_path / "made")
    folder = tmp_path / "secret"
    folder.mkdir()
    names = {"ca.pem": "ca.crt", "smtp.pem": "tls.crt", "smtp.key": "tls.key"}
    for own, theirs in names.items():
        (folder / theirs).write_bytes((tmp_path / "made" / own).read_bytes())
    clock = Clock()
    identity = Identity(folder, Role.SMTP, clock)
    assert identity.current().certificate == (folder / "tls.crt").read_bytes()

    (tmp_path / "made" / "smtp.key").unlink()
    authority.issue(Role.SMTP, tmp_path / "made")
    for own, theirs in names.items():
        (folder / theirs).write_bytes((tmp_path / "made" / own).read_bytes())
    clock.now += 5
    assert identity.current().certificate == (tmp_path / "made" / "smtp.pem").read_bytes()
    assert identity.generation == 2


def test_our_own_names_come_before_those_of_a_secret(tmp_path: Path) -> None:
    authority = LocalAuthority.open_or_create(tmp_path / "ca", "netmail")
    authority.issue(Role.SMTP, tmp_path)
    (tmp_path / "tls.crt").write_bytes(b"a listener's")
    identity = Identity(tmp_path, Role.SMTP)
    assert identity.current().certificate == (tmp_path / "smtp.pem").read_bytes()
