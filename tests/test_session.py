"""A session as its handler sees it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import trio
from fake_pool import FakePool
from fake_wires import words
from served_sessions import FRAME, GUARD, TAIL, Call, FakeGateway, idle, serving
from trio.testing import wait_all_tasks_blocked

from trio_gateway.backends.echo import echo
from trio_gateway.core.pcm import SampleFormat
from trio_gateway.errors import SessionClosed, ToolCallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_gateway.session import Session

LOUD = 9000  # -11 dBFS


def tool_call(gateway: FakeGateway) -> dict[str, Any]:
    """The last JSON-RPC request to the device."""
    messages = [message for message in gateway.front.take() if message["type"] == "mcp"]
    payload: dict[str, Any] = messages[-1]["payload"]
    return payload


# Talk and answer


async def test_a_talk_and_its_answer_from_start_to_stop(autojump_clock: MockClock) -> None:
    async with serving(echo) as gateway:
        call = gateway.call()
        call.listen("start")
        began = trio.current_time()
        call.say(*[LOUD] * 10)
        call.listen("stop")
        await trio.sleep(5)
        (start, _, _), (stop, _, _) = gateway.front.sent
        assert start - began == pytest.approx(TAIL, abs=0.002)
        # Ten frames at 16 kHz are ten at 24 kHz.
        assert stop - start == pytest.approx(2 * GUARD + 10 * FRAME, abs=0.002)
        assert [message for _, _, message in gateway.front.sent] == [
            {"type": "tts", "session_id": call.id, "state": "start"},
            {"type": "tts", "session_id": call.id, "state": "stop"},
        ]
        assert len(call.heard) == 10
        frames = call.audio.heard(gateway.sender)
        assert frames[0].time - began == pytest.approx(TAIL + GUARD, abs=0.002)


@pytest.mark.parametrize("mode", ["manual", "realtime"])
async def test_an_echo_in_float32_is_the_echo_in_int16(
    autojump_clock: MockClock, mode: str
) -> None:
    heard: list[list[int]] = []
    formats: list[str] = []

    async def handler(session: Session) -> None:
        formats.append(session.audio.sample_format)
        await echo(session)

    for sample_format in get_args(SampleFormat):
        async with serving(handler, sample_format=sample_format) as gateway:
            call = gateway.call()
            call.listen("start", mode)
            call.say(LOUD, -LOUD, 7)
            call.listen("stop")
            await trio.sleep(5)
            heard.append(call.heard)
    assert formats == ["int16", "float32"]
    assert heard[0] == heard[1]
    assert len(heard[0]) == 3


async def test_an_answer_ends_within_a_frame_of_the_abort(autojump_clock: MockClock) -> None:
    async with serving(echo) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(*[LOUD] * 50)
        call.listen("stop")
        await trio.sleep(TAIL + GUARD + 5.5 * FRAME)
        heard = len(call.heard)
        assert heard == 7
        call.tell("abort", reason="wake_word_detected")
        await wait_all_tasks_blocked()
        assert words(gateway.front.take()) == ["tts start", "tts stop"]
        await trio.sleep(5)
        assert len(call.heard) == heard
        # And the next question is answered.
        call.listen("start")
        call.say(LOUD)
        call.listen("stop")
        await trio.sleep(1)
        assert len(call.heard) == heard + 1


async def test_an_abort_when_nothing_plays_is_for_the_handler_only(
    autojump_clock: MockClock,
) -> None:
    got: list[dict[str, Any]] = []

    async def handler(session: Session) -> None:
        got.append(await session.receive())

    async with serving(handler) as gateway:
        call = gateway.call()
        call.tell("abort")
        await wait_all_tasks_blocked()
        assert [message["type"] for message in got] == ["abort"]
        assert words(gateway.front.take()) == ["goodbye"]


async def test_auto_mode_ends_with_the_voice_even_if_no_packet_comes(
    autojump_clock: MockClock,
) -> None:
    """Devices send nothing at all in silence (DTX)."""
    async with serving(echo) as gateway:
        call = gateway.call()
        call.listen("start", "auto")
        await trio.sleep(3)
        call.say(*[LOUD] * 5)
        await trio.sleep(0.4)  # the pause is 0.5 s
        call.say(*[LOUD] * 5)
        await trio.sleep(0.49)
        assert gateway.front.take() == []
        await trio.sleep(2)
        assert words(gateway.front.take()) == ["tts start", "tts stop"]
        assert len(call.heard) == 10


async def test_realtime_mode_answers_at_once_and_goes_on_after_an_abort(
    autojump_clock: MockClock,
) -> None:
    async with serving(echo) as gateway:
        call = gateway.call()
        call.listen("start", "realtime")
        for _ in range(20):
            call.say(LOUD)
            await trio.sleep(FRAME)
        assert len(call.heard) > 10
        assert words(gateway.front.take()) == ["tts start"]
        call.tell("abort")
        await trio.sleep(FRAME)
        assert words(gateway.front.take()) == ["tts stop"]
        heard = len(call.heard)
        for _ in range(10):
            call.say(LOUD)
            await trio.sleep(FRAME)
        assert len(call.heard) > heard + 5
        call.listen("stop")
        await trio.sleep(2)
        assert words(gateway.front.take()) == ["tts start", "tts stop"]


async def test_the_end_of_a_session_during_play_is_silent(autojump_clock: MockClock) -> None:
    """After the goodbye nothing more is said: the device has left its channel."""
    async with serving(echo) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(*[LOUD] * 50)
        call.listen("stop")
        await trio.sleep(TAIL + GUARD + 5.5 * FRAME)
        heard = len(call.heard)
        call.tell("goodbye")
        await trio.sleep(5)
        assert words(gateway.front.take()) == ["tts start", "goodbye"]
        assert len(call.heard) == heard


# Tasks of others


async def test_a_task_of_another_nursery_plays_into_a_call(autojump_clock: MockClock) -> None:
    outcomes: list[str] = []

    async def strike(session: Session) -> None:
        try:
            outcomes.append(str(await session.play(np.ones(24000, np.int16), 24000)))
        except SessionClosed:
            outcomes.append("hung up")

    async with serving() as gateway, trio.open_nursery() as nursery:
        call = gateway.call()
        call.say(0)
        nursery.start_soon(strike, call.session)
        await trio.sleep(2)
        nursery.start_soon(strike, call.session)
        nursery.start_soon(strike, call.session)
        await trio.sleep(0.5)
        session = call.session
        call.tell("goodbye")
        await wait_all_tasks_blocked()
        await strike(session)
    assert outcomes == ["True", "hung up", "hung up", "hung up"]


async def read_audio(session: Session) -> None:
    async for _ in session.audio:
        pass


async def read_utterances(session: Session) -> None:
    async for _ in session.utterances():
        pass


async def read_messages(session: Session) -> None:
    with pytest.raises(trio.EndOfChannel):
        await session.receive()


async def call_tool(session: Session) -> None:
    with pytest.raises(SessionClosed):
        await session.call_tool("self.get", {})


async def play(session: Session) -> None:
    with pytest.raises(SessionClosed):
        await session.play(np.ones(24000 * 60, np.int16), 24000)


@pytest.mark.parametrize("waiter", [read_audio, read_utterances, read_messages, call_tool, play])
async def test_a_handler_that_shields_sees_everything_end(
    autojump_clock: MockClock, waiter: Callable[[Session], Awaitable[None]]
) -> None:
    left = trio.Event()

    async def handler(session: Session) -> None:
        with trio.CancelScope(shield=True):
            await waiter(session)
        left.set()

    async with serving(handler) as gateway:
        call = gateway.call()
        await wait_all_tasks_blocked()
        call.tell("goodbye")
        with trio.fail_after(1):
            await left.wait()


async def test_what_is_left_of_a_session_that_is_over(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        call = gateway.call()
        session = call.session
        call.tell("goodbye")
        with pytest.raises(SessionClosed, match="goodbye"):
            session.send({"type": "custom"})
        await play(session)
        await call_tool(session)
        await read_messages(session)
        session.close()
        assert session.end_reason == "goodbye"
        assert words(gateway.front.take()) == ["goodbye"]


async def test_a_handler_may_end_its_session(autojump_clock: MockClock) -> None:
    async def handler(session: Session) -> None:
        session.close()
        await trio.sleep_forever()

    async with serving(handler) as gateway:
        call = gateway.call()
        await wait_all_tasks_blocked()
        assert [(m["type"], m["session_id"]) for m in gateway.front.take()] == [
            ("goodbye", call.id)
        ]
        assert gateway.sessions.statistics().closed == {"backend_ended": 1}


# What a handler does not read


async def test_a_handler_that_reads_nothing_costs_a_bounded_amount(
    autojump_clock: MockClock,
) -> None:
    async with serving(idle, inbox_messages=10, audio_backlog=1.0) as gateway:
        call = gateway.call()
        for number in range(1000):
            call.tell("custom", n=number)
            call.listen("start")
            call.say(number)
            call.listen("stop")
            await trio.sleep(FRAME)
        session = call.session
        statistics = session.statistics()
        assert statistics.messages_dropped == 3000 - 10
        assert statistics.up.decoded == 1000
        assert statistics.up.unread >= 1000 - 8
        assert len(session._uplink._line) <= 16
        assert (await session.receive())["state"] in ("start", "stop")
        total = gateway.sessions.statistics()
        assert (total.messages_dropped, total.up.unread) == (2990, statistics.up.unread)


async def test_two_tasks_may_wait_for_messages(autojump_clock: MockClock) -> None:
    got: list[object] = []

    async def read(session: Session) -> None:
        got.append((await session.receive())["type"])

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, session)
            nursery.start_soon(read, session)

    async with serving(handler) as gateway:
        call = gateway.call()
        await wait_all_tasks_blocked()
        call.tell("one")
        call.tell("two")
        await wait_all_tasks_blocked()
    assert sorted(map(str, got)) == ["one", "two"]


async def test_a_cancelled_receive_loses_no_message(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        call = gateway.call()
        call.tell("one")
        with trio.CancelScope() as scope:
            scope.cancel()
            await call.session.receive()
        assert (await call.session.receive())["type"] == "one"


# MCP


async def test_a_tool_call_and_its_answer(autojump_clock: MockClock) -> None:
    async with serving() as gateway, trio.open_nursery() as nursery:
        call = gateway.call()
        results: list[object] = []

        async def ask() -> None:
            results.append(await call.session.call_tool("self.get", {"x": 1}))

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        request = tool_call(gateway)
        assert request == {
            "jsonrpc": "2.0",
            "id": request["id"],
            "method": "tools/call",
            "params": {"name": "self.get", "arguments": {"x": 1}},
        }
        call.tell("mcp", payload={"jsonrpc": "2.0", "id": request["id"], "result": {"v": 2}})
        await wait_all_tasks_blocked()
        assert results == [{"v": 2}]
        # The handler does not see it again.
        with trio.move_on_after(1) as waited:
            await call.session.receive()
        assert waited.cancelled_caught


async def test_a_tool_call_that_the_device_does_not_answer(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        call = gateway.call()
        began = trio.current_time()
        with pytest.raises(ToolCallError, match="no answer within 3 s"):
            await call.session.call_tool("self.get", {}, timeout=3)
        assert trio.current_time() - began == pytest.approx(3)
        # What comes too late is for whoever reads the messages.
        number = tool_call(gateway)["id"]
        call.tell("mcp", payload={"jsonrpc": "2.0", "id": number, "result": {}})
        assert (await call.session.receive())["payload"]["id"] == number


# What the device may do at any time


@pytest.mark.parametrize("order", range(8))
async def test_no_order_of_messages_breaks_a_session(autojump_clock: MockClock, order: int) -> None:
    rng = np.random.default_rng(order)
    async with serving(echo, pool=FakePool(holds=order % 2 == 1)) as gateway:
        call = gateway.call()
        acts: list[Callable[[], None]] = [
            partial(call.listen, "start", "manual"),
            partial(call.listen, "start", "auto"),
            partial(call.listen, "start", "realtime"),
            partial(call.listen, "stop"),
            partial(call.tell, "abort"),
            partial(call.say, LOUD),
            partial(call.say, 0),
            call.audio.lose,
            gateway.pool.finish,
        ]
        for _ in range(400):
            acts[rng.integers(len(acts))]()
            await trio.sleep(float(rng.choice([0, 0.01, 0.06, 0.7])))
        gateway.pool.holds = False
        gateway.pool.finish()
        await the_next_question_is_answered(call)
        states = [m["state"] for _, _, m in gateway.front.sent if m["type"] == "tts"]
        assert states == ["start", "stop"] * (len(states) // 2)
        sent = call.audio.heard(gateway.sender)
        assert [frame.sequence for frame in sent] == list(range(1, len(sent) + 1))
        spoken = spans(gateway)
        assert all(any(a <= frame.time <= b for a, b in spoken) for frame in sent)


async def the_next_question_is_answered(call: Call) -> None:
    call.listen("stop")
    call.tell("abort")
    await trio.sleep(70)
    heard = len(call.heard)
    call.listen("start")
    call.say(*[LOUD] * 5)
    call.listen("stop")
    await trio.sleep(5)
    assert len(call.heard) == heard + 5


def spans(gateway: FakeGateway) -> list[tuple[float, float]]:
    """When the device was in its speaking state."""
    times = [at for at, _, m in gateway.front.sent if m["type"] == "tts"]
    return list(zip(times[::2], times[1::2], strict=True))
