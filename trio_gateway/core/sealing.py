"""Makes the downlink's datagrams, and sees to it that no keystream is used twice.

Block b of a packet is encrypted with AES(key, header + b), the header taken as one number of 128
bits whose low 64 are timestamp and sequence. Packets share keystream when two such sums are equal:

- down against down: timestamps strictly increase, and a sum never carries out of the sequence's 32
  bits, because sequences end early enough. So the upper 96 bits differ.
- down against up: the top bit of `flags` is 1 down and 0 up. A carry cannot set it: coming out of
  the sequence, the timestamp, the ssrc and the length, all full, it would turn flags 0 into 1.

Up against up is the firmware's doing: its timestamps are 0, so neighbours of equal length overlap.
"""

from __future__ import annotations

import math

from attrs import define, field

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.packet import FLAG_DOWNLINK, header
from trio_gateway.errors import KeystreamExhausted

__all__ = ["Sealer"]

MAX_PAYLOAD_BYTES = (1 << 16) - 1
MAX_TIMESTAMP_MS = (1 << 32) - 1
"""49.7 days."""
MAX_SEQUENCE = (1 << 32) - (MAX_PAYLOAD_BYTES // 16 + 1)
"""The longest packet has 4096 blocks; from here up, the last of them would carry."""


@define
class Sealer:
    """The downlink of one session.

    Attributes:
        key: AES-128 key, 16 bytes, used for no other session.
        ssrc: The session's number on the wire.
        sequence: Of the last datagram, which is how many were made.
        timestamp_ms: Of the last datagram: milliseconds since the first, and one, pushed up where
            two would be equal.
    """

    key: bytes = field(repr=False)
    ssrc: int
    sequence: int = field(default=0, init=False)
    timestamp_ms: int = field(default=0, init=False)
    _first_at: float = field(default=math.nan, init=False)
    _cipher: AudioCipher = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._cipher = AudioCipher(self.key)

    def seal(self, opus: bytes, now: float) -> bytes:
        """Encrypt one Opus packet and return the datagram.

        Args:
            opus: 1 to 65535 bytes.
            now: Seconds of any clock; it may stand still or go back.

        Raises:
            KeystreamExhausted: The session has to be renewed (by a new hello).
        """
        if not 0 < len(opus) <= MAX_PAYLOAD_BYTES:
            raise ValueError(f"a datagram cannot carry {len(opus)} bytes of audio")
        if not self.sequence:
            self._first_at = now
        timestamp_ms = max(self.timestamp_ms, int((now - self._first_at) * 1000)) + 1
        if self.sequence == MAX_SEQUENCE or timestamp_ms > MAX_TIMESTAMP_MS:
            raise KeystreamExhausted(f"ssrc {self.ssrc:08x} after {self.sequence} datagrams")
        self.sequence += 1
        self.timestamp_ms = timestamp_ms
        head = header(
            self.ssrc,
            flags=FLAG_DOWNLINK,
            payload_len=len(opus),
            timestamp_ms=timestamp_ms,
            sequence=self.sequence,
        )
        return head + self._cipher.apply(head, opus)
