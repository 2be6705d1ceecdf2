"""Several sessions at once on one mailbox, over two processes; each checks all that it is told.

NETMAIL_STRESS_SECONDS and NETMAIL_STRESS_SEED in the environment: for longer, and otherwise.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.imap_checker import CheckedSession
from tests.support.installation import RunningInstallation, installation

SECONDS = float(os.environ.get("NETMAIL_STRESS_SECONDS", "15"))
SEED = int(os.environ.get("NETMAIL_STRESS_SEED", "1"))
SESSIONS = 6
ROUND = 2.5
"""Seconds between two comparisons of what every session believes."""
SETTLED_WITHIN = 5.0
"""Seconds after the last change until every session must have heard of it."""
FLAGS = ["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Work", "$Later"]
MESSAGE = b"From: a@example.net\r\nSubject: stress\r\n\r\nbody\r\n"


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """An installation whose IMAP listener is served by two processes."""

    def change(data: dict[str, Any]) -> None:
        data["messaging_servers"][0]["pop_imap"]["workers"] = 2

    state: Path = tmp_path_factory.mktemp("stress")
    with installation(state, change=change) as running:
        yield running


def served_by(running: RunningInstallation, session: CheckedSession) -> int:
    """The process that has the other end of the connection."""
    local, remote = (
        session.writer.get_extra_info("peername"),
        session.writer.get_extra_info("sockname"),
    )
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        ports = [int(word.rpartition(":")[2], 16) for word in words[1:3]]
        if ports == [local[1], remote[1]]:
            inode = f"socket:[{words[9]}]"
            for pid in running.pids("netmail_pop_imap", "mail1"):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    if link.is_socket() and str(link.readlink()) == inode:
                        return pid
    raise AssertionError("nobody serves this connection")


async def sessions_on_both(running: RunningInstallation) -> list[CheckedSession]:
    """Sessions of which at least two are served by each process."""
    found: dict[int, list[CheckedSession]] = {}
    for number in range(60):
        session = await CheckedSession.open(
            f"s{number}x", running.port(2143), "alice", "wonderland", condstore=number % 2 == 0
        )
        found.setdefault(served_by(running, session), []).append(session)
        chosen = [s for group in found.values() for s in group[: SESSIONS // 2]]
        if len(found) == 2 and len(chosen) == SESSIONS:
            for group in found.values():
                for spare in group[SESSIONS // 2 :]:
                    await spare.close()
            return chosen
    raise AssertionError(f"one process served all sessions: {list(found)}")


class Actor:
    """One session that does things at random."""

    def __init__(self, session: CheckedSession, rng: random.Random) -> None:
        self.session = session
        self.rng = rng
        self.actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.append, 3),
            (self.store, 6),
            (self.expunge, 1),
            (self.uid_expunge, 1),
            (self.copy, 1),
            (self.move, 1),
            (self.fetch, 3),
            (self.search, 2),
            (self.noop, 3),
            (self.idle, 2),
            (self.conditional_store, 2),
            (self.reselect, 1),
        ]

    async def act_until(self, deadline: float) -> int:
        """Gives the number of actions."""
        done = 0
        while asyncio.get_running_loop().time() < deadline:
            actions, weights = zip(*self.actions, strict=True)
            action = self.rng.choices(actions, weights)[0]
            await action()
            await self.session.learn()
            done += 1
        return done

    def some(self) -> str:
        """A sequence set that is there; empty: there is no message."""
        count = len(self.session.uids)
        if not count:
            return ""
        first = self.rng.randint(1, count)
        return f"{first}:{min(count, first + self.rng.randint(0, 3))}"

    async def append(self) -> None:
        if len(self.session.uids) > 60:
            return
        flags = " ".join(self.rng.sample(FLAGS, self.rng.randint(0, 2)))
        command = f"APPEND INBOX ({flags}) {{{len(MESSAGE)}+}}\r\n".encode() + MESSAGE
        top = self.session.top_uid
        reply = await self.session.command(command)
        assert reply.ok, reply
        uid = int(reply.code[1].split()[1])
        assert uid > top, "an appended message has an old UID"
        await self.session.learn()

    async def store(self) -> None:
        numbers = self.some()
        if not numbers:
            return
        sign = self.rng.choice(["+", "-", ""])
        silent = self.rng.choice(["", ".SILENT"])
        flags = self.rng.sample(FLAGS, self.rng.randint(1, 2))
        reply = await self.session.command(
            f"STORE {numbers} {sign}FLAGS{silent} ({' '.join(flags)})"
        )
        assert reply.ok or reply.code[0] == "EXPUNGEISSUED", reply
        if silent and reply.ok:
            self._believe(numbers, sign, flags)

    def _believe(self, numbers: str, sign: str, flags: list[str]) -> None:
        """After .SILENT the client computes the flags itself; what is told later corrects it."""
        first, last = map(int, numbers.split(":"))
        told = self.session
        for uid in told.uids[first - 1 : last]:
            if uid is None or uid in self._told_since(numbers):
                continue
            have = told.flags.get(uid, frozenset())
            told.flags[uid] = (
                have | set(flags)
                if sign == "+"
                else have - set(flags)
                if sign
                else frozenset(flags)
            )

    def _told_since(self, _numbers: str) -> set[int]:
        """UIDs whose flags came in an untagged FETCH of the very command."""
        found = set()
        for line in reversed(self.session.told):
            if line.startswith("C:"):
                break
            if "FLAGS (" in line and "UID " in line:
                found.add(int(line.split("UID ")[1].split()[0].rstrip(")")))
        return found

    async def conditional_store(self) -> None:
        session = self.session
        known = [uid for uid in session.uids if uid in session.modseqs]
        if not session.condstore or not known:
            return
        uid = self.rng.choice(known)
        flag = self.rng.choice(FLAGS)
        reply = await session.command(
            f"UID STORE {uid} (UNCHANGEDSINCE {session.modseqs[uid]}) +FLAGS ({flag})"
        )
        assert reply.ok, reply
        if reply.code[0] == "MODIFIED":
            assert reply.code[1] == str(uid)

    async def expunge(self) -> None:
        reply = await self.session.command("EXPUNGE")
        assert reply.ok, reply

    async def uid_expunge(self) -> None:
        known = [uid for uid in self.session.uids if uid is not None]
        if known:
            uid = self.rng.choice(known)
            reply = await self.session.command(f"UID EXPUNGE {uid}")
            assert reply.ok, reply

    async def copy(self) -> None:
        numbers = self.some()
        if numbers and len(self.session.uids) < 60:
            reply = await self.session.command(f"COPY {numbers} INBOX")
            assert reply.ok or reply.code[0] == "EXPUNGEISSUED", reply

    async def move(self) -> None:
        numbers = self.some()
        if numbers:
            reply = await self.session.command(f"MOVE {numbers} Archive")
            assert reply.ok or reply.code[0] == "EXPUNGEISSUED", reply

    async def fetch(self) -> None:
        numbers = self.some()
        if not numbers:
            return
        items = self.rng.choice(
            [
                "FLAGS",
                "(UID FLAGS MODSEQ)" if self.session.condstore else "UID",
                "(UID BODY.PEEK[HEADER])",
                "(UID BODY[TEXT])",
                "ENVELOPE",
            ]
        )
        reply = await self.session.command(f"FETCH {numbers} {items}")
        assert reply.ok or reply.code[0] == "EXPUNGEISSUED", reply

    async def search(self) -> None:
        session = self.session
        flag = self.rng.choice(["SEEN", "FLAGGED", "ANSWERED", "SUBJECT stress"])
        reply = await session.command(f"UID SEARCH {flag}")
        assert reply.ok, reply
        (line,) = [r for r in reply.untagged if r.startswith(b"* SEARCH")]
        found = [int(word) for word in line.split()[2:]]
        assert found == sorted(set(found))
        assert all(uid <= session.top_uid for uid in found), "a message that was not told"

    async def noop(self) -> None:
        await self.session.command("NOOP")

    async def idle(self) -> None:
        await self.session.idle(self.rng.uniform(0, 0.3))

    async def reselect(self) -> None:
        reply = await self.session.command("UNSELECT")
        assert reply.ok, reply
        await self.session.select()


async def compare(sessions: list[CheckedSession]) -> None:
    """Every session comes to believe what a fresh look shows, on a busy machine too."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_WITHIN
    while True:
        await asyncio.sleep(0.3)
        try:
            await compare_now(sessions)
        except AssertionError:
            if loop.time() > deadline:
                raise
        else:
            return


async def compare_now(sessions: list[CheckedSession]) -> None:
    """Every session believes what a fresh look shows, without having asked again."""
    for session in sessions:
        await session.command("NOOP")
        await session.learn()
    truth = sessions[0]
    await truth.command("UNSELECT")
    await truth.select()
    for session in sessions:
        assert session.uids == truth.uids, session._story(f"UIDs, in truth {truth.uids}")
        for uid in session.uids:
            assert uid is not None
            assert session.flags[uid] == truth.flags[uid], session._story(
                f"flags of {uid}: {session.flags[uid]} {truth.flags[uid]}"
            )
            if session.condstore and truth.condstore:
                assert session.modseqs[uid] == truth.modseqs[uid], session._story(
                    f"modseq of {uid}"
                )


@pytest.mark.timeout(SECONDS * 3 + 90)
async def test_every_session_stays_true_to_the_mailbox(two_processes: RunningInstallation) -> None:
    rng = random.Random(SEED)
    sessions = await sessions_on_both(two_processes)
    actors = [Actor(session, random.Random(rng.random())) for session in sessions]
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    done = 0
    while loop.time() < end:
        deadline = min(end, loop.time() + ROUND)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(actor.act_until(deadline)) for actor in actors]
        done += sum(task.result() for task in tasks)
        rng.shuffle(sessions)
        await compare(sessions)
    print(f"{done} actions in {SECONDS:g} s, seed {SEED}")
    assert done > SESSIONS * 5
    for session in sessions:
        await session.close()
