"""Fuzz target: bodies of Dovecot's authentication policy, JSON and forms."""

import json
from collections.abc import Iterable

from netmail_connmgr.protocol.dovecot_policy import (
    BadPolicyEvent,
    Command,
    PolicyEvent,
    parse_command,
    parse_form,
    parse_json,
)


def seeds() -> Iterable[bytes]:
    """Bodies as Dovecot and the post-login script send them, and neighbours of these."""
    yield (
        b'{"device_id":"","login":"alice","protocol":"imap","pwhash":"0f3a","remote":"192.0.2.1",'
        b'"session_id":"6dNjz0sN5MwKAAAB","success":true,"policy_reject":false,"tls":true}'
    )
    yield b'{"login":"\\u00fc","protocol":"POP3","remote":"2001:db8::1","success":true}'
    yield b'{"login":"a","login":"b","success":true}'
    yield b'{"attrs":{"cos":"premium"},"login":"a","remote":"::1","protocol":"imap","success":1}'
    yield b'{"login":"\\ud800","x":NaN}'
    yield b"login=alice&remote=192.0.2.1&protocol=imap&success=true"
    yield b"login=a%26b&remote=%3A%3A1&protocol=pop3&success=true&policy_reject=true"
    yield b"report"


def one_input(data: bytes) -> None:
    """What vouches is a successful POP3 or IMAP login of a name from an address; all is text."""
    for parse in (parse_json, parse_form):
        try:
            event = parse(data)
        except BadPolicyEvent:
            continue
        _check(event)
        if parse is parse_json and event.vouches:
            # A strict reading of the same octets agrees.
            assert json.loads(data)["success"] is True
        if parse is parse_form and event.vouches:
            assert b"success=" in data or b"%" in data
    try:
        command = parse_command(data.decode("latin-1"))
    except BadPolicyEvent:
        return
    assert command in set(Command)


def _check(event: PolicyEvent) -> None:
    assert len(event.client_address) in {0, 4, 16}
    for text in (event.login, event.protocol, event.session):
        text.encode()
        assert len(text) <= 2048
    assert not (event.vouches and event.guessed)
    if event.vouches:
        assert event.success
        assert event.login
        assert event.client_address
        assert event.protocol in {"pop3", "imap"}
    if event.guessed:
        assert event.client_address
        assert not event.success
