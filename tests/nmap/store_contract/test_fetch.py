"""FETCH, and bodies of every size."""

import os

import pytest
from netmail_nmap.domain.errors import MessageTooBig
from netmail_nmap.domain.mail import AppendTarget, FetchRequest

from tests.nmap.store_contract.engines import Clock, Opened
from tests.nmap.store_contract.words import PLAIN, Words

KIB = 1024


def message(size: int) -> bytes:
    header = b"From: bob@example.net\r\nSubject: large\r\n\r\n"
    return header + os.urandom(size - len(header))


async def append_large(store: Opened, user: int, data: bytes, piece: int = 100_000) -> int:
    upload = store.mail.upload(limit=len(data))
    for start in range(0, len(data), piece):
        await upload.write(data[start : start + piece])
    appended = await store.mail.append(AppendTarget(user, "INBOX"), await upload.finish())
    return appended.uid


async def whole(do: Words, user: int, uid: int, **more: int) -> bytes:
    mailbox = (await do.open(user)).state.mailbox_id
    request = FetchRequest(user, mailbox, [uid], body=True, **more)  # type: ignore[arg-type]
    parts = await do.fetch(request)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    return b"".join(part.body for part in parts)


async def test_each_item_is_fetched_only_when_asked_for(
    alice: int, do: Words, clock: Clock
) -> None:
    await do.append(alice, flags=("\\Seen",))
    view = await do.open(alice)
    mailbox = view.state.mailbox_id
    (bare,) = await do.fetch(FetchRequest(alice, mailbox, [1]))
    assert (bare.uid, bare.header, bare.body, bare.flags, bare.size) == (1, b"", b"", "", 0)
    (full,) = await do.fetch(
        FetchRequest(
            alice,
            mailbox,
            [1],
            header=True,
            body=True,
            flags=True,
            size=True,
            internal_date=True,
            modseq=True,
            object_id=True,
            save_date=True,
        )
    )
    assert full.header == b"From: bob@example.net\r\nSubject: greetings\r\n\r\n"
    assert full.body == PLAIN
    assert full.flags == "\\Seen"
    assert full.size == len(PLAIN)
    assert full.internal_date == 1_700_000_000
    assert full.save_date == int(clock.now)
    assert full.modseq == view.state.highest_modseq
    assert full.object_id == view.messages.object_ids[0]


async def test_uids_that_are_not_there_are_passed_over(alice: int, do: Words) -> None:
    for _ in range(6):
        await do.append(alice)
    mailbox = (await do.open(alice)).state.mailbox_id
    for uids in ([2, 3, 9], [1, 6], [4], [1, 2, 3, 4, 5, 6, 7, 8], [5, 1000]):
        found = await do.fetch(FetchRequest(alice, mailbox, uids, header=True))
        assert [part.uid for part in found] == [uid for uid in uids if uid <= 6]


async def test_changed_since_leaves_out_what_did_not_change(alice: int, do: Words) -> None:
    for _ in range(3):
        await do.append(alice)
    state = (await do.open(alice)).state
    await do.set_flags(alice, state.mailbox_id, [2], "\\Seen")
    found = await do.fetch(
        FetchRequest(
            alice, state.mailbox_id, [1, 2, 3], flags=True, changed_since=state.highest_modseq
        )
    )
    assert [part.uid for part in found] == [2]


async def test_fetching_can_mark_as_seen(alice: int, do: Words) -> None:
    await do.append(alice)
    await do.append(alice, flags=("\\Flagged",))
    mailbox = (await do.open(alice)).state.mailbox_id
    found = await do.fetch(FetchRequest(alice, mailbox, [2], body=True, flags=True, set_seen=True))
    assert [part.flags for part in found] == ["\\Flagged \\Seen"]
    assert await do.flags(alice) == {1: "", 2: "\\Flagged \\Seen"}


async def test_many_messages_come_in_batches_and_in_order(alice: int, do: Words) -> None:
    for number in range(40):
        await do.append(alice, data=b"Subject: %d\r\n\r\n" % number + b"x" * 60 * KIB)
    mailbox = (await do.open(alice)).state.mailbox_id
    request = FetchRequest(alice, mailbox, list(range(1, 41)), body=True)
    batches = [list(batch) async for batch in do.mail.fetch(request)]
    assert [part.uid for batch in batches for part in batch] == list(range(1, 41))
    assert len(batches) > 3
    assert all(sum(len(part.body) for part in batch) <= KIB * KIB for batch in batches)


@pytest.mark.parametrize(
    "size", [100, 256 * KIB, 256 * KIB + 42, 600 * KIB, 1024 * KIB, 1024 * KIB + 1, 3_333_333]
)
async def test_every_octet_of_a_message_comes_back(
    store: Opened, alice: int, do: Words, size: int
) -> None:
    data = message(size)
    uid = await append_large(store, alice, data)
    assert await whole(do, alice, uid) == data
    view = await do.open(alice)
    assert list(view.messages.sizes) == [size]


@pytest.mark.parametrize("size", [5_000, 400 * KIB, 2_000 * KIB])
async def test_a_part_of_a_message_can_be_read_from_anywhere(
    store: Opened, alice: int, do: Words, size: int
) -> None:
    data = message(size)
    uid = await append_large(store, alice, data)
    for offset, length in (
        (0, 10),
        (30, 40),
        (41, 1000),
        (size - 7, 100),
        (size // 2, 0),
        (size, 5),
    ):
        end = offset + length if length else size
        found = await whole(do, alice, uid, body_offset=offset, body_length=length)
        assert found == data[offset:end], (offset, length)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"\r\nbody", b"\r\n"),
        (b"no header end", b"no header end"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\n\r\n\r\n\r\n", b"A: b\r\n\r\n"),
    ],
)
async def test_the_header_section_ends_with_its_empty_line(
    alice: int, do: Words, data: bytes, header: bytes
) -> None:
    await do.append(alice, data=data)
    mailbox = (await do.open(alice)).state.mailbox_id
    (found,) = await do.fetch(FetchRequest(alice, mailbox, [1], header=True, body=True))
    assert (found.header, found.body) == (header, data)


async def test_a_header_without_end_loses_nothing(store: Opened, alice: int, do: Words) -> None:
    data = b"X-Endless: " + b"y" * 3_000_000
    uid = await append_large(store, alice, data)
    assert await whole(do, alice, uid) == data


async def test_an_upload_beyond_the_limit_is_refused(store: Opened, alice: int) -> None:
    upload = store.mail.upload(limit=1_500_000)
    await upload.write(b"x" * 1_400_000)
    with pytest.raises(MessageTooBig):
        await upload.write(b"x" * 200_000)
    await upload.abandon()
    assert (await store.mail.quota(alice)).used_bytes == 0
