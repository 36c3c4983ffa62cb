"""A tiny gateway for one device, over memory: it sends back the Opus packets that it got.

What it does wrong on request, a real one might.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import trio
from attrs import define, field

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.control import AudioParams, alert, encode, goodbye, hello_answer, tts
from trio_gateway.core.mqtt_packet import ConnAck, Connect, Parser, PingReq, Publish
from trio_gateway.core.mqtt_packet import encode as encode_packet
from trio_gateway.core.packet import header, parse_datagram_untrusted
from trio_gateway.core.sealing import Sealer
from trio_gateway.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FRAME", "FakeGateway", "Surroundings"]

FRAME = 0.06
KEY = bytes(16)
SSRC = 7

Fault = Literal["", "silent", "refuse", "deaf", "hang_up", "dismiss", "shuffle", "endless"]


@define(eq=False)
class FakeGateway:
    """Attributes: connect = the device's CONNECT, said = its messages, heard = its datagrams."""

    fault: Fault = ""
    delay: float = 0.2
    """Seconds from `listen stop` to the first frame of the reply."""
    topics: list[str] = field(factory=list)
    said: list[dict[str, Any]] = field(factory=list)
    heard: list[tuple[float, bytes]] = field(factory=list)
    connect: Connect | None = None
    deliver: Callable[[bytes], None] = lambda _: None
    _sealer: Sealer = field(factory=lambda: Sealer(KEY, SSRC))
    _cipher: AudioCipher = field(factory=lambda: AudioCipher(KEY))
    _opus: list[bytes] = field(factory=list)
    _stream: Any = None
    _open: bool = True

    async def serve(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        parser = Parser(65536)
        while self._open and (data := await stream.receive_some()):
            for packet in parser.feed_untrusted(bytes(data)):
                if isinstance(packet, Connect):
                    self.connect = packet
                    await stream.send_all(encode_packet(ConnAck(0)))
                elif isinstance(packet, Publish):
                    self.topics.append(packet.topic)
                    message = json.loads(packet.payload)
                    self.said.append(message)
                    await self._answer(message)
                else:
                    assert not isinstance(packet, PingReq), "no run is that long"

    def receive_datagram(self, data: bytes) -> None:
        self.heard.append((trio.current_time(), data))
        packet = parse_datagram_untrusted(data)
        self._opus.append(self._cipher.apply(packet.iv, packet.payload))

    async def _answer(self, message: dict[str, Any]) -> None:
        if message["type"] == "hello":
            await self._hello()
        elif message["type"] == "listen" and message["state"] == "start":
            self._opus.clear()
        elif message["type"] == "listen":
            await self._reply()

    async def _hello(self) -> None:
        if self.fault == "refuse":
            await self._send(alert("busy", "no room", "sad"))
            await self._send(goodbye(""))
        elif self.fault != "silent":
            audio = AudioParams(rate=16000)
            nonce = header(SSRC)
            await self._send(hello_answer("s", audio, "127.0.0.1", 9, key=KEY, nonce=nonce))

    async def _reply(self) -> None:
        if self.fault == "deaf":
            return
        if self.fault == "hang_up":
            self._open = False
            await self._stream.aclose()
            return
        if self.fault == "dismiss":
            await self._send(goodbye("s"))
            return
        await self._send(tts("s", "start"))
        start = trio.current_time() + self.delay
        opus = self._opus[::-1] if self.fault == "shuffle" else self._opus
        for index, packet in enumerate(opus):
            await trio.sleep_until(start + index * FRAME)
            self.deliver(self._sealer.seal(packet, trio.current_time()))
        await trio.sleep(FRAME)
        if self.fault != "endless":
            await self._send(tts("s", "stop"))

    async def _send(self, message: dict[str, Any]) -> None:
        await self._stream.send_all(encode_packet(Publish("devices/p2p/x", encode(message))))


@define(eq=False)
class Surroundings:
    """Time and datagrams for one device, all in memory."""

    gateway: FakeGateway
    timers: Timers = field(factory=Timers)
    closed: bool = False

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        self.timers.call_at(deadline, callback)

    async def open_line(
        self, server: tuple[str, int], receive: Callable[[bytes], None]
    ) -> Surroundings:
        assert server == ("127.0.0.1", 9)
        self.gateway.deliver = receive
        return self

    async def next_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    def send(self, datagram: bytes) -> None:
        self.gateway.receive_datagram(datagram)

    def close(self) -> None:
        self.closed = True
