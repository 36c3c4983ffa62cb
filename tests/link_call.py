"""One end of an audio link, for tests: a device that sends, and one who forges its packets."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from attrs import define, field

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.link import Address, AudioLink, UplinkFrame
from trio_gateway.core.packet import header
from trio_gateway.errors import BadPacket

__all__ = [
    "AWAY",
    "FORGER",
    "FRAME",
    "HOME",
    "KEY",
    "OPUS_20_MS",
    "OPUS_60_MS",
    "SSRC",
    "Call",
    "datagram",
    "heard",
    "lost",
    "opus",
]

KEY = b"sixteen byte key"
SSRC = 0x5EED1234
FRAME = 0.060
HOME: Address = ("192.0.2.1", 40000)
AWAY: Address = ("198.51.100.2", 50000)
FORGER: Address = ("203.0.113.66", 6666)

OPUS_60_MS = 0x58
OPUS_20_MS = 0x48


def opus(sequence: int, toc: int = OPUS_60_MS) -> bytes:
    return bytes([toc]) + b"audio of frame %d" % sequence


def datagram(
    sequence: int, *, payload: bytes | None = None, ssrc: int = SSRC, timestamp_ms: int = 0
) -> bytes:
    payload = opus(sequence) if payload is None else payload
    head = header(
        ssrc, payload_len=len(payload), timestamp_ms=timestamp_ms, sequence=sequence % (1 << 32)
    )
    return head + AudioCipher(KEY).apply(head, payload)


def heard(*sequences: int) -> list[UplinkFrame]:
    return [UplinkFrame(sequence, opus(sequence)) for sequence in sequences]


def lost(*sequences: int) -> list[UplinkFrame]:
    return [UplinkFrame(sequence, None) for sequence in sequences]


@define
class Call:
    """A link, and a clock that goes on by one frame with every packet from the device."""

    link: AudioLink = field(factory=lambda: AudioLink(KEY, SSRC))
    now: float = 1000.0

    def hear(self, *sequences: int, addr: Address = HOME) -> list[UplinkFrame]:
        """What comes out while the device says these; what is refused is counted."""
        out = []
        for sequence in sequences:
            self.now += FRAME
            with suppress(BadPacket):
                out += self.link.receive_datagram_untrusted(datagram(sequence), addr, self.now)
        return out

    def forge(self, sequence: int, addr: Address = FORGER, **kind: Any) -> list[UplinkFrame]:
        try:
            return self.link.receive_datagram_untrusted(
                datagram(sequence, **kind), addr, self.now + 0.001
            )
        except BadPacket:
            return []

    def balance(self) -> bool:
        counts = self.link.statistics()
        return counts.received == (
            counts.delivered
            + counts.duplicate
            + counts.late
            + counts.unconfirmed
            + counts.waiting
            + counts.held
            + sum(counts.bad.values())
        )
