"""Peers that keep to nothing, and an operator who kills and resizes workers under load.

Each act is small and over in a second or two; what is drawn follows from the seed.
"""

from __future__ import annotations

import json
import socket
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from device_lives import reset
from town import USERNAME, client_id, password

from trio_gateway.core.mqtt_packet import Connect, Publish, encode
from trio_gateway.core.packet import header
from trio_gateway.simulator.mqtt_client import ConnectionLost, MqttClient

if TYPE_CHECKING:
    from town import Town

__all__ = ["RASCALS_FROM", "make_trouble"]

RASCALS_FROM: Final = 0x8000
"""Number of the first of them: they have ids and passwords of their own."""

_HELLO: Final = {"type": "hello", "version": 3, "transport": "udp"}
_KEEPALIVE: Final = 1  # seconds; MQTT 3.1.1, 3.1.2.10: after half as much again it is over
_MALFORMED: Final = (
    b"",
    b"{",
    b"[1, 2]",
    b"\xff\xfe\x00",
    b'{"type": 7}',
    b'{"type": "listen", "session_id": "nobody"}',
    b'{"type": "hello", "audio_params": {"sample_rate": -1}}',
    b'{"type": "hello", "transport": "carrier pigeon"}',
    b'{"type": "mcp", "payload": null}',
    b"[" * 5000,
    json.dumps({"type": "abort", "why": "x" * 20_000}).encode(),
)


async def make_trouble(town: Town, number: int) -> None:
    """Let rascal `number` do one thing after the other."""
    draw = Random(f"{town.seed}/rascal/{number}")  # noqa: S311  to be the same every time
    who = client_id(RASCALS_FROM + number)
    rascal = Rascal(town, who, draw)
    acts = (
        rascal.send_garbage,
        rascal.forge,
        rascal.guess_a_password,
        rascal.say_nonsense,
        rascal.say_too_much,
        rascal.leave_half_open,
        rascal.speak_http,
        rascal.fall_silent,
        rascal.come_twice,
    )
    while True:
        act = draw.choice(acts)
        town.did[act.__name__.replace("_", " ")] += 1
        try:
            with trio.move_on_after(10):
                await act()
        except (ConnectionLost, OSError, trio.BrokenResourceError):
            await trio.lowlevel.checkpoint()  # serves it right
        await trio.sleep(draw.uniform(0.2, 1.0))


class Rascal:
    """One of them. Its methods are what it does."""

    def __init__(self, town: Town, who: str, draw: Random) -> None:
        self._town = town
        self._who = who
        self._draw = draw

    async def send_garbage(self) -> None:
        """Datagrams of any bytes and lengths."""
        await self._send([self._draw.randbytes(self._draw.randrange(200)) for _ in range(50)])

    async def forge(self) -> None:
        """Datagrams with the ssrc of somebody's call, from another port."""
        draw = self._draw
        ssrcs = list(self._town.live.values()) or [draw.getrandbits(32)]
        ssrc, first = draw.choice(ssrcs), draw.choice((1, 50, 0xFFFF_FFF0, draw.getrandbits(31)))
        audio = draw.randbytes(90)
        await self._send(
            [header(ssrc, payload_len=len(audio), sequence=first + i) + audio for i in range(15)]
        )

    async def guess_a_password(self) -> None:
        """For the id of a device that may be in a call."""
        async with await self._town.connect() as stream:
            victim = client_id(self._draw.randrange(16))
            await MqttClient(stream).connect(victim, USERNAME, "wrong")
            self._town.surprises["a wrong password was taken"] += 1

    async def say_nonsense(self) -> None:
        """Messages that are none, with and without a call."""
        async with await self._town.connect() as stream:
            client = await self._introduce(stream)
            if self._draw.random() < 0.5:  # noqa: PLR2004
                await client.publish("device-server", json.dumps(_HELLO).encode())
            for payload in self._draw.sample(_MALFORMED, 5):
                await client.publish("device-server", payload)
            if self._draw.random() < 0.5:  # noqa: PLR2004
                reset(stream)

    async def say_too_much(self) -> None:
        """A packet beyond the limit, of which little is sent."""
        async with await self._town.connect() as stream:
            await self._introduce(stream)
            await stream.send_all(encode(Publish("device-server", b"x" * 100_000))[:2000])
            while await stream.receive_some():
                pass

    async def leave_half_open(self) -> None:
        """A connection that says nothing, or half of its CONNECT."""
        async with await self._town.connect() as stream:
            connect = encode(Connect(self._who, keepalive=60))
            await stream.send_all(connect[: self._draw.randrange(len(connect))])
            await trio.sleep(self._draw.uniform(0.2, 2.0))
            if self._draw.random() < 0.5:  # noqa: PLR2004
                reset(stream)

    async def speak_http(self) -> None:
        """The wrong door."""
        async with await self._town.connect() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            while await stream.receive_some():
                pass

    async def fall_silent(self) -> None:
        """Open a call and vanish without closing anything: the keepalive has to notice."""
        secret = password(self._town.key, self._who).encode()
        connect = Connect(self._who, keepalive=_KEEPALIVE, username=USERNAME, password=secret)
        hello = Publish("device-server", json.dumps(_HELLO).encode())
        async with await self._town.connect() as stream:
            await stream.send_all(encode(connect) + encode(hello))
            with trio.move_on_after(5 * _KEEPALIVE) as patience:
                while await stream.receive_some():
                    pass
            if patience.cancelled_caught:
                self._town.surprises["a silent connection was kept"] += 1

    async def come_twice(self) -> None:
        """With the right password: the newer connection has the id, the call of the older ends."""
        async with await self._town.connect() as first, await self._town.connect() as second:
            client = await self._introduce(first)
            await client.publish("device-server", json.dumps(_HELLO).encode())
            await trio.sleep(self._draw.uniform(0.0, 0.2))
            again = await self._introduce(second)
            await again.publish("device-server", json.dumps(_HELLO).encode())
            await trio.sleep(self._draw.uniform(0.0, 0.5))

    async def _introduce(self, stream: trio.SocketStream) -> MqttClient:
        client = MqttClient(stream)
        await client.connect(self._who, USERNAME, password(self._town.key, self._who))
        return client

    async def _send(self, datagrams: list[bytes]) -> None:
        udp = self._town.udp
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for datagram in datagrams:
                await sock.sendto(datagram, (udp.host, udp.port))
                await trio.sleep(0.005)
