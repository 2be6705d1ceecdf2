"""Certificates of the agents: reading them as they change, and a local CA that makes them."""

import datetime as dt
import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netmail_common.config import ConfigError
from netmail_common.logging import get_logger
from netmail_common.roles import Role, role_uri

__all__ = ["Identity", "LocalAuthority", "PemPair", "server_name"]

log = get_logger(__name__)

_CA_LIFETIME = dt.timedelta(days=3650)
_LEAF_LIFETIME = dt.timedelta(days=397)
_RENEW_BEFORE = dt.timedelta(days=30)
_CLOCK_SKEW = dt.timedelta(hours=1)
_CHECK_INTERVAL = 1.0


def server_name(role: Role, installation: str) -> str:
    """The DNS SAN by which clients verify that a server has ROLE."""
    return f"{role.value.replace('_', '-')}.{installation}"


@dataclass(frozen=True, slots=True)
class PemPair:
    """A CA, a certificate chain and its key, each PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


class Identity:
    """An agent's certificate, key and CA; read again when the files change.

    Its files are ca.pem, ROLE.pem and ROLE.key; where there is no ROLE.pem, those of a Secret as
    cert-manager and others write it: ca.crt, tls.crt and tls.key. A pair that does not fit together
    is not taken: the last good one stays.
    """

    def __init__(
        self, folder: Path, role: Role, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.role = role
        self._folder = folder
        self._paths = self._find()
        self._clock = clock
        self._checked = clock()
        self._stamp = self._stat()
        self._pair = self._read()
        self.generation = 1
        """Grows each time that other files were taken."""

    @classmethod
    def from_folder(cls, folder: Path, role: Role) -> "Identity":
        """Reads the files in FOLDER. Raises: ConfigError."""
        return cls(folder, role)

    def current(self) -> PemPair:
        """The newest good files; looks at them once a second at most."""
        now = self._clock()
        if now - self._checked >= _CHECK_INTERVAL:
            self._checked = now
            self._reload()
        return self._pair

    def _reload(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._pair = self._read()
        except ConfigError as error:
            log.error("certificate not taken, the last good one stays", error=str(error))  # noqa: TRY400
            return
        self.generation += 1
        log.info("certificate reloaded", role=self.role.value)

    def _find(self) -> tuple[Path, Path, Path]:
        own = self._folder / f"{self.role.value}.pem"
        if own.exists() or not (self._folder / "tls.crt").exists():
            return self._folder / "ca.pem", own, own.with_suffix(".key")
        return self._folder / "ca.crt", self._folder / "tls.crt", self._folder / "tls.key"

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        self._paths = self._find()
        found = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _read(self) -> PemPair:
        try:
            pair = PemPair(*(path.read_bytes() for path in self._paths))
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        try:
            check_pair(pair.certificate, pair.key)
            x509.load_pem_x509_certificates(pair.ca)
        except ValueError as error:
            raise ConfigError(f"{self._paths[1]}: {error}") from error
        return pair


def check_pair(certificate: bytes, key: bytes) -> None:
    """Raises: ValueError when the first certificate is not the key's."""
    public = x509.load_pem_x509_certificates(certificate)[0].public_key()
    private = serialization.load_pem_private_key(key, password=None).public_key()
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != private.public_bytes(*form):
        raise ValueError("the key does not belong to the certificate")


class LocalAuthority:
    """A certificate authority of one machine.

    Its folder is for its owner alone; agents get only what it issues.
    """

    def __init__(
        self, installation: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._installation = installation
        self._certificate = certificate
        self._key = key

    @classmethod
    def open_or_create(cls, folder: Path, installation: str) -> "LocalAuthority":
        """Reads ca.pem and ca.key from FOLDER, or makes them; FOLDER gets mode 0700."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
        if certificate_path.exists() and key_path.exists():
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ConfigError(f"{key_path}: not an elliptic curve key")
            return cls(installation, certificate, key)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, f"NetMail local CA of {installation}")
        _write(key_path, _key_pem(key), 0o600)
        _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return cls(installation, certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, role: Role, folder: Path) -> None:
        """Writes ca.pem, ROLE.pem and ROLE.key into FOLDER, unless good ones are there."""
        folder.mkdir(parents=True, exist_ok=True)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(role_uri(self._installation, role)),
            x509.DNSName(server_name(role, self._installation)),
        ]
        if self.certificate_pem != _read_or_empty(folder / "ca.pem"):
            _write(folder / "ca.pem", self.certificate_pem, 0o644)
        self._issue(
            role.value,
            names,
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            (folder / f"{role.value}.pem", folder / f"{role.value}.key"),
        )

    def issue_server(self, host_name: str, certificate_path: Path, key_path: Path) -> None:
        """Writes a certificate for a public listener, unless a good one is there.

        It names HOST_NAME, localhost and the loopback addresses.
        """
        certificate_path.parent.mkdir(parents=True, exist_ok=True)
        names: list[x509.GeneralName] = [
            x509.DNSName(host_name),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        self._issue(
            host_name, names, [ExtendedKeyUsageOID.SERVER_AUTH], (certificate_path, key_path)
        )

    def _issue(
        self,
        common_name: str,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        paths: tuple[Path, Path],
    ) -> None:
        if self._still_good(paths, names):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(common_name, self._certificate.subject, key, _LEAF_LIFETIME)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(paths[1], _key_pem(key), 0o600)
        _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _still_good(self, paths: tuple[Path, Path], names: Sequence[x509.GeneralName]) -> bool:
        try:
            text = paths[0].read_bytes()
            check_pair(text, paths[1].read_bytes())
            certificate = x509.load_pem_x509_certificate(text)
            certificate.verify_directly_issued_by(self._certificate)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
            return False
        except InvalidSignature:
            return False
        enough = dt.datetime.now(dt.UTC) + _RENEW_BEFORE
        return certificate.not_valid_after_utc > enough and list(found.value) == list(names)


def _self_signed(key: ec.EllipticCurvePrivateKey, common_name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return (
        _builder(common_name, subject, key, _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    common_name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_or_empty(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replaces PATH in one step, never readable with more than MODE."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
