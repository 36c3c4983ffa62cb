"""What the bodies of MQTT packets are made of (MQTT 3.1.1, sections 1.5 and 2.2.3).

An integer is two bytes, big-endian. Binary data is its length as an integer, then that many bytes.
Text is binary data in UTF-8, without NUL and without surrogates.
"""

from __future__ import annotations

import struct

from trio_gateway.errors import BadPacket

__all__ = ["Fields", "pack_binary", "pack_length", "pack_text"]

_U16 = struct.Struct(">H")
_MAX_BINARY = 0xFFFF
_MAX_REMAINING = 268_435_455  # four bytes of 7 bits each (2.2.3)


class Fields:
    """Reads one packet's body from front to back.

    Every method raises BadPacket: "short" if the body ends too early, else as it says.
    """

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._body):
            raise BadPacket("short")
        return self._body[start : self._at]

    def byte(self) -> int:
        """Return one byte."""
        return self.take(1)[0]

    def integer(self) -> int:
        """Return two bytes as an unsigned integer."""
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        """Return an integer that names a packet; 0 is "packet_id" (MQTT-2.3.1-1)."""
        packet_id = self.integer()
        if packet_id == 0:
            raise BadPacket("packet_id", "0")
        return packet_id

    def binary(self) -> bytes:
        """Return length-prefixed bytes."""
        return self.take(self.integer())

    def text(self) -> str:
        """Return length-prefixed text; "utf8" if it is none (MQTT-1.5.3-1, MQTT-1.5.3-2)."""
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadPacket("utf8", f"at byte {error.start}") from None
        if "\0" in text:
            raise BadPacket("utf8", "NUL")
        return text

    def rest(self) -> bytes:
        """Return all that is left, perhaps nothing."""
        return self.take(len(self._body) - self._at)

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._at == len(self._body)

    def end(self) -> None:
        """Raise "trailing" unless everything has been read."""
        if not self.at_end:
            raise BadPacket("trailing", f"{len(self._body) - self._at} bytes")


def pack_binary(data: bytes) -> bytes:
    """Return `data` after its length. ValueError if it has more than 65,535 bytes."""
    if len(data) > _MAX_BINARY:
        raise ValueError(f"a field of an MQTT packet cannot hold {len(data)} bytes")
    return _U16.pack(len(data)) + data


def pack_text(text: str) -> bytes:
    """Return `text` after its length. ValueError if MQTT cannot carry it."""
    if "\0" in text:
        raise ValueError("NUL in an MQTT string")
    return pack_binary(text.encode("utf-8"))


def pack_length(length: int) -> bytes:
    """Return a remaining length in the 1 to 4 bytes it takes. ValueError if they do not do."""
    if length > _MAX_REMAINING:
        raise ValueError(f"an MQTT packet cannot hold {length} bytes")
    packed = bytearray()
    while length >= 0x80:  # noqa: PLR2004  the continuation bit
        packed.append(length & 0x7F | 0x80)
        length >>= 7
    packed.append(length)
    return bytes(packed)
