"""Making and verifying what is stored of a password. Slow on purpose: not for the event loop."""

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import argon2
import bcrypt
import passlib.hash
from scramp import ScramMechanism

from netmail_nmap.domain.users import Credentials, ScramVerifier

_MAX_BCRYPT_OCTETS = 72
"""More are not hashed by any bcrypt; the library refuses them instead of ignoring them."""
_SALT_OCTETS = 16
_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_SHA = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=")
_MECHANISM = ScramMechanism("SCRAM-SHA-256")


@dataclass(frozen=True, slots=True)
class HashParameters:
    """Argon2id (RFC 9106) and SCRAM (RFC 7677 4)."""

    time_cost: int = 3
    memory_kib: int = 65_536
    parallelism: int = 1
    scram_iterations: int = 4096


def make_credentials(password: str, parameters: HashParameters) -> Credentials:
    """Hashes a prepared password with a fresh salt, and makes the SCRAM verifier beside it."""
    hasher = argon2.PasswordHasher(
        time_cost=parameters.time_cost,
        memory_cost=parameters.memory_kib,
        parallelism=parameters.parallelism,
    )
    salt, stored_key, server_key, iterations = _MECHANISM.make_auth_info(
        password,
        iteration_count=parameters.scram_iterations,
        salt=secrets.token_bytes(_SALT_OCTETS),
    )
    return Credentials(
        hasher.hash(password), ScramVerifier(salt, iterations, stored_key, server_key)
    )


def verify_password(password_hash: str, password: str) -> bool:
    """Whether a prepared password fits, in time that does not depend on where it differs."""
    for fits, verify in _SCHEMES:
        if fits(password_hash):
            return verify(password_hash, password)
    return False


def is_outdated(credentials: Credentials, parameters: HashParameters) -> bool:
    """Whether credentials of ours were made with other parameters than these."""
    try:
        made = argon2.extract_parameters(credentials.password_hash)
    except argon2.exceptions.InvalidHashError:
        return True
    scram = credentials.scram
    return (
        (made.time_cost, made.memory_cost, made.parallelism)
        != (parameters.time_cost, parameters.memory_kib, parameters.parallelism)
        or scram is None
        or scram.iterations != parameters.scram_iterations
    )


def is_known_hash(password_hash: str) -> bool:
    """Whether `verify_password` can ever say yes to it."""
    return any(fits(password_hash) for fits, _ in _SCHEMES)


def _verify_argon2(password_hash: str, password: str) -> bool:
    try:
        return argon2.PasswordHasher().verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _is_argon2(password_hash: str) -> bool:
    try:
        argon2.extract_parameters(password_hash)
    except argon2.exceptions.InvalidHashError:
        return False
    return True


def _verify_bcrypt(password_hash: str, password: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:_MAX_BCRYPT_OCTETS], password_hash.encode("ascii"))
    except ValueError:
        return False


def _is_bcrypt(password_hash: str) -> bool:
    return _BCRYPT.fullmatch(password_hash) is not None


def _verify_sha(password_hash: str, password: str) -> bool:
    # The library compares with hmac.compare_digest; no salt, so it is as weak as it looks.
    return bool(passlib.hash.ldap_sha1.verify(password, password_hash))


def _is_sha(password_hash: str) -> bool:
    return _SHA.fullmatch(password_hash) is not None


def _passlib(handler: Any) -> tuple[Callable[[str], bool], Callable[[str, str], bool]]:
    def fits(password_hash: str) -> bool:
        try:
            return handler.from_string(password_hash).checksum is not None
        except (ValueError, TypeError):
            return False

    def verify(password_hash: str, password: str) -> bool:
        try:
            return bool(handler.verify(password, password_hash))
        except (ValueError, TypeError):
            return False

    return fits, verify


_SCHEMES: tuple[tuple[Callable[[str], bool], Callable[[str, str], bool]], ...] = (
    (_is_argon2, _verify_argon2),
    (_is_bcrypt, _verify_bcrypt),
    (_is_sha, _verify_sha),
    _passlib(passlib.hash.apr_md5_crypt),
    _passlib(passlib.hash.sha256_crypt),
    _passlib(passlib.hash.sha512_crypt),
)


def fake_verifier(secret: bytes, name_key: str, iterations: int) -> ScramVerifier:
    """What an unknown user's verifier would be: the same at each try, and fitting no password."""

    def derived(purpose: bytes) -> bytes:
        return hmac.digest(secret, purpose + b"\0" + name_key.encode(), "sha256")

    return ScramVerifier(
        salt=derived(b"salt")[:_SALT_OCTETS],
        iterations=iterations,
        stored_key=secrets.token_bytes(32),
        server_key=secrets.token_bytes(32),
    )
