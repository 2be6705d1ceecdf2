"""What a client is told when the NMAP agent refuses."""

import pytest
from netmail_pop_imap.adapters.imap_errors import reply_for_reason


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MAILBOX_NOT_FOUND", b"NONEXISTENT"),
        ("MAILBOX_GONE", b"NONEXISTENT"),
        ("MAILBOX_EXISTS", b"ALREADYEXISTS"),
        ("SPECIAL_USE_TAKEN", b"USEATTR"),
        ("MAILBOX_HAS_CHILDREN", b"HASCHILDREN"),
        ("MAILBOX_IN_USE", b"INUSE"),
        ("TOO_MANY_KEYWORDS", b"LIMIT"),
        ("OVER_QUOTA", b"OVERQUOTA"),
        ("MESSAGE_TOO_BIG", b"TOOBIG"),
        ("MESSAGE_GONE", b"EXPUNGEISSUED"),
        ("INVALID_REQUEST", b"CANNOT"),
        ("STORE_UNAVAILABLE", b"UNAVAILABLE"),
    ],
)
def test_a_refusal_has_its_response_code(reason: str, code: bytes) -> None:
    assert reply_for_reason(reason).imap_code == code
