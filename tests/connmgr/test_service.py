"""The Connection Manager over real gRPC with mutual TLS."""

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.roles import Role

from tests.connmgr.conftest import Server, check, login


async def test_a_registered_login_lets_its_address_relay(server: Server) -> None:
    result = await server.client(Role.POP_IMAP).register_one(login())
    assert result.outcome == pb.REGISTER_OUTCOME_REGISTERED
    assert result.remaining_seconds == 900

    decision = await server.client(Role.SMTP).check_sender(check("alice@example.org"))
    assert decision.decision == pb.DECISION_ALLOWED
    assert decision.user == pb.UserKey(name="alice", context="users.demo")
    assert decision.remaining_seconds == 900
    assert decision.protocol == pb.PROTOCOL_POP3
