"""The table of who may call what."""

from google.protobuf.descriptor import FileDescriptor
from netmail.connmgr.v1 import connmgr_pb2
from netmail.nmap.v1 import backup_pb2, directory_pb2, mailbox_pb2, queue_pb2
from netmail_common.roles import METHOD_ROLES, Role, role_of_uri, role_uri

FILES: list[FileDescriptor] = [
    connmgr_pb2.DESCRIPTOR,
    directory_pb2.DESCRIPTOR,
    mailbox_pb2.DESCRIPTOR,
    queue_pb2.DESCRIPTOR,
    backup_pb2.DESCRIPTOR,
]


def methods() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_every_method_of_every_service_is_in_the_table_and_nothing_else() -> None:
    assert {name for name in METHOD_ROLES if name.startswith("/netmail.")} == methods()


def test_the_admin_may_call_everything() -> None:
    assert all(Role.ADMIN in roles for roles in METHOD_ROLES.values())


def test_each_role_may_call_what_the_design_says() -> None:
    def may_call(role: Role) -> set[str]:
        return {
            name.rpartition("/")[2]
            for name, roles in METHOD_ROLES.items()
            if role in roles and name.startswith("/netmail.") and "MailboxService" not in name
        }

    assert may_call(Role.NMAP) == {"RevokeLogins"}
    assert may_call(Role.DELIVER) == {"Lease", "ReadMessage", "Report", "Deliver"}
    assert may_call(Role.CONNMGR) == {
        "RegisterLogin",
        "CheckSender",
        "CheckConnection",
        "ReportEvent",
        "RevokeLogins",
    }
    assert may_call(Role.POP_IMAP) == {
        "RegisterLogin",
        "CheckConnection",
        "ReportEvent",
        "WatchLogins",
        "ReportClients",
        "AnswerProbe",
        "Authenticate",
        "ListContexts",
    }
    assert may_call(Role.SMTP) == {
        "CheckSender",
        "CheckConnection",
        "ReportEvent",
        "WatchLogins",
        "ReportClients",
        "AnswerProbe",
        "Authenticate",
        "Resolve",
        "ListContexts",
        "Submit",
        "SubmitStream",
    }


def test_mailboxes_are_for_pop_imap_and_the_admin_alone() -> None:
    for name, roles in METHOD_ROLES.items():
        if "MailboxService" in name:
            assert roles == {Role.POP_IMAP, Role.ADMIN}


def test_a_backup_is_for_the_admin_alone() -> None:
    assert {roles for name, roles in METHOD_ROLES.items() if "BackupService" in name} == {
        frozenset({Role.ADMIN})
    }


def test_a_role_is_read_from_its_uri_in_its_own_installation_only() -> None:
    for role in Role:
        assert role_of_uri("netmail", role_uri("netmail", role)) is role
    assert role_of_uri("netmail", "spiffe://other/admin") is None
    assert role_of_uri("netmail", "spiffe://netmail/root") is None
    assert role_of_uri("netmail", "spiffe://netmail/admin/x") is None
    assert role_of_uri("netmail", "https://netmail/admin") is None
