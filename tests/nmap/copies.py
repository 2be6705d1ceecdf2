"""Copies of stores, and what tests put into the stores."""

import hashlib
import io
from pathlib import Path

from netmail_nmap.adapters.backup import MAX_READ, MakeCopy, StoreCopies
from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.postgresql import Place, restore_postgresql
from netmail_nmap.adapters.restore import Restored, restore_store
from netmail_nmap.adapters.sql import Store
from netmail_nmap.domain.delivery import Envelope, Expansion, Recipient, Submission
from netmail_nmap.domain.mail import AppendTarget, FetchRequest, OpenRequest


async def read_copy(make: MakeCopy) -> bytes:
    copies = StoreCopies(make)
    copy_id = copies.begin()
    info = None
    while info is None:
        info = await copies.wait(copy_id, 10)
    data = b""
    while len(data) < info.size:
        data += await copies.read(copy_id, len(data), MAX_READ)
    await copies.close()
    assert hashlib.sha256(data).digest() == info.sha256
    return data


def restore(path: Path, data: bytes, *, replace: bool = False, hold: bool = True) -> Restored:
    return restore_store(
        path,
        io.BytesIO(data),
        sha256=hashlib.sha256(data).hexdigest(),
        replace=replace,
        hold_queue=hold,
    )


def restore_into(
    place: Place,
    folder: Path,
    data: bytes,
    *,
    replace: bool = False,
    hold: bool = True,
    objects: BodyObjects | None = None,
) -> Restored:
    return restore_postgresql(
        place,
        folder,
        io.BytesIO(data),
        sha256=hashlib.sha256(data).hexdigest(),
        replace=replace,
        hold_queue=hold,
        objects=objects,
    )


async def append(store: Store, user: int, text: bytes) -> int:
    upload = store.mail.upload(limit=10_000_000)
    await upload.write(text)
    body = await upload.finish()
    return (await store.mail.append(AppendTarget(user, "INBOX", ("\\Seen",)), body)).uid


async def queue_one(store: Store, number: int) -> None:
    envelope = Envelope(f"message-number-{number:06}", "a@example.org", (Recipient("b@else.net"),))
    submission = Submission(
        envelope, b"A: b\r\n\r\n", (Expansion(remote=("b@else.net",)),), Expansion()
    )
    await store.queue.submit([submission])


async def bodies_of(store: Store, user: int) -> list[bytes]:
    view = await store.mail.open_mailbox(OpenRequest(user, "INBOX", with_sizes=True))
    request = FetchRequest(user, view.state.mailbox_id, view.messages.uids, body=True)
    bodies: dict[int, bytes] = {}
    async for batch in store.mail.fetch(request):
        for part in batch:
            bodies[part.uid] = bodies.get(part.uid, b"") + part.body
    return list(bodies.values())
