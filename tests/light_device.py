"""A device without audio, of which a test can have hundreds: one TCP connection and no thread."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from trio_gateway.simulator.mqtt_client import ConnectionLost, MqttClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["HELLO", "LightDevice", "device_name", "open_light_device"]

HELLO: dict[str, Any] = {
    "type": "hello",
    "version": 3,
    "transport": "udp",
    "audio_params": {
        "format": "opus",
        "sample_rate": 16000,
        "channels": 1,
        "frame_duration": 60,
    },
}


def device_name(number: int) -> str:
    return f"GID_test@@@aa_bb_cc_00_{number >> 8:02x}_{number & 255:02x}@@@uuid-{number}"


@define
class LightDevice:
    """One device that is connected."""

    client: MqttClient
    passed: list[dict[str, Any]] = field(factory=list)

    async def say(self, message: dict[str, Any]) -> None:
        await self.client.publish("device-server", json.dumps(message).encode())

    async def hello(self) -> dict[str, Any]:
        """The answer, or the goodbye of a refusal, which names no session."""
        await self.say(HELLO)
        while True:
            message = await self.receive()
            if message["type"] == "hello":
                return message
            if message["type"] == "goodbye" and not message.get("session_id"):
                return message

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self.client.receive()).payload)
        self.passed.append(message)
        return message

    async def listen_until_closed(self) -> None:
        """Take what comes until the gateway hangs up."""
        try:
            while True:
                await self.receive()
        except ConnectionLost:
            pass

    @property
    def goodbyes(self) -> list[str]:
        return [m.get("session_id", "") for m in self.passed if m["type"] == "goodbye"]


@asynccontextmanager
async def open_light_device(
    mqtt: tuple[str, int], client_id: str, *, address: str | None = None
) -> AsyncIterator[LightDevice]:
    """Connect; close without a word.

    Args:
        mqtt: Host and port.
        client_id: The device's.
        address: To come from; on Linux all of 127.0.0.0/8 is there for it.
    """
    stream = await trio.open_tcp_stream(*mqtt, local_address=address)
    try:
        client = MqttClient(stream)
        await client.connect(client_id, "user", None)
        yield LightDevice(client)
    finally:
        await trio.aclose_forcefully(stream)
