"""A device made of what others wrote: paho-mqtt, sockets, AES from cryptography, the byte table.

Nothing of trio_gateway is imported here, on purpose: what both ends get wrong alike would pass.

    byte 0 type 1 | 1 flags | 2-3 payload length | 4-7 ssrc | 8-11 timestamp | 12-15 sequence
    then the ciphertext; the header is the initial counter block
"""

from __future__ import annotations

import json
import math
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import trio
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["WireDevice", "open_device"]

HEADER = struct.Struct(">BBHIII")


def crypt(key: bytes, header: bytes, data: bytes) -> bytes:
    """AES-128-CTR, the header as the initial counter block; the same both ways."""
    context = Cipher(AES(key), CTR(header)).encryptor()
    return context.update(data) + context.finalize()


class WireDevice:
    """One device: speaks JSON over MQTT without ever subscribing, and Opus over UDP."""

    def __init__(
        self, client: paho.Client, inbox: trio.MemoryReceiveChannel[Any], topic: str
    ) -> None:
        self.client = client
        self.topic = topic
        self.inbox = inbox
        self.heard: list[tuple[int, int, bytes]] = []  # (sequence, timestamp, Opus packet)
        self.connected = trio.Event()  # and subscribed, where it has to
        self.first_heard = trio.Event()
        self.passed: list[dict[str, Any]] = []
        self.session_id = ""
        self.sequence = 0
        self.key = b""
        self.nonce = b""
        self.gateway: tuple[str, int] = ("", 0)
        self.udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def note_connected(self) -> None:
        """It can be reached now."""
        self.connected.set()

    def publish(self, message: object) -> None:
        """Publish JSON, or bytes as they are."""
        payload = message if isinstance(message, bytes) else json.dumps(message)
        self.client.publish(self.topic, payload)

    async def wait_for(self, kind: str, **fields: object) -> dict[str, Any]:
        """The next message of this type (with these fields); what comes before it is `passed`."""
        while True:
            message: dict[str, Any] = await self.inbox.receive()
            if message["type"] == kind and fields.items() <= message.items():
                return message
            self.passed.append(message)

    async def hello(self, **extra: object) -> dict[str, Any]:
        """Open a session, as firmware does."""
        params = {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60}
        message = {"type": "hello", "version": 3, "transport": "udp", "audio_params": params}
        self.publish(message | extra)
        answer = await self.wait_for("hello")
        udp = answer["udp"]
        self.session_id, self.sequence = answer["session_id"], 0
        self.key, self.nonce = bytes.fromhex(udp["key"]), bytes.fromhex(udp["nonce"])
        self.gateway = (udp["server"], udp["port"])
        return answer

    def listen(self, state: str, mode: str = "manual") -> None:
        """Say `listen start` or `listen stop`."""
        self.publish(
            {"type": "listen", "session_id": self.session_id, "state": state, "mode": mode}
        )

    def seal(self, packet: bytes) -> bytes:
        """The next datagram: the nonce with length and sequence written over it."""
        self.sequence += 1
        header = bytearray(self.nonce)
        struct.pack_into(">H", header, 2, len(packet))
        struct.pack_into(">I", header, 12, self.sequence)
        return bytes(header) + crypt(self.key, bytes(header), packet)

    async def speak(self, packets: Sequence[bytes], frame_s: float = 0.0) -> None:
        """Send Opus packets, `frame_s` seconds apart."""
        started = trio.current_time()
        for index, packet in enumerate(packets):
            await trio.sleep_until(started + index * frame_s)
            await self.udp.sendto(self.seal(packet), self.gateway)

    async def hear(self) -> None:
        """Collect what the gateway sends, checked as strictly as firmware 2.4 does."""
        last = 0
        while True:
            data = await self.udp.recv(2048)
            kind, _, length, ssrc, timestamp, sequence = HEADER.unpack_from(data)
            assert kind == 1
            assert len(data) == 16 + length
            assert ssrc == struct.unpack_from(">I", self.nonce, 4)[0]
            last = 0 if sequence == 1 else last
            assert sequence > last
            last = sequence
            self.heard.append((sequence, timestamp, crypt(self.key, data[:16], data[16:])))
            self.first_heard.set()


@asynccontextmanager
async def open_device(
    mqtt: tuple[str, int],
    client_id: str,
    *,
    username: str | None = None,
    password: str | None = None,
    topic: str = "device-server",
    subscribe: str | None = None,
) -> AsyncIterator[WireDevice]:
    """Connect with paho's own network thread; its callbacks hand over to Trio.

    Args:
        mqtt: Host and port.
        client_id: The device's.
        username: As the broker wants it.
        password: As the broker wants it.
        topic: Where it publishes.
        subscribe: For brokers that do not subscribe devices by themselves.
    """
    token = trio.lowlevel.current_trio_token()
    send, receive = trio.open_memory_channel[Any](math.inf)
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    device = WireDevice(client, receive, topic)

    def connected(*_: object) -> None:
        token.run_sync_soon(device.note_connected)

    def connected_first(*_: object) -> None:
        client.subscribe(str(subscribe))

    client.on_connect = connected if subscribe is None else connected_first
    client.on_subscribe = connected
    client.on_message = lambda _client, _data, message: token.run_sync_soon(
        send.send_nowait, json.loads(message.payload)
    )
    if username is not None:
        client.username_pw_set(username, password)
    await trio.to_thread.run_sync(client.connect, *mqtt)
    client.loop_start()
    try:
        with device.udp:
            await device.udp.bind(("127.0.0.1", 0))
            await device.connected.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(device.hear)
                yield device
                nursery.cancel_scope.cancel()
    finally:
        client.disconnect()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await trio.to_thread.run_sync(client.loop_stop)
