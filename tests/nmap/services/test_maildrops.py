"""UseMaildrops: the POP3 sessions of a client process over one stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from tests.nmap.services.conftest import Agent

OK = pb.MAILDROP_OUTCOME_OK
IN_USE = pb.MAILDROP_OUTCOME_IN_USE
GONE = pb.MAILDROP_OUTCOME_GONE
FAILED = pb.MAILDROP_OUTCOME_FAILED
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


class Stream:
    """Writes steps and hands out results as they come."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._results: list[pb.MaildropResult] = []

    async def send(self, *steps: pb.MaildropStep) -> None:
        await self.call.write(pb.UseMaildropsRequest(steps=steps))

    async def result(self) -> pb.MaildropResult:
        while not self._results:
            async with asyncio.timeout(10):
                response = await self.call.read()
            self._results.extend(response.results)
        return self._results.pop(0)

    async def ask(self, step: pb.MaildropStep) -> pb.MaildropResult:
        await self.send(step)
        return await self.result()


@asynccontextmanager
async def streaming(agent: Agent) -> AsyncIterator[Stream]:
    call: Any = agent.mailboxes.UseMaildrops()  # type: ignore[call-arg]
    yield Stream(call)
    call.cancel()


def opening(session: int, user_id: int) -> pb.MaildropStep:
    return pb.MaildropStep(session_id=session, open=pb.MaildropOpen(user_id=user_id))


def retrieving(session: int, uid: int) -> pb.MaildropStep:
    return pb.MaildropStep(session_id=session, retrieve=pb.MaildropRetrieve(uid=uid))


def closing(session: int, *remove: int, seen: tuple[int, ...] = ()) -> pb.MaildropStep:
    close = pb.MaildropClose(remove_uids=remove, seen_uids=seen)
    return pb.MaildropStep(session_id=session, close=close)


async def deliver(agent: Agent, user: str, count: int = 1) -> None:
    for _ in range(count):
        start = pb.AppendStart(user_id=agent.users[user], mailbox="INBOX", size=len(MESSAGE))
        await agent.mailboxes.AppendMessage(
            iter(
                [
                    pb.AppendMessageRequest(start=start),
                    pb.AppendMessageRequest(data=MESSAGE),
                    pb.AppendMessageRequest(end=pb.AppendEnd()),
                ]
            )
        )


async def test_a_session_lists_reads_removes_and_flags(agent: Agent) -> None:
    alice = agent.users["alice"]
    await deliver(agent, "alice", 3)
    async with streaming(agent) as stream:
        opened = await stream.ask(opening(1, alice))
        assert opened.outcome == OK
        assert list(opened.messages.uids) == [1, 2, 3]
        assert list(opened.messages.sizes) == [len(MESSAGE)] * 3
        assert len(set(opened.messages.object_ids)) == 3
        assert (await stream.ask(retrieving(1, 2))).body == MESSAGE
        assert (await stream.ask(closing(1, 1, 3, seen=(2,)))).outcome == OK
        again = await stream.ask(opening(2, alice))
    assert list(again.messages.uids) == [2]
    assert again.messages.flag_sets[again.messages.flag_set[0]] == "\\Seen"


async def test_two_sessions_never_have_the_same_maildrop(agent: Agent) -> None:
    alice = agent.users["alice"]
    async with streaming(agent) as stream, streaming(agent) as other:
        assert (await stream.ask(opening(1, alice))).outcome == OK
        assert (await stream.ask(opening(2, alice))).outcome == IN_USE
        assert (await other.ask(opening(1, alice))).outcome == IN_USE
        await stream.send(closing(1), opening(2, alice))
        assert (await stream.result()).session_id == 2


async def test_the_end_of_a_stream_gives_its_locks_back(agent: Agent) -> None:
    alice = agent.users["alice"]
    async with streaming(agent) as stream:
        assert (await stream.ask(opening(1, alice))).outcome == OK
    async with streaming(agent) as stream:
        for session in range(1, 500):
            if (await stream.ask(opening(session, alice))).outcome == OK:
                return
            await asyncio.sleep(0.02)
    raise AssertionError("still locked")


async def test_many_sessions_in_one_request_are_answered_each(agent: Agent) -> None:
    await deliver(agent, "alice")
    await deliver(agent, "bob")
    async with streaming(agent) as stream:
        await stream.send(
            opening(1, agent.users["alice"]),
            opening(2, agent.users["bob"]),
            retrieving(1, 1),
            retrieving(2, 1),
            closing(1, 1),
            closing(2, 1),
        )
        results = [await stream.result() for _ in range(6)]
    for session in (1, 2):
        mine = [result for result in results if result.session_id == session]
        assert [result.outcome for result in mine] == [OK, OK, OK]
        assert mine[1].body == MESSAGE


async def test_what_makes_no_sense_fails_and_harms_nobody_else(agent: Agent) -> None:
    alice = agent.users["alice"]
    async with streaming(agent) as stream:
        assert (await stream.ask(retrieving(7, 1))).outcome == FAILED
        await stream.send(closing(7))  # nobody waits for an answer
        assert (await stream.ask(closing(7, 1))).outcome == FAILED
        assert (await stream.ask(pb.MaildropStep(session_id=7))).outcome == FAILED
        assert (await stream.ask(opening(1, 999_999))).outcome == FAILED
        assert (await stream.ask(opening(1, alice))).outcome == OK
        assert (await stream.ask(opening(1, alice))).outcome == FAILED
        assert (await stream.ask(retrieving(1, 42))).outcome == GONE
        await deliver(agent, "alice")
        assert (await stream.ask(retrieving(1, 1))).body == MESSAGE


async def test_a_drain_answers_what_was_begun_and_ends_the_stream(agent: Agent) -> None:
    await deliver(agent, "alice")
    async with streaming(agent) as stream:
        assert (await stream.ask(opening(1, agent.users["alice"]))).outcome == OK
        await stream.send(closing(1, 1))
        assert (await stream.result()).outcome == OK
        agent.mailbox_service.drain()
        async with asyncio.timeout(10):
            assert await stream.call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
