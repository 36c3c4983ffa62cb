"""Shutdown with fifty live calls: who gets how long, who is told what, and what closes when.

Handlers that hang are in test_hanging.py.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from fake_wires import words
from light_device import device_name, open_light_device
from running_program import open_running_program
from structlog.testing import capture_logs
from virtual_gateway import VirtualGateway, open_virtual_gateway

from trio_gateway.handlers import PATIENCE
from trio_gateway.last_resort import PRINTING
from trio_gateway.mqtt.front import FLUSH_TIMEOUT
from trio_gateway.run import GOODBYES

if TYPE_CHECKING:
    from pathlib import Path

    from served_sessions import Call
    from trio.testing import MockClock

    from trio_gateway.session import Session

CALLS = 50
GRACE = 7.0


async def answers(session: Session) -> None:
    """Play at once: as long as the device's name says, in seconds."""
    seconds = float(session.device.text.split()[0])
    await session.play(np.ones(int(24000 * seconds), np.int16), 24000)
    await trio.sleep_forever()


def call_all(gateway: VirtualGateway, lengths: list[float]) -> list[Call]:
    calls = [gateway.call(f"{length} {number}") for number, length in enumerate(lengths)]
    for call in calls:
        call.say(1)  # or nobody knows where to send
    return calls


def goodbyes(gateway: VirtualGateway, since: float) -> dict[str, list[float]]:
    """When which session was told goodbye."""
    told: dict[str, list[float]] = {}
    for at, _, message in gateway.front.sent:
        if message["type"] == "goodbye":
            told.setdefault(message["session_id"], []).append(at - since)
    return told


async def test_fifty_calls_and_a_deadline(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    lengths = [(0.0, 3.0, 60.0)[number % 3] for number in range(CALLS)]
    async with open_virtual_gateway(monkeypatch, answers) as gateway:
        calls = call_all(gateway, lengths)
        await trio.sleep(1.5)  # those that do not speak are quiet by now
        began = trio.current_time()
        gateway.nursery.start_soon(gateway.gateway.drain, GRACE)
        await trio.sleep(0.01)
        gateway.front.take()
        gateway.tell("too late", "hello")
        assert words(gateway.front.take()) == ["alert", "goodbye"]
        await trio.sleep(2 * GRACE)
        assert gateway.gateway.not_ready() == ["calls are not being taken"]
    told = goodbyes(gateway, began)
    for call, length in zip(calls, lengths, strict=True):
        if length == 0:
            assert call.id not in told, "it was told before the late one came"
            continue
        (at,) = told[call.id]
        # 3 s of audio, of which half are over; 60 s are cut off at the end of the grace period.
        assert at == pytest.approx(1.6 if length == 3 else GRACE, abs=0.15)
        assert length != 3 or len(call.heard) == 50, "none of it is cut off"
    assert {len(each) for each in told.values()} == {1}


async def test_the_order(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with open_virtual_gateway(monkeypatch, answers) as gateway:
        calls = call_all(gateway, [60.0] * CALLS)
        await trio.sleep(1.0)
        began = trio.current_time()
        await gateway.gateway.drain(GRACE)
        assert trio.current_time() - began == pytest.approx(GRACE)
        told = goodbyes(gateway, began)
        assert gateway.closed == []
        assert all(stream.closed for stream in gateway.pool.streams)
    assert told == {call.id: [pytest.approx(GRACE)] for call in calls}
    # The control plane, which the goodbyes go through, is closed after them; the pool last of all.
    assert [name for _, name in gateway.closed] == ["broker", "udp", "worker_pool"]
    assert goodbyes(gateway, began) == told


async def test_one_that_hangs_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    left: Counter[str] = Counter()
    enough = trio.Event()

    async def handler(session: Session) -> None:
        try:
            if session.device.text == "stubborn":
                with trio.CancelScope(shield=True):
                    await enough.wait()
            await trio.sleep_forever()
        finally:
            left[session.device.text] += 1

    with capture_logs() as log:
        async with open_virtual_gateway(monkeypatch, handler) as gateway:
            others = [gateway.call(f"device {number}") for number in range(CALLS - 1)]
            stubborn = gateway.call("stubborn")
            began = trio.current_time()
            await gateway.gateway.drain(GRACE)
            drained = trio.current_time() - began
            told = goodbyes(gateway, began)
            gone = dict(left)
            enough.set()
    assert drained == pytest.approx(PATIENCE, abs=0.1), "it looks for quiet calls now and then"
    assert told == {call.id: [0.0] for call in (*others, stubborn)}
    assert gone == {f"device {number}": 1 for number in range(CALLS - 1)}
    (entry,) = (each for each in log if each["event"] == "handler does not end")
    assert entry["session"] == stubborn.id
    assert "enough.wait()" in entry["stack"]
    assert left["stubborn"] == 1
    assert [name for _, name in gateway.closed] == ["broker", "udp", "worker_pool"]


async def test_handlers_that_had_no_time_are_not_called_hanging(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def slow(_: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(PATIENCE / 2, shield=True):
                await trio.sleep_forever()

    with capture_logs() as log:
        async with open_virtual_gateway(monkeypatch, slow) as gateway:
            call = gateway.call("slow")
            await trio.sleep(1)
            with trio.move_on_after(PATIENCE / 4):
                await gateway.gateway.drain(GRACE)
    (entry,) = (each for each in log if "handler" in each["event"])
    assert entry["event"] == "handler still running when cut short"
    assert (entry["log_level"], entry["session"]) == ("warning", call.id)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="trio-asyncio 0.16 does not work there")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # trio-asyncio 0.16 on 3.12 and later
def test_the_last_second_is_enough_for_all_that_it_is_for() -> None:
    """Handlers, goodbyes to an external broker, DISCONNECT; and then stacks are printed."""
    from trio_gateway.mqtt.session import LEAVE_TIMEOUT  # noqa: PLC0415  it warns

    assert PATIENCE + FLUSH_TIMEOUT + LEAVE_TIMEOUT <= GOODBYES - PRINTING - 0.1


async def test_fifty_devices_and_a_real_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_SESSIONS_MAX_RESERVED", "none")  # also where one core is all
    monkeypatch.setenv("TRIO_GATEWAY_GRACE", "3600")  # none of them speaks: nobody waits for it
    with trio.fail_after(30):
        async with open_running_program(tmp_path) as program, AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(open_light_device(program.mqtt, device_name(each)))
                for each in range(CALLS)
            ]
            ids = [(await device.hello())["session_id"] for device in devices]
            program.process.send_signal(signal.SIGTERM)
            async with trio.open_nursery() as nursery:
                for device in devices:
                    nursery.start_soon(device.listen_until_closed)
            assert await program.process.wait() == 0
    assert [device.goodbyes for device in devices] == [[each] for each in ids]
