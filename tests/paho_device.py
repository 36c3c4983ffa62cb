"""A device as somebody else wrote it: paho-mqtt in a thread of its own, its messages in Trio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["PahoDevice", "open_paho_device"]


class PahoDevice:
    """An MQTT client.

    Attributes:
        inbox: (topic, payload) of what it was sent, in order.
    """

    def __init__(
        self, client: paho.Client, inbox: trio.MemoryReceiveChannel[tuple[str, bytes]]
    ) -> None:
        self._client = client
        self.inbox = inbox

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 0, as the firmware does."""
        self._client.publish(topic, payload, retain=retain)


@asynccontextmanager
async def open_paho_device(
    port: int,
    *,
    client_id: str = "device",
    topic: str | None = None,
    ca_file: Path | None = None,
    username: str | None = None,
    password: str | None = None,
) -> AsyncIterator[PahoDevice]:
    """Connect to 127.0.0.1 (with TLS if there is a `ca_file`), subscribe to `topic`, then yield."""
    token = trio.lowlevel.current_trio_token()
    ready = trio.Event()
    filled, inbox = trio.open_memory_channel[tuple[str, bytes]](10_000)
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id)

    def on_connect(*_args: object) -> None:
        if topic is None:
            token.run_sync_soon(ready.set)
        else:
            client.subscribe(topic)

    if username is not None:
        client.username_pw_set(username, password)
    if ca_file is not None:
        client.tls_set(str(ca_file))
    client.on_connect = on_connect
    client.on_subscribe = lambda *_args: token.run_sync_soon(ready.set)
    client.on_message = lambda _client, _userdata, message: token.run_sync_soon(
        filled.send_nowait, (message.topic, bytes(message.payload))
    )
    await trio.to_thread.run_sync(client.connect, "127.0.0.1", port)
    client.loop_start()
    try:
        await ready.wait()
        yield PahoDevice(client, inbox)
    finally:
        client.disconnect()
        with trio.CancelScope(shield=True):  # paho's thread ends with the connection
            await trio.to_thread.run_sync(client.loop_stop)
