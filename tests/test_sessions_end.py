"""How sessions end: by themselves, by the device, in a drain; and what is counted then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from fake_pool import REFUSED, FakePool
from fake_wires import words
from served_sessions import FRAME, IDLE, TAIL, FakeGateway, idle, serving
from trio.testing import wait_all_tasks_blocked

from trio_gateway.backends.echo import echo
from trio_gateway.core.sealing import MAX_SEQUENCE
from trio_gateway.errors import BadPacket, KeystreamExhausted

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.session import Session


async def test_a_handler_that_returns_or_raises_ends_its_own_session(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: Session) -> None:
        if session.device.text == "good":
            return
        if session.device.text == "bad":
            raise ZeroDivisionError
        if session.device.text == "worse":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()

    async def fail() -> None:
        raise KeyError("in a task of the handler")

    async with serving(handler) as gateway:
        ids = {name: gateway.call(name).id for name in ("good", "bad", "worse", "other")}
        await wait_all_tasks_blocked()
        goodbyes = {to: m["session_id"] for _, to, m in gateway.front.sent}
        assert goodbyes == {name: ids[name] for name in ("good", "bad", "worse")}
        statistics = gateway.sessions.statistics()
        assert statistics.closed == {"backend_ended": 1, "backend_failed": 2}
        assert statistics.active == 1


async def test_a_handler_that_fails_while_all_is_cancelled_fails_nobody_else(
    autojump_clock: MockClock,
) -> None:
    """Its nursery raises a group of Cancelled and ValueError; the latter must not leave serve()."""

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleaning up")

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)

    async with serving(handler) as gateway:
        gateway.call()
        await wait_all_tasks_blocked()
    assert gateway.sessions.statistics().closed == {"shutdown": 1}
    assert words(gateway.front.take()) == ["goodbye"]


async def test_an_interrupt_inside_a_handler_is_not_swallowed(autojump_clock: MockClock) -> None:
    async def handler(session: Session) -> None:
        raise KeyboardInterrupt

    async def serve() -> None:
        async with serving(handler) as gateway:
            gateway.call()
            await trio.sleep(1)

    with pytest.raises(BaseExceptionGroup) as raised:
        await serve()
    assert raised.group_contains(KeyboardInterrupt)


async def test_a_session_whose_key_is_used_up_is_over(autojump_clock: MockClock) -> None:
    """The device has to say hello again, whatever the handler makes of the error."""
    raised: list[BaseException] = []

    async def handler(session: Session) -> None:
        session.link._sealer.sequence = MAX_SEQUENCE - 3
        session.link._sealer._first_at = trio.current_time()
        try:
            await session.play(np.ones(24000, np.int16), 24000)
        except KeystreamExhausted as error:
            raised.append(error)
        await trio.sleep_forever()

    async with serving(handler) as gateway:
        call = gateway.call()
        call.say(1)
        await trio.sleep(2)
        assert len(raised) == 1
        assert words(gateway.front.take()) == ["tts start", "tts stop", "goodbye"]
        assert gateway.sessions.statistics().closed == {"exhausted": 1}
        gateway.call()


async def test_a_silent_session_is_closed_even_if_its_handler_shields(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: Session) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10 * IDLE)

    async with serving(handler) as gateway:
        call = gateway.call()
        await trio.sleep(IDLE - 1)
        assert gateway.sessions.live
        await trio.sleep(2)
        assert gateway.sessions.live == ()
        assert [(m["type"], m["session_id"]) for m in gateway.front.take()] == [
            ("goodbye", call.id)
        ]
        statistics = gateway.sessions.statistics()
        assert statistics.closed == {"idle": 1}
        assert (statistics.active, statistics.leaving) == (0, 1)


async def test_a_device_that_is_gone_is_not_talked_to_for_ever(autojump_clock: MockClock) -> None:
    async def chatter(session: Session) -> None:
        while True:
            session.send({"type": "custom"})
            await trio.sleep(IDLE / 2)

    async with serving(chatter) as gateway:
        gateway.call()
        await trio.sleep(899)
        assert gateway.sessions.statistics().active == 1
        await trio.sleep(2)
        assert gateway.sessions.statistics().closed == {"idle": 1}


async def test_messages_datagrams_and_a_long_story_all_keep_a_session_alive(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: Session) -> None:
        await session.receive()
        await session.play(np.ones(24000 * 300, np.int16), 24000)
        await trio.sleep_forever()

    async with serving(handler) as gateway:
        call = gateway.call()
        await trio.sleep(IDLE * 0.9)
        call.say(1)
        await trio.sleep(IDLE * 0.9)
        call.tell("listen", state="detect")
        await trio.sleep(300)  # while it speaks, the device sends nothing
        assert gateway.sessions.live
        await trio.sleep(IDLE * 0.9)
        assert gateway.sessions.live
        await trio.sleep(IDLE * 0.2)
        assert gateway.sessions.live == ()
        assert words(gateway.front.take())[-1] == "goodbye"


async def test_a_device_that_disconnects_gets_no_goodbye(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        gateway.sessions.device_connected("device")
        gateway.call()
        gateway.sessions.device_disconnected("somebody else")
        assert gateway.sessions.live
        gateway.sessions.device_disconnected("device")
        assert gateway.sessions.live == ()
        assert gateway.front.take() == []
        assert gateway.sessions.statistics().closed == {"disconnected": 1}


async def test_a_bug_that_a_datagram_a_message_or_a_timer_finds_ends_one_session(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with serving() as gateway:
        calls = {name: gateway.call(name) for name in ("datagram", "message", "timer", "other")}
        monkeypatch.setattr(calls["datagram"].session, "receive_datagram_untrusted", broken)
        monkeypatch.setattr(calls["message"].session, "deliver", broken)
        monkeypatch.setattr(calls["timer"].session, "handle_timer", broken)
        calls["datagram"].say(1)
        calls["message"].listen("start")
        calls["timer"].listen("stop")
        await trio.sleep(2 * TAIL)
        assert [session.device.text for session in gateway.sessions.live] == ["other"]
        assert sorted(to for _, to, _ in gateway.front.sent) == ["datagram", "message", "timer"]
        assert gateway.sessions.statistics().closed == {"failed": 3}


async def test_a_refused_datagram_is_the_planes_to_count(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        call = gateway.call()
        with pytest.raises(BadPacket):
            call.send(call.audio.nonce + b"?")
        assert call.session.end_reason is None


async def test_drain_ends_quiet_sessions_at_once_and_busy_ones_when_they_are_quiet(
    autojump_clock: MockClock,
) -> None:
    async with serving(echo) as gateway:
        quiet, speaking, asking = (gateway.call(each) for each in ("quiet", "speaking", "asking"))
        speaking.listen("start")
        speaking.say(1)
        asking.listen("start")
        asking.say(*[30000] * 20)
        asking.listen("stop")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.sessions.drain, 30.0)
            await trio.sleep(0.5)
            gateway.tell("late", "hello")
        goodbyes = {
            m["session_id"]: at - began
            for at, _, m in gateway.front.sent
            if "session_id" in m and m["type"] == "goodbye"
        }
        assert goodbyes[quiet.id] == 0
        assert goodbyes[speaking.id] == pytest.approx(1.0, abs=0.1)
        # Twenty frames at 16 kHz are twenty at 24 kHz: none of the answer is cut off.
        assert len(asking.heard) == 20
        assert goodbyes[asking.id] == pytest.approx(TAIL + 0.1 + 20 * FRAME, abs=0.1)
        statistics = gateway.sessions.statistics()
        assert statistics.closed == {"shutdown": 3}
        assert statistics.refused == {"not_serving": 1}


async def test_drain_ends_everything_when_the_grace_is_over(autojump_clock: MockClock) -> None:
    async def handler(session: Session) -> None:
        await session.play(np.ones(24000 * 300, np.int16), 24000)

    async with serving(handler) as gateway:
        call = gateway.call()
        call.say(1)
        began = trio.current_time()
        await gateway.sessions.drain(3.0)
        assert trio.current_time() - began == pytest.approx(3.0)
        assert gateway.sessions.live == ()
        assert [m["session_id"] for m in gateway.front.take() if m["type"] == "goodbye"] == [
            call.id
        ]


async def test_drain_does_not_wait_for_who_never_answers_or_cannot_be_heard(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: Session) -> None:
        if session.device.text == "unheard":
            await session.play(np.ones(24000, np.int16), 24000)
        await trio.sleep_forever()

    async with serving(handler) as gateway:
        gateway.call("unheard")
        unanswered = gateway.call("unanswered")
        unanswered.listen("start")
        unanswered.listen("stop")
        began = trio.current_time()
        await gateway.sessions.drain(60.0)
        assert trio.current_time() - began < 10


async def test_after_a_drain_it_can_serve_again(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.sessions.serve, idle)
            gateway.call()
            await gateway.sessions.drain(1.0)
    assert gateway.sessions.statistics().closed == {"shutdown": 2}


async def test_frames_in_flight_at_the_end_are_counted_once(autojump_clock: MockClock) -> None:
    pool = FakePool(holds=True)
    async with serving(pool=pool) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(1, 2)
        call.send(call.audio.say_packet(REFUSED))
        pool.finish()
        call.say(4)
        call.audio.lose()
        call.say(6)
        await trio.sleep(0.2)  # the gap is given up
        with pytest.raises(BadPacket):
            call.send(call.audio.nonce + b"?")
        before = gateway.sessions.statistics()
        assert (before.up.decoded, before.up.failed, before.up.dropped) == (2, 1, 0)
        gateway.call()  # replaces it, with three frames in the pool
        after = gateway.sessions.statistics()
        assert (after.up.decoded, after.up.failed, after.up.dropped) == (2, 1, 3)
        pool.finish()
        assert gateway.sessions.statistics() == after
        assert (after.up.received, after.lost, after.up.concealed) == (6, 1, 0)


async def test_counters_never_go_back_when_sessions_end(autojump_clock: MockClock) -> None:
    async with serving(echo) as gateway:
        for number in range(3):
            call = gateway.call(f"device {number}")
            call.listen("start")
            call.say(*[9000] * 5)
            call.listen("stop")
            await trio.sleep(2)
            assert len(call.heard) == 5
            before = gateway.sessions.statistics()
            call.tell("goodbye")
            after = gateway.sessions.statistics()
            assert (after.frames_up, after.frames_down, after.up.received) == (
                before.frames_up,
                before.frames_down,
                before.up.received,
            )
        assert (after.frames_up, after.frames_down, after.up.received) == (15, 15, 15)
        assert (after.opened, after.active) == (3, 0)


async def test_ended_sessions_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """A device that says hello all the time costs one session's memory, not that of all."""
    async with serving() as gateway:
        for number in range(3000):
            gateway.call()
            if number % 100 == 0:
                await wait_all_tasks_blocked()
        assert len(gateway.sessions.live) == 1
        assert len(gateway.sessions._timers) < 2000
        assert len(gateway.sessions._by_ssrc) == 1
        for _, _, timer in gateway.sessions._timers._heap:
            assert timer.callback is None or timer.deadline < math.inf
