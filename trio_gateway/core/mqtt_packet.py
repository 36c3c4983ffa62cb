"""MQTT 3.1.1 on the wire, both directions, without I/O (OASIS standard, 29 October 2014).

    byte  0      type (high 4 bits), flags (low 4 bits)
    bytes 1-4    remaining length: 7 bits a byte, low bits first; the high bit says one more follows
    bytes ...    body, as long as the remaining length says (`mqtt_types.py`)

`encode` makes the bytes of a packet, `Parser` finds packets in a stream. QoS 2 is not spoken: its
packets are refused with the reason "qos_2".
"""

from __future__ import annotations

import struct

from trio_gateway.core.mqtt_fields import Fields, pack_length
from trio_gateway.core.mqtt_types import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
)
from trio_gateway.errors import BadPacket

__all__ = [
    "ConnAck",
    "Connect",
    "Disconnect",
    "Packet",
    "Parser",
    "PingReq",
    "PingResp",
    "PubAck",
    "Publish",
    "SubAck",
    "Subscribe",
    "UnsubAck",
    "Unsubscribe",
    "Will",
    "encode",
]

_MAX_LENGTH_BYTES = 4  # 2.2.3
_BY_FIRST_BYTE = {
    kind.FIRST_BYTE: kind
    for kind in (
        *(Connect, ConnAck, PubAck, Subscribe, SubAck, Unsubscribe, UnsubAck),
        *(PingReq, PingResp, Disconnect),
    )
}
_PUBLISH_FIRST_BYTES = frozenset({0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B})  # no dup at QoS 0
_QOS_2_FIRST_BYTES = frozenset({0x34, 0x35, 0x3C, 0x3D, 0x50, 0x62, 0x70})


def _check_first_byte_untrusted(first: int) -> None:
    """Raise BadPacket unless a packet can begin with this byte: "qos_2" or "first_byte".

    Tells most strangers (HTTP, TLS, a port scan) at their first byte: all flag bits are prescribed.
    """
    if first in _BY_FIRST_BYTE or first in _PUBLISH_FIRST_BYTES:
        return
    raise BadPacket("qos_2" if first in _QOS_2_FIRST_BYTES else "first_byte", f"{first:#04x}")


def _decode_untrusted(first: int, body: bytes) -> Packet:
    """Read one packet from its first byte and its body.

    Raises:
        BadPacket: With one of the reasons that the classes and `Fields` name.
    """
    _check_first_byte_untrusted(first)
    fields = Fields(body)
    if first in _PUBLISH_FIRST_BYTES:
        return Publish.from_fields_untrusted(fields, first & 0x0F)
    packet: Packet = _BY_FIRST_BYTE[first].from_fields_untrusted(fields)
    fields.end()
    return packet


def encode(packet: Packet) -> bytes:
    """Return the packet's bytes.

    Raises:
        ValueError: A field does not fit the format (too long, NUL, no packet id at QoS 1).
    """
    first = packet.FIRST_BYTE | (packet.flags if isinstance(packet, Publish) else 0)
    try:
        body = packet.body()
    except struct.error as error:
        raise ValueError(f"{packet!r}: {error}") from error
    return bytes((first,)) + pack_length(len(body)) + body


class Parser:
    """Finds the packets in one direction of one connection, for either side.

    Rule 1: what is held is at most one packet and what the last call brought.
    Rule 2: the time is linear in the bytes, however they are cut: a peer that drips single bytes
            or announces a huge packet costs what it sends.
    Rule 3: packets before a broken one are still given out; after it, there is only the error.

    Args:
        max_packet_bytes: Packets longer than this, header included, are "oversize". May be changed
            between packets.
    """

    def __init__(self, max_packet_bytes: int) -> None:
        self.max_packet_bytes = max_packet_bytes
        self._buffer = bytearray()
        self._failure: BadPacket | None = None

    @property
    def held_bytes(self) -> int:
        """How much has come that belongs to no packet given out."""
        return len(self._buffer)

    def receive_bytes(self, data: bytes | bytearray) -> None:
        """Take in what the peer sent. To be followed by `next_packet_untrusted` until None."""
        if self._failure is None:
            self._buffer += data

    def next_packet_untrusted(self) -> Packet | None:
        """Return the next whole packet, or None if there is none yet.

        Raises:
            BadPacket: The stream is broken, now and for good; the reasons are those of
                `mqtt_types`, "first_byte", "qos_2", "length" and "oversize".
        """
        if self._failure is not None:
            raise BadPacket(self._failure.reason)
        try:
            return self._next_untrusted()
        except BadPacket as error:
            self._failure = error
            self._buffer.clear()
            raise

    def feed_untrusted(self, data: bytes | bytearray) -> list[Packet]:
        """Take in `data` and return all packets that are whole now.

        Raises:
            BadPacket: As above; the packets before it in `data` are lost. Whoever wants them, uses
                the two methods.
        """
        self.receive_bytes(data)
        packets = []
        while (packet := self.next_packet_untrusted()) is not None:
            packets.append(packet)
        return packets

    def _next_untrusted(self) -> Packet | None:
        buffer = self._buffer
        if not buffer:
            return None
        _check_first_byte_untrusted(buffer[0])
        length = 0
        for index, byte in enumerate(buffer[1 : 1 + _MAX_LENGTH_BYTES]):
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004  the continuation bit
                start = index + 2
                break
        else:
            if len(buffer) > _MAX_LENGTH_BYTES:
                raise BadPacket("length", "more than four bytes")
            return None
        end = start + length
        if end > self.max_packet_bytes:
            raise BadPacket("oversize", f"{end} bytes")
        if len(buffer) < end:
            return None
        packet = _decode_untrusted(buffer[0], bytes(buffer[start:end]))
        del buffer[:end]  # moves the start of the bytearray, not its contents
        return packet
