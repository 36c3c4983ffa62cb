from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Packet,
    Parser,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    encode,
)
from trio_gateway.simulator.mqtt_client import KEEPALIVE, ConnectionLost, MqttClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Server:
    """The other end, packet by packet."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._parser = Parser(65536)

    async def receive(self) -> Packet:
        while (packet := self._parser.next_packet_untrusted()) is None:
            data = await self.stream.receive_some()
            assert data, "the client hung up"
            self._parser.receive_bytes(bytes(data))
        return packet

    async def send(self, *packets: Packet) -> None:
        await self.stream.send_all(b"".join(map(encode, packets)))


@asynccontextmanager
async def connected(code: int = 0) -> AsyncIterator[tuple[MqttClient, Server, Connect]]:
    ours, theirs = memory_stream_pair()
    client, server = MqttClient(ours), Server(theirs)
    async with trio.open_nursery() as nursery:
        seen: list[Packet] = []

        async def admit() -> None:
            seen.append(await server.receive())
            await server.send(ConnAck(code))

        nursery.start_soon(admit)
        await client.connect("device", "user", "secret")
    (connect,) = seen
    assert isinstance(connect, Connect)
    yield client, server, connect


async def test_it_introduces_itself_as_the_firmware_does(autojump_clock: MockClock) -> None:
    async with connected() as (_, _, connect):
        assert connect == Connect(
            "device", keepalive=240, clean_session=True, username="user", password=b"secret"
        )


async def test_a_refusal_is_told_in_words(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ConnectionLost, match="not authorized")):
        async with connected(code=5):
            pass


async def test_messages_come_one_by_one(autojump_clock: MockClock) -> None:
    async with connected() as (client, server, _):
        await server.send(Publish("a", b"1"), PingResp(), Publish("b", b"2"))
        assert [(await client.receive()).payload for _ in range(2)] == [b"1", b"2"]


async def test_a_quiet_client_pings_before_its_keepalive_ends(autojump_clock: MockClock) -> None:
    async with connected() as (client, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        for _ in range(3):
            with trio.fail_after(KEEPALIVE):
                assert isinstance(await server.receive(), PingReq)
            await server.send(PingResp())
        assert trio.current_time() >= 3 * KEEPALIVE / 2
        nursery.cancel_scope.cancel()


async def test_it_subscribes(autojump_clock: MockClock) -> None:
    async with connected() as (client, server, _):

        async def grant(code: int) -> None:
            packet = await server.receive()
            assert packet == Subscribe(1, (("devices/p2p/x", 0),))
            await server.send(SubAck(1, (code,)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grant, 0)
            await client.subscribe("devices/p2p/x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grant, 0x80)
            with pytest.raises(ConnectionLost, match="refused"):
                await client.subscribe("devices/p2p/x")


async def test_the_end_of_the_connection_is_told(autojump_clock: MockClock) -> None:
    async with connected() as (client, server, _):
        await server.stream.aclose()
        with pytest.raises(ConnectionLost, match="closed by the gateway"):
            await client.receive()
        with pytest.raises(ConnectionLost):
            await client.publish("a", b"")


async def test_another_protocol_is_told(autojump_clock: MockClock) -> None:
    async with connected() as (client, server, _):
        await server.stream.send_all(b"HTTP/1.1 400 Bad Request\r\n")
        with pytest.raises(ConnectionLost, match="does not speak MQTT"):
            await client.receive()
