"""Hellos and messages: who gets a session, and what reaches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from fake_pool import FakePool
from fake_wires import words
from served_sessions import PUBLIC, FakeGateway, idle, serving
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.session import Session

VECTORS = Path(__file__).parent / "vectors"


async def test_the_hello_answer_has_exactly_the_fields(autojump_clock: MockClock) -> None:
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(each) for name, each in value.items()}
        return type(value).__name__

    golden = json.loads((VECTORS / "hello.json").read_text())
    async with serving() as gateway:
        answer = gateway.call().answer
    assert shape(answer) == shape(golden["answer"])
    assert (answer["transport"], answer["version"]) == ("udp", 3)
    assert (answer["udp"]["server"], answer["udp"]["port"]) == PUBLIC
    assert answer["udp"]["encryption"] == "aes-128-ctr"
    assert len(answer["udp"]["key"]) == len(answer["udp"]["nonce"]) == 32
    assert answer["udp"]["nonce"].startswith("01000000")
    assert answer["udp"]["nonce"].endswith("0" * 16)
    assert answer["audio_params"] == {
        "format": "opus",
        "sample_rate": 24000,
        "channels": 1,
        "frame_duration": 60,
    }


async def test_every_hello_has_its_own_key_ssrc_and_id(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        calls = [gateway.call(f"device {number}") for number in range(20)]
        assert len(gateway.sessions.live) == 20
    for told in ("key", "nonce"):
        assert len({call.answer["udp"][told] for call in calls}) == 20
    assert len({call.id for call in calls}) == 20


async def test_a_second_hello_replaces_the_session(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(session.id)

    async with serving(handler) as gateway:
        first = gateway.call()
        await wait_all_tasks_blocked()
        second = gateway.call()
        # The goodbye names the old id, and comes before the new answer (`call` has popped that).
        assert [(m["type"], m["session_id"]) for m in gateway.front.take()] == [
            ("goodbye", first.id)
        ]
        assert gateway.sessions.route(first.audio.ssrc) is None
        await wait_all_tasks_blocked()
        assert ended == [first.id]
        # Nothing that names the old session reaches the new one.
        first.tell("goodbye")
        first.tell("abort")
        assert [session.id for session in gateway.sessions.live] == [second.id]
        assert gateway.front.take() == []
        statistics = gateway.sessions.statistics()
        assert (statistics.opened, statistics.active, statistics.stale) == (2, 1, 2)
        assert statistics.closed == {"replaced": 1}


async def test_two_hellos_in_one_breath(autojump_clock: MockClock) -> None:
    """The first handler has not even begun when its session is over."""
    seen: list[str] = []

    async def handler(session: Session) -> None:
        seen.append(session.id)
        await trio.sleep_forever()

    async with serving(handler) as gateway:
        first, second = gateway.call(), gateway.call()
        assert words(gateway.front.take()) == ["goodbye"]
        await wait_all_tasks_blocked()
        assert sorted(seen) == sorted([first.id, second.id])
        assert [session.id for session in gateway.sessions.live] == [second.id]
        assert words(gateway.front.take()) == []


async def test_an_old_session_that_is_slow_to_close_does_not_hurt_the_new_one(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(30, shield=True):
                await trio.sleep(20)
            session.close()

    async with serving(handler) as gateway:
        gateway.call()
        await wait_all_tasks_blocked()
        second = gateway.call()
        gateway.front.take()
        await trio.sleep(60)
        assert second.session.end_reason is None
        assert gateway.front.take() == []


async def test_a_refusal_is_an_alert_and_a_goodbye(autojump_clock: MockClock) -> None:
    async with serving(max_sessions=1) as gateway:
        gateway.tell("device", "hello", audio_params={"sample_rate": 11025})
        alert, goodbye = gateway.front.take()
        assert set(alert) == {"type", "status", "message", "emotion"}
        assert "sample_rate" in alert["message"]
        assert goodbye == {"type": "goodbye", "session_id": ""}
        gateway.call("first")
        gateway.tell("second", "hello")
        alert, goodbye = gateway.front.take()
        assert "busy" in alert["message"]
        assert gateway.sessions.statistics().refused == {"bad_sample_rate": 1, "full": 1}
        # Who has a line may have it again.
        gateway.call("first")


async def test_a_malformed_hello_ends_the_session_before_it(autojump_clock: MockClock) -> None:
    async with serving() as gateway:
        call = gateway.call()
        gateway.tell("device", "hello", audio_params=7)
        assert words(gateway.front.take()) == ["goodbye", "alert", "goodbye"]
        assert gateway.sessions.route(call.audio.ssrc) is None


async def test_nobody_serves_yet_or_any_more(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    gateway.tell("device", "hello")
    assert words(gateway.front.take()) == ["alert", "goodbye"]
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.sessions.serve, idle)
        with pytest.raises(RuntimeError, match="already"):
            await gateway.sessions.serve(idle)
        gateway.call()
        nursery.cancel_scope.cancel()
    assert words(gateway.front.take()) == ["goodbye"]
    gateway.tell("device", "hello")
    assert words(gateway.front.take()) == ["alert", "goodbye"]
    assert gateway.sessions.statistics().refused == {"not_serving": 2}


async def test_a_hello_that_cannot_be_served_for_a_fault_of_ours_is_answered_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: FakePool, rate: int) -> Any:
        raise MemoryError

    async with serving() as gateway:
        with monkeypatch.context() as patched:
            patched.setattr(FakePool, "decoder", broken)
            gateway.tell("device", "hello")
        assert words(gateway.front.take()) == ["alert", "goodbye"]
        assert gateway.sessions.statistics().refused == {"failed": 1}
        assert gateway.sessions.live == ()
        gateway.call()


@pytest.mark.parametrize(
    "where",
    [
        "trio_gateway.session.Session.price",
        "trio.Nursery.start_soon",
        "trio_gateway.sessions.hello_answer",
    ],
)
async def test_a_session_that_cannot_be_opened_begins_nowhere(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It does not call a handler, and nothing trips over what is left of it."""
    called: list[str] = []

    async def handler(session: Session) -> None:
        called.append(session.device.text)

    def broken(*_: object, **__: object) -> Any:
        raise MemoryError

    async with serving(handler) as gateway:
        with monkeypatch.context() as patched:
            patched.setattr(where, broken)
            gateway.tell("broken", "hello")
        assert words(gateway.front.take())[-2:] == ["alert", "goodbye"]
        gateway.call("good")
        await trio.sleep(1000)
        assert called == ["good"]
        statistics = gateway.sessions.statistics()
        assert (statistics.refused, statistics.active) == ({"failed": 1}, 0)
        assert (statistics.leaving, statistics.reserved_cores) == (0, 0.0)


async def test_handlers_that_do_not_leave_take_the_lines(autojump_clock: MockClock) -> None:
    """A device that says hello again and again cannot pile up handlers without bound."""

    async def stubborn(session: Session) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
            await trio.sleep_forever()

    async with serving(stubborn, max_sessions=5) as gateway:
        with capture_logs() as log:
            for _ in range(100):
                gateway.tell("device", "hello")
                await wait_all_tasks_blocked()
        assert gateway.sessions.statistics().opened == 10
        assert gateway.sessions.statistics().refused == {"handlers": 90}
        refused = [entry for entry in log if entry["event"] == "hello refused"]
        assert [entry["handlers_that_do_not_end"] for entry in refused] == [10] * 90
        await trio.sleep(100)
        gateway.call()


async def test_a_message_without_a_session_gets_a_goodbye_with_the_id_it_named(
    autojump_clock: MockClock,
) -> None:
    async with serving() as gateway:
        gateway.tell("device", "listen", session_id="long gone", state="start")
        gateway.tell("device", "udp_timeout")
        assert [(m["type"], m["session_id"]) for m in gateway.front.take()] == [
            ("goodbye", "long gone"),
            ("goodbye", ""),
        ]
        assert gateway.sessions.statistics().stale == 2
        # The device's goodbye is not answered by one that it would answer, for ever. MCP goes on
        # outside of sessions.
        gateway.tell("device", "goodbye", session_id="long gone")
        gateway.tell("device", "mcp", payload={"jsonrpc": "2.0", "id": 1, "result": {}})
        assert gateway.front.take() == []


@pytest.mark.parametrize("kind", ["goodbye", "udp_timeout"])
@pytest.mark.parametrize("named", [True, False])
async def test_the_device_ends_the_session(
    autojump_clock: MockClock, kind: str, *, named: bool
) -> None:
    ended = trio.Event()

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            assert session.end_reason == "goodbye"
            ended.set()

    async with serving(handler) as gateway:
        call = gateway.call()
        await wait_all_tasks_blocked()
        gateway.tell("device", kind, session_id=call.id if named else "")
        assert [(m["type"], m["session_id"]) for m in gateway.front.take()] == [
            ("goodbye", call.id)
        ]
        with trio.fail_after(1):
            await ended.wait()
        assert gateway.sessions.statistics().closed == {"goodbye": 1}
        assert gateway.sessions.statistics().active == 0


async def test_unknown_types_and_fields_reach_the_handler_unchanged(
    autojump_clock: MockClock,
) -> None:
    got: list[object] = []

    async def handler(session: Session) -> None:
        while True:
            got.append(await session.receive())

    messages: list[dict[str, Any]] = [
        {"type": "glyph_push", "deep": {"a": [1, None, "é"]}},
        {"type": 7},
        {"no": "type"},
        {"type": "listen", "state": "detect", "text": "hi", "new": True},
        {"type": "abort", "reason": "wake_word_detected"},
        {"type": "mcp", "payload": {"jsonrpc": "2.0", "method": "notifications/x"}},
    ]
    async with serving(handler) as gateway:
        gateway.call()
        for message in messages:
            gateway.sessions.deliver("device", message)
        await wait_all_tasks_blocked()
    assert got == messages


async def test_messages_and_datagrams_before_the_parts_are_joined() -> None:
    from trio_gateway.sessions import Sessions  # noqa: PLC0415  without what FakeGateway attaches

    sessions = Sessions(FakeGateway().settings, FakePool().as_pool, cores=2)
    sessions.deliver("device", {"type": "hello"})
    sessions.device_disconnected("device")
    assert sessions.route(1) is None
    assert sessions.live == ()
