"""Delivery status notifications, read back with Python's own parser."""

import email
import email.policy
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_nmap.domain.dsn import (
    Dsn,
    DsnAction,
    Notify,
    OriginalMessage,
    RecipientStatus,
    build_dsn,
    returns_body,
    split_message,
)

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HEADER = b"From: alice@example.org\r\nSubject: lunch\r\nMessage-ID: <1@example.org>\r\n"
FAILED = RecipientStatus(
    "bob@example.net",
    DsnAction.FAILED,
    "5.1.1",
    "smtp; 550 5.1.1 no such user",
    remote_mta="mx.example.net",
    last_attempt=NOW,
)


def original(
    *,
    sender: str = "alice@example.org",
    header: bytes = HEADER,
    body: bytes | None = b"hello\r\n",
    envelope_id: str = "",
    smtputf8: bool = False,
) -> OriginalMessage:
    return OriginalMessage(
        sender,
        "0123456789abcdef",
        NOW,
        header,
        body,
        envelope_id=envelope_id,
        smtputf8=smtputf8,
    )


def build(message: OriginalMessage, *recipients: RecipientStatus) -> Dsn:
    dsn = build_dsn(
        message, recipients, reporting_mta="mail1.example.org", message_id="fedcba987", now=NOW
    )
    assert dsn is not None
    return dsn


def parse(dsn: Dsn) -> EmailMessage:
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", dsn.data) is None
    assert max(map(len, dsn.data.split(b"\r\n"))) <= 998
    return email.message_from_bytes(dsn.data, policy=email.policy.default)


def parts(dsn: Dsn) -> list[EmailMessage]:
    return cast("list[EmailMessage]", list(parse(dsn).iter_parts()))


def test_a_failure_is_a_multipart_report_of_three_parts() -> None:
    dsn = build(original(), FAILED)
    message = parse(dsn)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["To"] == "alice@example.org"
    assert [part.get_content_type() for part in parts(dsn)] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert not message.defects
    assert dsn.recipient == "alice@example.org"
    assert not dsn.smtputf8
    assert not dsn.body_8bit


def test_the_report_has_the_fields_of_rfc_3464() -> None:
    report = parts(build(original(envelope_id="QQ314159"), FAILED))[1]
    per_message, per_recipient = cast("list[EmailMessage]", report.get_payload())
    assert per_message["Reporting-MTA"] == "dns; mail1.example.org"
    assert per_message["Original-Envelope-Id"] == "QQ314159"
    assert per_message["Arrival-Date"] == "Wed, 25 Nov 2026 12:00:00 +0000"
    assert per_recipient["Final-Recipient"] == "rfc822; bob@example.net"
    assert per_recipient["Action"] == "failed"
    assert per_recipient["Status"] == "5.1.1"
    assert per_recipient["Remote-MTA"] == "dns; mx.example.net"
    assert per_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert per_recipient["Original-Recipient"] is None


def test_each_recipient_has_its_group_and_its_original_recipient() -> None:
    delayed = RecipientStatus(
        "carol@example.com",
        DsnAction.DELAYED,
        "4.4.1",
        original_recipient="rfc822;Carol@Example.COM",
        will_retry_until=NOW,
    )
    groups = cast("list[EmailMessage]", parts(build(original(), FAILED, delayed))[1].get_payload())
    assert [group["Action"] for group in groups[1:]] == ["failed", "delayed"]
    assert groups[2]["Original-Recipient"] == "rfc822;Carol@Example.COM"
    assert groups[2]["Will-Retry-Until"] == "Wed, 25 Nov 2026 12:00:00 +0000"


def test_a_person_reads_who_failed_and_why() -> None:
    words = parts(build(original(), FAILED))[0].get_content()
    assert "<bob@example.net>" in words
    assert "mx.example.net said: 550 5.1.1 no such user" in words


def test_the_returned_message_is_the_original_octet_by_octet() -> None:
    body = b"caf\xc3\xa9 \xff\r\n.\r\n--=_fedcba987_0\r\n\r\ntail without end"
    dsn = build(original(body=body), FAILED)
    assert HEADER + b"\r\n" + body + b"\r\n--=_fedcba987_1--" in dsn.data
    assert dsn.body_8bit
    assert not dsn.smtputf8


def test_without_body_only_the_header_section_goes_back() -> None:
    last = parts(build(original(body=None), FAILED))[2]
    assert last.get_content_type() == "text/rfc822-headers"
    assert "hello" not in last.get_content()


@pytest.mark.parametrize(
    ("action", "headers_only", "size", "whole"),
    [
        (DsnAction.FAILED, False, 1000, True),
        (DsnAction.FAILED, True, 1000, False),
        (DsnAction.FAILED, False, 10**6, False),
        (DsnAction.DELAYED, False, 1000, False),
        (DsnAction.RELAYED, False, 1000, False),
    ],
)
def test_ret_decides_about_failures_only(
    action: DsnAction, headers_only: bool, size: int, whole: bool
) -> None:
    assert returns_body(action, return_headers_only=headers_only, size=size) is whole


def test_the_null_sender_gets_no_notification() -> None:
    assert (
        build_dsn(
            original(sender=""), [FAILED], reporting_mta="mail1", message_id="fedcba987", now=NOW
        )
        is None
    )


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        (Notify(), {DsnAction.FAILED, DsnAction.DELAYED}),
        (Notify(never=True, given=True), set()),
        (Notify(success=True, given=True), {DsnAction.DELIVERED, DsnAction.RELAYED}),
        (Notify(failure=True, given=True), {DsnAction.FAILED}),
        (Notify(delay=True, given=True), {DsnAction.DELAYED}),
    ],
)
def test_notify_chooses_the_actions(notify: Notify, wanted: set[DsnAction]) -> None:
    actions = set(DsnAction) - {DsnAction.EXPANDED}
    assert {action for action in actions if notify.wants(action)} == wanted


def test_an_smtputf8_message_gets_an_internationalised_report() -> None:
    message = original(
        sender="ålice@example.org", header="Subject: grüße\r\n".encode(), smtputf8=True
    )
    status = RecipientStatus("bøb@example.net", DsnAction.FAILED, "5.6.7", "x-netmail; ünfit")
    dsn = build(message, status)
    assert b"Content-Type: message/global-delivery-status" in dsn.data
    assert "Final-Recipient: utf-8; bøb@example.net".encode() in dsn.data
    assert b"Content-Type: message/global\r\n" in dsn.data
    assert dsn.smtputf8
    assert dsn.body_8bit
    parse(dsn)


def test_a_sender_without_smtputf8_gets_utf8_addresses_in_ascii() -> None:
    status = RecipientStatus("bøb@example.net", DsnAction.FAILED, "5.6.7")
    dsn = build(original(), status)
    assert rb"Final-Recipient: utf-8; b\x{F8}b@example.net" in dsn.data
    assert not dsn.smtputf8


def test_a_local_part_that_needs_quotes_gets_them() -> None:
    dsn = build(original(sender='a "b@example.org'), FAILED)
    assert rb'To: <"a \"b"@example.org>' in dsn.data


def test_message_splits_at_the_first_empty_line() -> None:
    assert split_message(b"A: b\r\n\r\nx\r\n\r\ny") == (b"A: b\r\n", b"x\r\n\r\ny")
    assert split_message(b"\r\nx") == (b"", b"x")
    assert split_message(b"A: b\r\n") == (b"A: b\r\n", b"")


@given(
    diagnostic=st.text(max_size=3000),
    mta=st.text(max_size=200),
    orcpt=st.text(max_size=200),
    body=st.binary(max_size=100),
    smtputf8=st.booleans(),
)
def test_foreign_text_never_adds_a_line_or_a_part(
    diagnostic: str, mta: str, orcpt: str, body: bytes, smtputf8: bool
) -> None:
    status = RecipientStatus(
        "bob@example.net",
        DsnAction.FAILED,
        "5.0.0",
        f"smtp; {diagnostic}",
        remote_mta=mta,
        original_recipient=f"rfc822;{orcpt}",
    )
    body = body.replace(b"\r", b"").replace(b"\n", b"")
    dsn = build(original(body=body, smtputf8=smtputf8), status)
    parse(dsn)
    assert len(re.findall(rb"^--=_fedcba987_\d+(?:--)?\r$", dsn.data, re.MULTILINE)) == 4
    report = dsn.data.split(b"-status\r\n")[1].partition(b"--=_")[0]
    assert report.count(b"\r\nFinal-Recipient:") == 1
    assert report.count(b"\r\nStatus:") == 1
