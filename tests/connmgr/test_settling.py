"""After a restart nobody is told no who may be known to those that tell their logins again."""

from pathlib import Path

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import parse_config
from netmail_common.connmgr import ConnectionManagerUnavailable
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.conftest import IdentityFor, ServeFactory, check, login, owned
from tests.connmgr.one_manager import client_of, manager_config


async def test_until_logins_were_told_again_who_is_not_known_is_to_come_back(
    serve: ServeFactory,
) -> None:
    async with serve(settle=10) as server:
        smtp = server.client(Role.SMTP)
        await server.client(Role.POP_IMAP).register_one(login())
        known = await smtp.check_sender(check("alice@example.org"))
        assert known.decision == pb.DECISION_ALLOWED
        for unsure in (
            check("bob@example.org", owners=(owned("bob@example.org", "bob"),)),
            check("alice@example.org", address=b"\xc0\x00\x02\x09"),
        ):
            with pytest.raises(ConnectionManagerUnavailable):
                await smtp.check_sender(unsure)
        never = await smtp.check_sender(check("alice@example.org", address=b"\x7f\x00\x00\x01"))
        assert never.reason == pb.REASON_SHARED_NETWORK
        server.clock.advance(10)
        stranger = await smtp.check_sender(unsure)
    assert stranger.decision == pb.DECISION_MUST_AUTHENTICATE


async def test_only_a_process_that_is_not_the_first_waits_for_logins_to_be_told_again(
    tmp_path: Path, certificates: Path, identity_for: IdentityFor
) -> None:
    data = {**manager_config(certificates, settle_time="10s"), "state_dir": str(tmp_path)}
    settings = parse_config(data)
    async with connection_manager(settings, "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        decision = await client.check_sender(check("alice@example.org"))
        assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
        await channel.close()
    async with connection_manager(settings, "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        with pytest.raises(ConnectionManagerUnavailable):
            await client.check_sender(check("alice@example.org"))
        await channel.close()
