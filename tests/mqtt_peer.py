"""The other end of the embedded endpoint, over streams in memory: no sockets, no real time."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from attrs import define, field

from trio_gateway.broker import Broker, open_broker
from trio_gateway.core.mqtt_packet import ConnAck, Connect, Packet, Parser, encode
from trio_gateway.errors import BadMessage
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_gateway.core.control import Message

__all__ = [
    "PASSWORD",
    "Peer",
    "RecordingSink",
    "Running",
    "WatchedStream",
    "check_password",
    "open_running",
]

PASSWORD = b"right"


def check_password(_client_id: str, _username: str | None, password: bytes | None) -> None:
    if password != PASSWORD:
        raise BadMessage("bad_password")


@define
class RecordingSink:
    """Remembers what it is told; raises on a message {"raise": ...}."""

    events: list[tuple[Any, ...]] = field(factory=list)

    def device_connected(self, client_id: str) -> None:
        self.events.append(("connected", client_id))

    def device_disconnected(self, client_id: str) -> None:
        self.events.append(("disconnected", client_id))

    def deliver(self, client_id: str, message: Message) -> None:
        if "raise" in message:
            raise RuntimeError(message["raise"])
        self.events.append(("message", client_id, message))


class Peer:
    """A client that does just what it is told, right or wrong."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._parser = Parser(1 << 24)
        self._inbox: deque[Packet] = deque()

    async def send(self, *packets: Packet | bytes) -> None:
        data = [packet if isinstance(packet, bytes) else encode(packet) for packet in packets]
        await self.stream.send_all(b"".join(data))

    async def receive(self) -> Packet | None:
        """The next packet; None when the other end has closed."""
        while not self._inbox:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._inbox.extend(self._parser.feed_untrusted(data))
        return self._inbox.popleft()

    async def ask(self, *packets: Packet | bytes) -> Packet | None:
        await self.send(*packets)
        return await self.receive()

    async def connect(self, client_id: str, **fields: Any) -> Packet | None:
        fields = {"username": "user", "password": PASSWORD} | fields
        return await self.ask(Connect(client_id, **fields))

    async def drip(self, data: bytes) -> None:
        """Send a byte a second."""
        for byte in data:
            await self.send(bytes((byte,)))
            await trio.sleep(1)

    async def is_silent(self) -> bool:
        """Whether nothing comes, once all tasks have done what they can (autojump clock)."""
        with trio.move_on_after(0.001) as scope:
            await self.receive()
        return scope.cancelled_caught

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)


@define
class WatchedStream(trio.abc.SendStream):
    """Counts what is sent, and raises `error` after sending it."""

    target: trio.abc.SendStream
    error: Exception | None = None
    calls: int = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.calls += 1
        await self.target.send_all(data)
        if self.error is not None:
            raise self.error

    async def wait_send_all_might_not_block(self) -> None:
        await self.target.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.target.aclose()


@define
class Running:
    """An endpoint with its sink, and peers for it."""

    broker: Broker
    sink: RecordingSink
    nursery: trio.Nursery

    def peer(self) -> Peer:
        """One whose bytes wait in memory without bound: it always "reads"."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.broker.serve_connection, theirs)
        return Peer(ours)

    def lockstep_peer(self) -> Peer:
        """One that holds up whoever sends to it until it reads: a socket with full buffers."""
        ours, theirs = trio.testing.lockstep_stream_pair()
        self.nursery.start_soon(self.broker.serve_connection, theirs)
        return Peer(ours)

    def watched_peer(self, error: Exception | None = None) -> tuple[Peer, WatchedStream]:
        """One with a view of what the endpoint sends to it."""
        ours, theirs = trio.testing.memory_stream_pair()
        watched = WatchedStream(theirs.send_stream, error)
        stream = trio.StapledStream(watched, theirs.receive_stream)
        self.nursery.start_soon(self.broker.serve_connection, stream)
        return Peer(ours), watched

    async def client(self, client_id: str, **fields: Any) -> Peer:
        """One that is connected."""
        peer = self.peer()
        assert await peer.connect(client_id, **fields) == ConnAck(0)
        return peer


@asynccontextmanager
async def open_running(
    sink: RecordingSink | None = None, **settings: Any
) -> AsyncIterator[Running]:
    sink = sink or RecordingSink()
    mqtt = MqttSettings(listen=Address("127.0.0.1", 0), **settings)
    async with (
        trio.open_nursery() as nursery,
        open_broker(mqtt, sink=sink, authenticate=check_password) as broker,
    ):
        yield Running(broker, sink, nursery)
