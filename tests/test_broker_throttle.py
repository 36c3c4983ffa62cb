"""The embedded endpoint: how fast one client may talk, on the virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from mqtt_peer import Peer, Running, open_running

from trio_gateway.broker.connection import CLOSE_TIMEOUT, LEAST_READ
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    encode,
)
from trio_gateway.core.mqtt_types import Will

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
OTHER = "GID_test@@@11_22_33_44_55_66@@@uuid"
MESSAGE = Publish("device-server", b"{}")


async def test_who_talks_too_fast_is_read_slowly_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_running(message_rate=10.0, message_burst=20) as run:
        fast, other = await run.client(DEVICE), await run.client(OTHER)
        started = trio.current_time()
        await fast.send(*[MESSAGE] * 50)
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().delivered == 20
        assert await other.ask(MESSAGE, PingReq()) == PingResp()
        assert trio.current_time() == started
        assert await fast.ask(PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 3.1, abs=0.1)
        statistics = run.broker.statistics()
        assert statistics.delivered == 51
        assert statistics.throttled == {"messages": 31}
        assert statistics.throttled_seconds == pytest.approx(3.1, abs=0.1)
        assert statistics.closed == {}


async def test_bytes_are_limited_as_well(autojump_clock: MockClock) -> None:
    async with open_running(byte_rate=1000.0, byte_burst=20_000) as run:
        device = await run.client(DEVICE)
        started = trio.current_time()
        tools = Publish("device-server", b'{"tools":"%s"}' % (b"x" * 9_000))
        assert await device.ask(tools, tools, PingReq()) == PingResp()
        assert trio.current_time() == started  # 18 kB
        assert await device.ask(tools, PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 7.1, abs=0.1)
        assert run.broker.statistics().throttled["bytes"] >= 1
        assert run.broker.statistics().delivered == 3


async def test_defaults_let_a_device_say_all_it_has_at_once(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        tools = Publish("device-server", b'{"tools":"%s"}' % (b"x" * 16_000))
        assert await device.ask(*[tools] * 15, *[MESSAGE] * 200, PingReq()) == PingResp()
        assert run.broker.statistics().throttled == {}


async def test_being_kept_waiting_is_not_silence(autojump_clock: MockClock) -> None:
    async with open_running(byte_rate=1000.0, byte_burst=16 * 1024) as run:
        device = await run.client(DEVICE, keepalive=10)
        large = Publish("device-server", b'{"x":"%s"}' % (b"x" * 60_000))
        assert await device.ask(large, PingReq()) == PingResp()  # 44 s
        assert trio.current_time() > 40
        assert run.broker.statistics().delivered == 1


async def test_who_is_kept_waiting_can_be_taken_over_at_once(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=0.001, message_burst=1) as run:
        first = await run.client(DEVICE)
        await first.send(*[MESSAGE] * 5)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        second = await run.client(DEVICE)
        assert await first.receive() is None
        assert trio.current_time() == started
        assert run.broker.statistics().delivered == 1
        # A new connection is not a new allowance.
        await second.send(MESSAGE)
        assert await second.is_silent()
        assert run.broker.statistics().delivered == 1
    assert trio.current_time() < started + CLOSE_TIMEOUT + 0.1
    assert run.broker.statistics().closed == {"taken_over": 1, "shutdown": 1}


async def test_going_through_what_is_retained_counts(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=10) as run:
        device = await run.client(DEVICE)
        await device.send(Publish("t", b"kept", retain=True))
        filters = (*((f"t/{number}/#", 0) for number in range(19)), ("t", 0))
        started = trio.current_time()
        assert await device.ask(Subscribe(1, filters)) == SubAck(1, (0,) * 20)
        assert trio.current_time() == started
        assert await device.receive() == Publish("t", b"kept", retain=True)
        assert trio.current_time() == pytest.approx(started + 12, abs=0.1)


async def test_each_copy_of_a_message_counts(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=10) as run:
        readers = [await run.client(f"reader {number}") for number in range(6)]
        for each in readers:
            await each.ask(Subscribe(1, (("news", 0),)))
        writer = await run.client("writer")
        await writer.send(Publish("news"), Publish("news"), Publish("news"))
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().published == 2  # 6 of 10; the second goes out on credit
        started = trio.current_time()
        assert await writer.ask(PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 9, abs=0.1)
        assert [await each.receive() for each in readers] == [Publish("news")] * 6


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    async with open_running(send_timeout=20.0) as run:
        stuck, other = run.lockstep_peer(), await run.client(OTHER)
        assert await stuck.connect(DEVICE) == ConnAck(0)
        started = trio.current_time()
        assert run.broker.send(DEVICE, b"{}")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(19.9)
        assert run.broker.statistics().clients == 2
        await trio.sleep(0.2)
        assert run.broker.statistics().closed == {"slow_reader": 1}
        assert trio.current_time() < started + 21
        assert await other.ask(PingReq()) == PingResp()


async def test_a_client_that_takes_some_is_served(autojump_clock: MockClock) -> None:
    async with open_running(send_timeout=20.0) as run:
        slow = run.lockstep_peer()
        assert await slow.connect(DEVICE) == ConnAck(0)
        assert run.broker.send(DEVICE, bytes(64 * 1024))
        for _ in range(4):
            await trio.sleep(15)
            await slow.stream.receive_some(16 * 1024)
        assert run.broker.statistics().closed == {}


async def subscribed(run: Running, count: int) -> list[Peer]:
    readers = [await run.client(f"reader {number}") for number in range(count)]
    for each in readers:
        assert await each.ask(Subscribe(1, (("news", 0),))) == SubAck(1, (0,))
    return readers


@pytest.mark.parametrize("burst", [1, 10, 50])
async def test_copies_beyond_the_burst_are_not_free(autojump_clock: MockClock, burst: int) -> None:
    async with open_running(message_rate=1.0, message_burst=burst) as run:
        await subscribed(run, 100)
        writer = await run.client("writer")
        await writer.send(*[Publish("news")] * 10)
        await trio.sleep(50)
        assert run.broker.statistics().published == 1
        assert run.broker.statistics().clients == 101


async def test_a_debt_does_not_end_with_the_connection(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=10) as run:
        await subscribed(run, 50)
        writer = await run.client("writer")
        await writer.send(Publish("news"))
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        writer = await run.client("writer")
        assert await writer.ask(PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 41, abs=0.1)


async def test_wills_count_like_messages(autojump_clock: MockClock) -> None:
    will = Will("news", b"gone")
    async with open_running(message_rate=1.0, message_burst=10, login_rate_per_client=10) as run:
        await subscribed(run, 50)
        for _ in range(20):
            writer = await run.client("writer", will=will)
            await writer.close()
            await trio.sleep(0.5)
        assert run.broker.statistics().published == 1
        assert run.broker.statistics().dropped == {"throttled": 19}
        await trio.sleep(60)
        await (await run.client("writer", will=will)).close()
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().published == 2


async def test_time_that_somebody_is_still_kept_waiting_counts(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=0.1, message_burst=1) as run:
        device = await run.client(DEVICE)
        await device.send(MESSAGE, MESSAGE)
        await trio.sleep(5)
        assert run.broker.statistics().throttled_seconds == pytest.approx(5, abs=0.1)
        await trio.sleep(60)
        assert run.broker.statistics().throttled_seconds == pytest.approx(10, abs=0.1)


async def test_who_is_gone_behind_a_backlog_is_noticed(autojump_clock: MockClock) -> None:
    async with open_running(throttle_timeout=60.0) as run:
        device = await run.client(DEVICE, keepalive=1)
        await device.send(encode(Publish("t")) * 10_000)  # 8 minutes
        await device.close()
        await trio.sleep(59)
        assert run.broker.statistics().clients == 1
        await trio.sleep(2)
        assert run.broker.statistics().clients == 0
        assert run.broker.statistics().closed == {"throttled": 1}


async def test_pauses_make_up_for_waiting(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=1, throttle_timeout=60.0) as run:
        device = await run.client(DEVICE)
        for _ in range(5):
            assert await device.ask(*[MESSAGE] * 50, PingReq()) == PingResp()  # 50 s
            await trio.sleep(50)
        assert run.broker.statistics().closed == {}


async def test_a_read_counts_as_some_bytes_however_few_it_brings(
    autojump_clock: MockClock,
) -> None:
    async with open_running(byte_rate=LEAST_READ, byte_burst=16 * 1024) as run:
        device = await run.client(DEVICE)
        ping = encode(PingReq())
        started = trio.current_time()
        for _ in range(16 * 1024 // LEAST_READ // 2):
            for byte in ping:
                await device.send(bytes((byte,)))
                await trio.testing.wait_all_tasks_blocked()
            assert await device.receive() == PingResp()
        assert trio.current_time() == started
        await device.send(ping[:1])
        await trio.testing.wait_all_tasks_blocked()
        assert await device.ask(ping[1:]) == PingResp()
        assert trio.current_time() == pytest.approx(started + 2, abs=0.1)
