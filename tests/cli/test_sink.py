"""The sink: accepts everything, writes each message whole."""

import smtplib
from pathlib import Path

import pytest
from netmail_cli.sink import MessageFolder, sink_server
from netmail_common.config import SinkConfig


def test_messages_are_numbered_on_from_what_is_there(tmp_path: Path) -> None:
    assert MessageFolder(tmp_path).add(b"one").name == "0001.eml"
    (tmp_path / ".0002.tmp").write_bytes(b"half")
    folder = MessageFolder(tmp_path)
    assert folder.add(b"two").name == "0002.eml"
    assert folder.add(b"three").name == "0003.eml"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "0001.eml": b"one",
        "0002.eml": b"two",
        "0003.eml": b"three",
    }


async def test_a_message_is_written_with_its_envelope_and_its_octets(tmp_path: Path) -> None:
    import asyncio

    body = b"Subject: x\r\n\r\n.dot\r\n" + b"long " * 2000 + b"\r\n\xff8bit\r\n"
    config = SinkConfig(name="w", listen=["127.0.0.1:0"], directory=tmp_path / "in")

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("a@example.org", ["x@example.net", "y@example.net"], body)
            client.sendmail("", ["z@example.net"], b"Subject: null\r\n\r\n")

    async with sink_server(config) as ports:
        await asyncio.to_thread(send, ports[0])
    assert (tmp_path / "in/0001.eml").read_bytes() == (
        b"Return-Path: <a@example.org>\r\n"
        b"Delivered-To: x@example.net\r\n"
        b"Delivered-To: y@example.net\r\n"
        b"X-Sink-Peer: 127.0.0.1\r\n" + body
    )
    assert b"Return-Path: <>\r\n" in (tmp_path / "in/0002.eml").read_bytes()


async def test_a_folder_that_cannot_be_written_defers_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    def full(_self: MessageFolder, _data: bytes) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MessageFolder, "add", full)
    config = SinkConfig(name="w", listen=["127.0.0.1:0"], directory=tmp_path)

    def send(port: int) -> int:
        with (
            smtplib.SMTP("127.0.0.1", port, timeout=10) as client,
            pytest.raises(smtplib.SMTPDataError) as caught,
        ):
            client.sendmail("a@example.org", ["x@example.net"], b"Subject: x\r\n\r\n")
        return caught.value.smtp_code

    async with sink_server(config) as ports:
        assert await asyncio.to_thread(send, ports[0]) == 451
