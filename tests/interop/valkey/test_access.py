"""TLS and a user who may do no more than is needed."""

import datetime as dt
import ipaddress
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from netmail_common.config import ValkeyConfig
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey_counters import ValkeyCounters
from netmail_connmgr.domain.counters import Count
from netmail_connmgr.domain.store import LoginFilter, RevokeOrder, StoreUnavailable

from tests.connmgr.store_contract.stores import ALICE, HOME, live, register, valkey_store
from tests.support.valkey import Node, needs_redis, redis_folder, running, server

# As docs/connection-manager.md says.
USER = "on >secret ~netmail:* -@all +@read +@write +@scripting +time +wait -@dangerous +info"
LOGIN = ("--user", "netmail", "--pass", "secret", "--no-auth-warning")


@dataclass(frozen=True)
class Files:
    ca: Path
    certificate: Path
    key: Path
    password: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A CA, one certificate for 127.0.0.1 that server and client share, and the password."""
    folder = tmp_path_factory.mktemp("tls")
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, authority=True)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    one = _certificate(name, ca_name, key, ca_key, authority=False)
    found = Files(*(folder / name for name in ("ca.pem", "one.pem", "one.key", "password")))
    found.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    found.certificate.write_bytes(one.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    found.password.write_text("secret\n")
    return found


@pytest.fixture
def redis(files: Files) -> Iterator[Node]:
    """By TLS with client certificates only, and for the user netmail only."""
    needs_redis()
    with redis_folder() as folder:
        (folder / "users.acl").write_text(f"user default off\nuser netmail {USER} +ping\n")
        node = server(folder, "--aclfile", str(folder / "users.acl"))
        node.command = [
            *(*node.command, "--port", "0", "--tls-port", str(node.port)),
            *("--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)),
            *("--tls-ca-cert-file", str(files.ca), "--tls-auth-clients", "yes"),
        ]
        tls = ("--tls", "--cacert", str(files.ca), "--cert", str(files.certificate))
        node.login = (*LOGIN, *tls, "--key", str(files.key))
        with running(node):
            yield node


@pytest.fixture
def config(redis: Node, files: Files) -> ValkeyConfig:
    return ValkeyConfig(
        addresses=[redis.address],
        username="netmail",
        password_file=files.password,
        tls=True,
        ca_file=files.ca,
        certificate=files.certificate,
        key=files.key,
        timeout=2.0,
    )


async def test_everything_works_for_that_user_by_tls(config: ValkeyConfig) -> None:
    async with valkey_store(config) as store:
        await register(store)
        assert await live(store) == {ALICE}
        page = await store.list_logins(LoginFilter(user=ALICE), 10, "")
        assert len(page.logins) == len((await store.list_logins(LoginFilter(), 9, "")).logins) == 1
        await store.sync()
        assert await store.revoke(RevokeOrder(None, HOME, 0)) == 1
        assert await store.revoke(RevokeOrder(ALICE, None, 4)) == 0


async def test_counters_work_for_that_user_too(config: ValkeyConfig) -> None:
    valkey = Valkey(config)
    try:
        counters = ValkeyCounters(valkey)
        (counted,) = await counters.count([Count("a", 3, 60.0)])
        assert (counted.total, counted.admitted) == (3, True)
        await counters.note(["b"], 60.0)
        assert list(await counters.noted(["a-note", "b"])) == [False, True]
        assert await counters.forget(["a", "b"]) == 2
    finally:
        await valkey.close()


async def test_that_user_may_not_do_what_an_administrator_may(redis: Node) -> None:
    for command in (("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "other")):
        assert "NOPERM" in redis.cli(*command, check=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"password_file": Path("/dev/null")},
        {"username": "nobody"},
        {"ca_file": None},
        {"certificate": None, "key": None},
        {"tls": False},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_without_the_right_papers_nothing_is_answered(
    config: ValkeyConfig, wrong: dict[str, Path | str | bool | None]
) -> None:
    valkey = Valkey(config.model_copy(update=wrong))
    try:
        with pytest.raises(StoreUnavailable):
            await valkey.send(0, [("PING",)])
    finally:
        await valkey.close()


async def test_nothing_stays_open_towards_a_server_that_stands_still(
    redis: Node, config: ValkeyConfig
) -> None:
    valkey = Valkey(config.model_copy(update={"timeout": 0.5}))
    try:
        await valkey.send(0, [("PING",)])
        redis.suspend()
        with pytest.raises(StoreUnavailable):
            await valkey.send(0, [("PING",)])
    finally:
        await valkey.close()
        redis.resume()
    assert _connections_to(redis.port) == ""


def _connections_to(port: int) -> str:
    """Of this process."""
    command = ["ss", "-tnpH", "dport", f"= :{port}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "".join(line for line in found.splitlines() if f"pid={os.getpid()}," in line)


async def test_a_new_password_counts_from_the_next_connection_on(
    config: ValkeyConfig, files: Files, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    valkey = Valkey(config.model_copy(update={"password_file": password}))
    try:
        with pytest.raises(StoreUnavailable):
            await valkey.replicas(0)
        password.write_text("secret")
        assert await valkey.replicas(0) == 0
    finally:
        await valkey.close()


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(signer, hashes.SHA256())
    )
