"""The audio datagram's header.

    byte 0       type          1
    byte 1       flags         0 from devices, bit 7 set by us (below)
    bytes 2-3    payload_len   bytes of ciphertext
    bytes 4-7    ssrc          names the session
    bytes 8-11   timestamp     milliseconds
    bytes 12-15  sequence      1, 2, 3 ... in each direction
    bytes 16-    ciphertext    AES-128-CTR of one Opus packet

Big-endian. The 16 bytes of the header, as they are on the wire, are also the cipher's initial
counter block. Both directions have one key, so bit 7 of `flags` keeps their counter blocks apart;
the firmware looks at byte 0 only and decrypts with the header that it received.
"""

from __future__ import annotations

import struct

from attrs import field, frozen

from trio_gateway.errors import BadPacket

__all__ = [
    "FLAG_DOWNLINK",
    "HEADER_BYTES",
    "TYPE_AUDIO",
    "Packet",
    "header",
    "parse_datagram_untrusted",
    "ssrc_untrusted",
]

TYPE_AUDIO = 1
FLAG_DOWNLINK = 0x80

_HEADER = struct.Struct(">BBHIII")
_TYPE_AND_SSRC = struct.Struct(">B3xI")
HEADER_BYTES = _HEADER.size


@frozen
class Packet:
    """A datagram, taken apart; nothing in it is authenticated.

    Attributes:
        flags: As received. Any value is accepted: it is part of `iv` and of nothing else.
        ssrc: The session it claims to belong to.
        timestamp_ms: 0, or the timestamp of the downlink frame that the device was playing (devices
            built for echo cancellation by the server).
        sequence: The sender's count of packets, modulo 2**32.
        iv: The header, 16 bytes.
        payload: Ciphertext.
    """

    flags: int
    ssrc: int
    timestamp_ms: int
    sequence: int
    iv: bytes = field(repr=False)
    payload: bytes = field(repr=False)


def parse_datagram_untrusted(data: bytes) -> Packet:
    """Take a datagram apart.

    The length must be exactly 16 + payload_len. Gateways in use accept bytes behind the payload,
    but no firmware sends any, its own receiver refuses them since 2.4.0, and without a MAC every
    check counts.

    Raises:
        BadPacket: `short`, `bad_type` or `bad_length`.
    """
    if len(data) < HEADER_BYTES:
        raise BadPacket("short")
    kind, flags, payload_len, ssrc, timestamp_ms, sequence = _HEADER.unpack_from(data)
    if kind != TYPE_AUDIO:
        raise BadPacket("bad_type")
    if len(data) != HEADER_BYTES + payload_len:
        raise BadPacket("bad_length")
    return Packet(flags, ssrc, timestamp_ms, sequence, data[:HEADER_BYTES], data[HEADER_BYTES:])


def ssrc_untrusted(data: bytes) -> int:
    """Return the ssrc that a datagram claims, to find its session before any more is spent on it.

    Raises:
        BadPacket: `short` or `bad_type`.
    """
    if len(data) < HEADER_BYTES:
        raise BadPacket("short")
    kind, ssrc = _TYPE_AND_SSRC.unpack_from(data)
    if kind != TYPE_AUDIO:
        raise BadPacket("bad_type")
    return int(ssrc)


def header(
    ssrc: int, *, flags: int = 0, payload_len: int = 0, timestamp_ms: int = 0, sequence: int = 0
) -> bytes:
    """Build a header; of the ssrc alone, the template that a hello answer calls `nonce`."""
    return _HEADER.pack(TYPE_AUDIO, flags, payload_len, ssrc, timestamp_ms, sequence)
