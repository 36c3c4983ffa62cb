"""A backend that goes, in every way that a handler can: its own call ends or waits, no other hears.

Ten calm calls beside it say a frame every 60 ms and hear each of them come back.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
from served_sessions import FRAME, Call, FakeGateway, serving

from trio_gateway.errors import SessionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from numpy.typing import NDArray
    from trio.testing import MockClock

    from trio_gateway.session import Session
    from trio_gateway.sessions import Handler

CALM = 10
ECHOED = 50  # frames, three seconds


async def echo_each_frame(session: Session) -> None:
    send, receive = trio.open_memory_channel["NDArray[Any]"](100)

    async def chunks() -> AsyncIterator[NDArray[Any]]:
        async for chunk in receive:
            yield chunk

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.play, chunks(), 16000)
        async for frame in session.audio:
            await send.send(frame)


def beside(bad: Handler) -> Handler:
    async def handler(session: Session) -> None:
        if session.device.text == "bad":
            await bad(session)
        else:
            await echo_each_frame(session)

    return handler


def calm_calls(gateway: FakeGateway) -> list[Call]:
    calls = [gateway.call(f"calm {number}") for number in range(CALM)]
    for call in calls:
        call.listen("start", "realtime")
    return calls


async def talk(calls: list[Call], frames: int = ECHOED) -> None:
    for _ in range(frames):
        for call in calls:
            call.say(9000)
        await trio.sleep(FRAME)


def check_calm(gateway: FakeGateway, calls: list[Call], said: int = ECHOED) -> None:
    for call in calls:
        assert call.session.end_reason is None
        frames = call.audio.heard(gateway.sender)
        assert len(frames) >= said - 5, "a few are still on their way back"
        assert np.diff([frame.time for frame in frames])[2:].max() < FRAME + 0.002
        link = call.session.link.statistics()
        assert (link.delivered, link.lost) == (said, 0)


async def raises(session: Session) -> None:
    await session.receive()
    raise OSError("the server has closed the connection")


async def raises_while_it_plays(session: Session) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.play, np.ones(240_000, np.int16), 24000)
        await session.receive()
        raise OSError("the server has closed the connection")


async def returns(session: Session) -> None:
    await session.receive()


async def swallows_for_a_while(session: Session) -> None:
    await session.receive()
    session.close()
    with trio.move_on_after(5, shield=True):  # says goodbye to its server, at length
        await trio.sleep_forever()


@pytest.mark.parametrize("bad", [raises, raises_while_it_plays, returns, swallows_for_a_while])
async def test_it_goes_and_the_device_may_come_again(
    autojump_clock: MockClock, bad: Handler
) -> None:
    async with serving(beside(bad)) as gateway:
        calls, call = calm_calls(gateway), gateway.call("bad")
        call.say(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, calls)
            for _ in range(5):
                await trio.sleep(0.3)
                gateway.front.take()
                call.tell("custom")
                await trio.sleep(0.001)
                told = [m for m in gateway.front.take() if m["type"] == "goodbye"]
                assert told == [{"type": "goodbye", "session_id": call.id}]
                call = gateway.call("bad")
        check_calm(gateway, calls)
        await trio.sleep(6)
        nursery_of = gateway.sessions._nursery
        assert nursery_of is not None
        assert len(nursery_of.child_tasks) == 1 + CALM + 1, "the timers' task, and who is there"


async def test_it_hangs_and_the_device_is_free_to_go(autojump_clock: MockClock) -> None:
    async def hangs(session: Session) -> None:
        await trio.sleep_forever()

    async with serving(beside(hangs)) as gateway:
        calls, call = calm_calls(gateway), gateway.call("bad")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, calls)
            await trio.sleep(1)
            call.tell("goodbye")
            assert {session.device.text for session in gateway.sessions.live} == {
                each.client_id for each in calls
            }
        check_calm(gateway, calls)


async def test_it_reads_nothing_and_memory_stays_flat(autojump_clock: MockClock) -> None:
    """Two minutes of audio and messages; five seconds and 256 of them are kept."""

    async def reads_nothing(session: Session) -> None:
        await trio.sleep_forever()

    async def speak(call: Call, seconds: float) -> None:
        for _ in range(round(seconds / FRAME)):
            call.say(1)
            call.tell("custom", text="x" * 500)
            await trio.sleep(FRAME)

    async with serving(beside(reads_nothing)) as gateway:
        call = gateway.call("bad")
        call.listen("start", "realtime")
        await speak(call, 20)  # as full as it gets
        gc.collect()
        tracemalloc.start()
        await speak(call, 100)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 600_000, "bytes; what was said meanwhile is 4 MB"
        assert call.session.end_reason is None
        calls = calm_calls(gateway)
        await talk(calls)
        check_calm(gateway, calls)


async def test_it_plays_on_after_the_end_and_learns_of_it(autojump_clock: MockClock) -> None:
    closed = trio.Event()

    async def does_not_listen(session: Session) -> None:
        with trio.CancelScope(shield=True):
            try:
                while True:
                    await session.play(np.ones(24000, np.int16), 24000)
            except SessionClosed:
                closed.set()

    async with serving(beside(does_not_listen)) as gateway:
        call = gateway.call("bad")
        call.say(1)
        await trio.sleep(2.5)
        sent = len(gateway.sender.sent)
        call.tell("goodbye")
        await trio.sleep(0.001)
        assert closed.is_set()
        await trio.sleep(1)
        assert len(gateway.sender.sent) == sent
