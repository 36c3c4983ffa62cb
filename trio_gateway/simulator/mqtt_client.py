"""A device's MQTT connection: 3.1.1, QoS 0, over any Trio stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    Parser,
    PingReq,
    Publish,
    SubAck,
    Subscribe,
    encode,
)
from trio_gateway.errors import BadPacket, GatewayError

if TYPE_CHECKING:
    from trio.abc import Stream

__all__ = ["ConnectionLost", "MqttClient"]

KEEPALIVE: Final = 240  # seconds; what the firmware says when nobody told it otherwise
_MAX_PACKET_BYTES: Final = 256 * 1024  # a guess: far above what any gateway sends a device
_REFUSALS: Final = {  # MQTT 3.1.1, table 3.1
    1: "unacceptable protocol version",
    2: "client id rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
_P = TypeVar("_P", bound=Packet)


class ConnectionLost(GatewayError):  # noqa: N818  like BrokerLost
    """The gateway refused or closed the connection, or does not speak MQTT. The text says which."""


class MqttClient:
    """One connection. One task reads it, any may send."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parser = Parser(_MAX_PACKET_BYTES)
        self._sending = trio.Lock()
        self._sent_at = trio.current_time()

    async def connect(self, client_id: str, username: str, password: str | None) -> None:
        """Introduce the device and wait until it is let in.

        Raises:
            ConnectionLost: It is not.
        """
        secret = None if password is None else password.encode()
        await self._send(
            Connect(client_id, keepalive=KEEPALIVE, username=username, password=secret)
        )
        answer = await self._expect(ConnAck)
        if answer.code:
            raise ConnectionLost(f"connection refused: {_REFUSALS[answer.code]} ({answer.code})")

    async def subscribe(self, topic: str) -> None:
        """Subscribe and wait until it is granted. Not while another task reads.

        Raises:
            ConnectionLost: It is not granted.
        """
        await self._send(Subscribe(1, ((topic, 0),)))
        answer = await self._expect(SubAck)
        if answer.codes != (0,):
            raise ConnectionLost(f"subscription to {topic} refused")

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send one message.

        Raises:
            ConnectionLost: The connection has ended.
        """
        await self._send(Publish(topic, payload))

    async def receive(self) -> Publish:
        """Wait for the next message, and keep the connection alive meanwhile.

        Raises:
            ConnectionLost: The connection has ended.
        """
        while not isinstance(packet := await self._next(), Publish):
            pass
        return packet

    async def disconnect(self) -> None:
        """Take leave.

        Raises:
            ConnectionLost: The connection has ended already.
        """
        await self._send(Disconnect())

    async def _expect(self, kind: type[_P]) -> _P:
        packet = await self._next()
        if not isinstance(packet, kind):
            raise ConnectionLost(f"{type(packet).__name__} where {kind.__name__} was due")
        return packet

    async def _next(self) -> Packet:
        try:
            while (packet := self._parser.next_packet_untrusted()) is None:
                data: bytes | bytearray | None = None
                with trio.move_on_at(self._sent_at + KEEPALIVE / 2):
                    data = await self._stream.receive_some()
                if data is None:
                    await self._send(PingReq())
                elif data:
                    self._parser.receive_bytes(bytes(data))
                else:
                    raise ConnectionLost("connection closed by the gateway")
        except BadPacket as error:
            raise ConnectionLost(f"the gateway does not speak MQTT: {error}") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionLost("connection lost") from error
        return packet

    async def _send(self, packet: Packet) -> None:
        async with self._sending:
            self._sent_at = trio.current_time()
            try:
                await self._stream.send_all(encode(packet))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost("connection lost") from error
