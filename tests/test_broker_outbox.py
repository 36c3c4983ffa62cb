"""The embedded endpoint: what waits for a client, and what happens if it does not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from mqtt_peer import open_running

from trio_gateway.core.mqtt_packet import (
    ConnAck,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    encode,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@aa_bb_cc_dd_ee_ff"


async def test_what_has_queued_up_leaves_in_one_piece(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device, watched = run.watched_peer()
        await device.connect(DEVICE)
        assert watched.calls == 1
        for _ in range(50):
            assert run.broker.send(DEVICE, b"{}")
        for _ in range(50):
            assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"{}")
        assert watched.calls == 2


async def test_a_slow_reader_loses_others_messages_and_nothing_of_its_own(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_outbox_bytes=64 * 1024) as run:
        slow, fast = run.lockstep_peer(), await run.client("fast")
        assert await slow.connect(DEVICE) == ConnAck(0)
        assert await slow.ask(Subscribe(1, (("news", 0),))) == SubAck(1, (0,))
        flood = [Publish("news", b"x" * 1000)] * 100
        assert await fast.ask(*flood, PingReq()) == PingResp()

        statistics = run.broker.statistics()
        assert 60 <= statistics.dropped["slow_reader"] <= 70  # half of 64 KiB holds 32
        assert run.broker.send(DEVICE, b"{}")  # the other half is the device's own
        passed = 100 - statistics.dropped["slow_reader"]
        for _ in range(passed):
            assert await slow.receive() == flood[0]
        assert await slow.receive() == Publish(f"devices/p2p/{DEVICE}", b"{}")
        assert await slow.ask(PingReq()) == PingResp()


async def test_who_does_not_read_its_own_messages_is_disconnected(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_packet_bytes=16 * 1024, max_outbox_bytes=16 * 1024) as run:
        device, other = run.lockstep_peer(), await run.client("other")
        assert await device.connect(DEVICE) == ConnAck(0)
        sent = 0
        while run.broker.send(DEVICE, b"x" * 1000):
            sent += 1
        assert sent == 15
        assert not run.broker.send(DEVICE, b"x")  # also before its task has noticed
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.events[2:] == [("disconnected", DEVICE)]
        assert run.broker.statistics().unsent == {"slow_reader": 2}
        assert run.broker.statistics().closed == {"slow_reader": 1}
        assert await other.ask(PingReq()) == PingResp()


async def test_what_has_been_read_makes_room(autojump_clock: MockClock) -> None:
    async with open_running(max_packet_bytes=16 * 1024, max_outbox_bytes=16 * 1024) as run:
        device = run.lockstep_peer()
        assert await device.connect(DEVICE) == ConnAck(0)
        for _ in range(3):
            for _ in range(15):
                assert run.broker.send(DEVICE, b"x" * 1000)
            for _ in range(15):
                assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked()  # until our end has noticed, too


async def test_answers_are_bounded_too(autojump_clock: MockClock) -> None:
    async with open_running(max_packet_bytes=16 * 1024, max_outbox_bytes=16 * 1024) as run:
        device = run.lockstep_peer()
        assert await device.connect(DEVICE) == ConnAck(0)
        with pytest.raises(trio.BrokenResourceError):
            await device.send(encode(PingReq()) * 100_000)  # and never reads
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().closed == {"slow_reader": 1}


async def test_what_no_outbox_can_hold_is_refused_and_harms_nobody(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_outbox_bytes=64 * 1024) as run:
        device = await run.client(DEVICE)
        assert not run.broker.send(DEVICE, bytes(64 * 1024))
        assert not run.broker.send("nobody", b"{}")
        assert await device.ask(PingReq()) == PingResp()
        assert run.broker.statistics().unsent == {"too_large": 1, "not_connected": 1}


async def test_a_stream_that_fails_in_its_own_way_is_contained(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        other = await run.client("other")
        device, _ = run.watched_peer(OSError("as no Trio stream should"))
        await device.connect(DEVICE)
        assert await device.receive() is None
        assert run.broker.statistics().closed == {"crashed": 1}
        assert await other.ask(PingReq()) == PingResp()
