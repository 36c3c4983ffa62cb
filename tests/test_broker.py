"""The embedded endpoint: who gets in, who takes over, who is too quiet, how it all ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from attrs import define
from mqtt_peer import PASSWORD, Peer, RecordingSink, open_running

from trio_gateway.broker.connection import CLOSE_TIMEOUT
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    Will,
    encode,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@aa_bb_cc_dd_ee_ff"
HELLO = Publish("device-server", b'{"type":"hello"}')


def message(number: int, size: int = 0) -> Publish:
    return Publish("device-server", json.dumps({"n": number, "pad": "x" * size}).encode())


# Who gets in


async def test_a_device_that_never_subscribes_gets_its_messages(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        assert run.broker.send(DEVICE, b"{}")
        assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"{}")
        assert run.broker.statistics().sent == 1


async def test_connack_comes_before_what_is_sent_on_connection(autojump_clock: MockClock) -> None:
    class Greeting(RecordingSink):
        def device_connected(self, client_id: str) -> None:
            assert run.broker.send(client_id, b"welcome")

    async with open_running(Greeting()) as run:
        device = run.peer()
        assert await device.connect(DEVICE) == ConnAck(0)
        assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"welcome")


async def test_a_wrong_password_does_not_touch_the_victim(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        victim = await run.client(DEVICE)
        assert await victim.ask(Subscribe(1, (("news", 0),))) == SubAck(1, (0,))
        attacker = run.peer()
        assert await attacker.connect(DEVICE, password=b"wrong") == ConnAck(5)
        assert await attacker.receive() is None

        assert run.sink.events == [("connected", DEVICE)]
        assert run.broker.statistics().clients == 1
        assert run.broker.statistics().refused == {"bad_password": 1}
        assert run.broker.send(DEVICE, b"private")
        assert await victim.receive() == Publish(f"devices/p2p/{DEVICE}", b"private")
        assert await victim.ask(Publish("news", b"still here")) == Publish("news", b"still here")
        assert await victim.ask(HELLO, PingReq()) == PingResp()
        assert run.sink.events[1:] == [("message", DEVICE, {"type": "hello"})]


async def test_what_follows_a_refused_connect_is_not_read(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        attacker = run.peer()
        connect = Connect(DEVICE, username="u", password=b"wrong")
        assert await attacker.ask(connect, HELLO, HELLO) == ConnAck(5)
        assert await attacker.receive() is None
        assert run.sink.events == []


@pytest.mark.parametrize(
    "client_id", ["", "+", "#", "a/b", "GID@@@+@@@x", "p2p", "line\nbreak", "x" * 257]
)
async def test_ids_that_cannot_stand_in_a_topic(client_id: str, autojump_clock: MockClock) -> None:
    async with open_running() as run:
        peer = run.peer()
        assert await peer.connect(client_id) == ConnAck(2)
        assert await peer.receive() is None
        assert run.sink.events == []


async def test_another_version_of_mqtt_is_answered(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        peer = run.peer()
        data = bytearray(encode(Connect(DEVICE)))
        data[8] = 5
        assert await peer.ask(bytes(data)) == ConnAck(1)
        assert await peer.receive() is None
        assert run.broker.statistics().refused == {"protocol_level": 1}


@pytest.mark.parametrize("packet", [HELLO, PingReq(), Subscribe(1, (("#", 0),)), Disconnect()])
async def test_nothing_comes_before_connect(packet: Packet, autojump_clock: MockClock) -> None:
    async with open_running() as run:
        peer = run.peer()
        assert await peer.ask(packet) is None
        assert run.broker.statistics().bad_packets == {"not_connect": 1}
        assert run.sink.events == []


async def test_clients_are_limited_but_one_may_come_again(autojump_clock: MockClock) -> None:
    async with open_running(max_clients=2) as run:
        await run.client("a")
        await run.client("b")
        third = run.peer()
        assert await third.connect("c") == ConnAck(3)
        assert await third.receive() is None
        again = await run.client("b")
        assert await again.ask(PingReq()) == PingResp()
        assert run.broker.statistics().refused == {"max_clients": 1}


async def test_half_open_connections_end(autojump_clock: MockClock) -> None:
    async with open_running(connect_timeout=10.0) as run:
        started = trio.current_time()
        for peer in [run.peer() for _ in range(6)]:
            assert await peer.receive() is None
        assert trio.current_time() == started + 10
        assert run.broker.statistics().closed == {"connect_timeout": 6}


async def test_single_bytes_do_not_stretch_the_connect_timeout(autojump_clock: MockClock) -> None:
    async with open_running(connect_timeout=10.0) as run:
        peer = run.peer()
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await peer.drip(encode(Connect(DEVICE, password=PASSWORD, username="u" * 100)))
        assert trio.current_time() == started + 11


# Takeover


async def test_the_second_connection_takes_over(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        first = await run.client(DEVICE)
        second = await run.client(DEVICE)
        assert await first.receive() is None
        assert run.sink.events == [
            ("connected", DEVICE),
            ("disconnected", DEVICE),
            ("connected", DEVICE),
        ]
        assert run.broker.send(DEVICE, b"{}")
        assert await second.receive() == Publish(f"devices/p2p/{DEVICE}", b"{}")
        await second.close()
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.events[3:] == [("disconnected", DEVICE)]
        assert run.broker.statistics().closed == {"taken_over": 1, "eof": 1}


async def test_what_the_older_connection_had_in_flight_is_not_heard(
    autojump_clock: MockClock,
) -> None:
    async with open_running() as run:
        first = await run.client(DEVICE)
        second = run.peer()
        # Both arrive in the same turn of the event loop, in either order.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.connect, DEVICE)
            nursery.start_soon(first.send, message(1))
        heard = [event[0] for event in run.sink.events]
        after = heard[heard.index("disconnected") :]
        assert after == ["disconnected", "connected"]


async def test_subscriptions_end_with_the_connection(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        first = await run.client(DEVICE)
        await first.ask(Subscribe(1, (("news", 0),)))
        second = await run.client(DEVICE, clean_session=False)
        await second.send(Publish("news"))
        assert await second.is_silent()
        assert run.broker.statistics().subscriptions == 0


# Silence


async def test_keepalive_is_enforced_at_one_and_a_half(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE, keepalive=10)
        await trio.sleep(14.9)
        assert await device.ask(PingReq()) == PingResp()
        pinged = trio.current_time()
        assert await device.receive() is None
        assert trio.current_time() == pytest.approx(pinged + 15)
        assert run.broker.statistics().closed == {"keepalive": 1}
        assert run.sink.events == [("connected", DEVICE), ("disconnected", DEVICE)]


@pytest.mark.parametrize("keepalive", [0, 601, 65535])
async def test_a_client_cannot_ask_for_endless_patience(
    keepalive: int, autojump_clock: MockClock
) -> None:
    async with open_running(max_keepalive=600.0) as run:
        device = await run.client(DEVICE, keepalive=keepalive)
        started = trio.current_time()
        assert await device.receive() is None
        assert trio.current_time() == pytest.approx(started + 900)


async def test_half_a_packet_is_silence(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE, keepalive=10)
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await device.drip(encode(Publish("device-server", bytes(1000))))
        assert trio.current_time() == pytest.approx(started + 16)


@define
class StallingStream(trio.abc.ReceiveStream):
    """The event loop stands still after each read; meanwhile the rest arrives."""

    target: trio.abc.ReceiveStream
    clock: MockClock

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.target.receive_some(max_bytes)
        self.clock.jump(100)
        return data

    async def aclose(self) -> None:
        await self.target.aclose()


async def test_what_arrived_during_a_stall_is_no_silence(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        ours, theirs = trio.testing.memory_stream_pair()
        stalling = StallingStream(theirs.receive_stream, autojump_clock)
        stream = trio.StapledStream(theirs.send_stream, stalling)
        run.nursery.start_soon(run.broker.serve_connection, stream)
        device = Peer(ours)
        assert await device.connect(DEVICE, keepalive=10) == ConnAck(0)
        text = "x" * 20_000  # more than one read
        await device.send(Publish("device-server", json.dumps({"type": text}).encode()))
        await trio.testing.wait_all_tasks_blocked()
        assert ("message", DEVICE, {"type": text}) in run.sink.events


# The end


async def test_on_leaving_what_is_queued_still_arrives(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        assert run.broker.send(DEVICE, b"goodbye")
    assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"goodbye")
    assert await device.receive() is None
    assert run.sink.events[1:] == [("disconnected", DEVICE)]
    assert run.broker.statistics().closed == {"shutdown": 1}
    assert not run.broker.send(DEVICE, b"too late")


async def test_on_leaving_nobody_is_waited_for_long(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        stuck, half_open = run.lockstep_peer(), run.peer()
        assert await stuck.connect(DEVICE) == ConnAck(0)
        assert run.broker.send(DEVICE, b"never read")
        started = trio.current_time()
    assert trio.current_time() == pytest.approx(started + CLOSE_TIMEOUT)
    assert await half_open.receive() is None
    assert run.broker.statistics().connections == 0


async def test_when_cancelled_everything_is_closed_at_once(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_running() as run:
            stuck = run.lockstep_peer()
            will = Will("device-server", b'{"type":"goodbye"}')
            assert await stuck.connect(DEVICE, will=will) == ConnAck(0)
            assert run.broker.send(DEVICE, b"never read")
            started = trio.current_time()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == started + 5
    assert run.broker.statistics().connections == 0
    assert run.broker.statistics().closed == {"cancelled": 1}
    assert run.sink.events == [("connected", DEVICE), ("disconnected", DEVICE)]


async def test_statistics_are_a_snapshot(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        before = run.broker.statistics()
        peer = run.peer()
        await peer.connect(DEVICE, password=b"wrong")
        assert before.refused == {}
        assert before.accepted == 0
