"""The embedded endpoint: what clients say, right and wrong, and what becomes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from mqtt_peer import PASSWORD, Peer, RecordingSink, open_running

from trio_gateway.broker import open_broker
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    UnsubAck,
    Unsubscribe,
    encode,
)
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.core.control import Message

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@aa_bb_cc_dd_ee_ff"
HELLO = Publish("device-server", b'{"type":"hello"}')


def message(number: int, size: int = 0) -> Publish:
    return Publish("device-server", json.dumps({"n": number, "pad": "x" * size}).encode())


async def test_messages_arrive_in_order_with_their_sender(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        topics = ["device-server", f"devices/{DEVICE}/hello", f"devices/{DEVICE}/data"]
        for topic in topics:
            await device.send(Publish(topic, json.dumps({"topic": topic}).encode()))
        assert await device.ask(PingReq()) == PingResp()
        assert run.sink.events[1:] == [("message", DEVICE, {"topic": topic}) for topic in topics]
        assert run.broker.statistics().delivered == 3


async def test_qos_1_is_acknowledged_and_qos_2_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        other = await run.client("other")
        assert await device.ask(Publish("device-server", b"{}", 1, packet_id=7)) == PubAck(7)
        assert run.sink.events[-1] == ("message", DEVICE, {})
        assert await device.ask(Publish("device-server", b"{}", 2, packet_id=8)) is None
        assert run.broker.statistics().bad_packets == {"qos_2": 1}
        assert await other.ask(PingReq()) == PingResp()


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"{", "not_json"), (b"[]", "not_an_object"), (b"\xff", "not_utf8")]
)
async def test_a_bad_message_is_counted_and_the_connection_stays(
    payload: bytes, reason: str, autojump_clock: MockClock
) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        await device.send(Publish("device-server", payload))
        assert await device.ask(HELLO, PingReq()) == PingResp()
        assert run.sink.events == [("connected", DEVICE), ("message", DEVICE, {"type": "hello"})]
        assert run.broker.statistics().bad_messages == {reason: 1}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Connect(DEVICE, username="u", password=PASSWORD), "unexpected"),
        (ConnAck(0), "unexpected"),
        (PubAck(1), "unexpected"),
        (SubAck(1, (0,)), "unexpected"),
        (PingResp(), "unexpected"),
        (b"\xf0\x00", "first_byte"),
        (b"\x30\xff\xff\xff\xff", "length"),
        (Publish("device-server", bytes(16 * 1024)), "oversize"),
        (b"\x30\x80\x80\x80\x01", "oversize"),
    ],
)
async def test_a_broken_peer_ends_alone(
    packet: Packet | bytes, reason: str, autojump_clock: MockClock
) -> None:
    async with open_running(max_packet_bytes=16 * 1024) as run:
        other = await run.client("other")
        device = await run.client(DEVICE)
        await device.send(packet)
        assert await device.receive() is None
        assert run.broker.statistics().bad_packets == {reason: 1}
        assert run.sink.events[2:] == [("disconnected", DEVICE)]
        assert await other.ask(PingReq()) == PingResp()


async def test_a_packet_of_the_largest_size_arrives(autojump_clock: MockClock) -> None:
    async with open_running(max_packet_bytes=16 * 1024) as run:
        device = await run.client(DEVICE)
        head = len(encode(message(1)))
        largest = message(1, 16 * 1024 - head - 1)  # its length takes a byte more
        assert len(encode(largest)) == 16 * 1024
        assert await device.ask(largest, PingReq()) == PingResp()
        assert len(run.sink.events) == 2


async def test_a_sink_that_raises_costs_one_connection(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        other = await run.client("other")
        device = await run.client(DEVICE)
        assert await device.ask(Publish("device-server", b'{"raise":"oh"}')) is None
        assert run.broker.statistics().closed == {"crashed": 1}
        assert run.sink.events[2:] == [("disconnected", DEVICE)]
        assert await other.ask(PingReq()) == PingResp()
        await run.client(DEVICE)


async def test_a_sink_that_raises_at_the_end_harms_nobody(autojump_clock: MockClock) -> None:
    class Raising(RecordingSink):
        def device_disconnected(self, client_id: str) -> None:
            raise RuntimeError(client_id)

    async with open_running(Raising()) as run:
        other = await run.client("other")
        device = await run.client(DEVICE)
        await device.close()
        assert await other.ask(PingReq()) == PingResp()
        assert run.broker.statistics().clients == 1


async def test_a_sink_that_raises_on_connection_leaves_nothing(autojump_clock: MockClock) -> None:
    class Raising(RecordingSink):
        def device_connected(self, client_id: str) -> None:
            raise RuntimeError(client_id)

    async with open_running(Raising()) as run:
        device = run.peer()
        assert await device.connect(DEVICE) == ConnAck(0)
        assert await device.receive() is None
        assert run.broker.statistics().clients == 0
        assert not run.broker.send(DEVICE, b"{}")
        await device.close()
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().connections == 0


async def test_authentication_that_crashes_lets_nobody_in(autojump_clock: MockClock) -> None:
    def crash(_client_id: str, _username: str | None, _password: bytes | None) -> None:
        raise RuntimeError("database gone")

    settings = MqttSettings(listen=Address("127.0.0.1", 0))
    sink = RecordingSink()
    async with (
        trio.open_nursery() as nursery,
        open_broker(settings, sink=sink, authenticate=crash) as broker,
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(broker.serve_connection, theirs)
        assert await Peer(ours).connect(DEVICE) is None
        assert sink.events == []


async def test_a_flood_does_not_keep_others_waiting(autojump_clock: MockClock) -> None:
    turns = []

    class Slow(RecordingSink):
        def deliver(self, client_id: str, message: Message) -> None:
            super().deliver(client_id, message)
            autojump_clock.jump(0.0004)  # the time that handling one message takes
            turns.append(client_id)

    async with open_running(Slow()) as run:
        flooding = await run.client("flooding")
        device = await run.client(DEVICE)
        await flooding.send(*[message(number) for number in range(100)])
        await device.send(*[message(number) for number in range(10)])
        assert await device.ask(PingReq()) == PingResp()
        # Three messages fill a turn of 1 ms, so the two alternate like that; else it were 100.
        assert turns.count("flooding") < 60


async def test_unsubscribe_is_answered(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        assert await device.ask(Unsubscribe(3, ("never/there",))) == UnsubAck(3)
        assert await device.ask(Unsubscribe(4, (f"devices/p2p/{DEVICE}",))) == UnsubAck(4)
        assert run.broker.send(DEVICE, b"{}")  # its own topic is not a device's to lose
        assert await device.receive() == Publish(f"devices/p2p/{DEVICE}", b"{}")
