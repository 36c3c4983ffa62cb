"""What can be told from an Opus packet without decoding it (RFC 6716, 3).

    byte 0       config (5 bits: mode, bandwidth, frame length) | s (stereo) | c (2 bits: how many)
    c = 0        one frame: the rest
    c = 1        two frames of equal size
    c = 2        two frames, the size of the first in front
    c = 3        a byte v (1: sizes in front) | p (1: padding) | M (6 bits: number of frames), then
                 the padding's length, then the sizes of all frames but the last

A size is one byte, or two from 252 up: 4 * second + first. It is 1275 at most. A frame of no bytes
is valid: it is how an encoder in DTX sends silence.

The cipher has no MAC, so these rules are the only sign that a packet was encrypted with our key. Of
random bytes every second packet passes them, and one in 40 does with a duration of 60 ms (measured,
40 to 250 bytes).
"""

from __future__ import annotations

from trio_gateway.errors import BadPacket

__all__ = ["SAMPLE_RATE", "carries_fec", "duration_untrusted"]

SAMPLE_RATE = 48000
"""Durations are counted in samples at this rate, in which every Opus frame has a whole number."""

_MAX_FRAME_BYTES = 1275  # R2
_MAX_SAMPLES = SAMPLE_RATE * 120 // 1000  # R5
_TWO_BYTE_SIZE = 252
_FIRST_CELT = 16  # configuration, RFC 6716 table 2: SILK and hybrid lie below
_SILK_FRAME_SAMPLES = 960  # 20 ms
_STEREO = 4


def _frame_samples(config: int) -> int:
    """Return the length of a frame, RFC 6716 table 2."""
    if config < 12:  # noqa: PLR2004  SILK: 10, 20, 40, 60 ms
        return (480, 960, 1920, 2880)[config % 4]
    if config < 16:  # noqa: PLR2004  hybrid: 10, 20 ms
        return (480, 960)[config % 2]
    return (120, 240, 480, 960)[config % 4]  # CELT: 2.5, 5, 10, 20 ms


_SAMPLES_BY_TOC = tuple(_frame_samples(toc >> 3) for toc in range(256))


def duration_untrusted(packet: bytes) -> int:
    """Return the duration of a packet that is well-formed by rules R1 to R7, in samples at 48 kHz.

    Raises:
        BadPacket: `not_opus`.
    """
    if not packet:
        raise BadPacket("not_opus", "empty")  # R1
    toc = packet[0]
    samples = _SAMPLES_BY_TOC[toc]
    code = toc & 3
    body = len(packet) - 1
    if code == 0:
        frames, well_formed = 1, body <= _MAX_FRAME_BYTES
    elif code == 1:
        frames, well_formed = 2, body % 2 == 0 and body // 2 <= _MAX_FRAME_BYTES  # R3
    elif code == 2:  # noqa: PLR2004  the wire's own numbers
        frames, well_formed = 2, _sizes_fit(packet, 1, len(packet), 1)  # R4
    else:
        frames = packet[1] & 0x3F if body else 0
        well_formed = 0 < frames * samples <= _MAX_SAMPLES and _code_3_fits(packet, frames)
    if not well_formed:
        raise BadPacket("not_opus", f"code {code}, {len(packet)} bytes")
    return frames * samples


def _code_3_fits(packet: bytes, frames: int) -> bool:
    start, end = 2, len(packet)
    if packet[1] & 0x40:
        step = 255
        while step == 255:  # noqa: PLR2004  255: 254 bytes of padding, and another length byte
            if start >= end:
                return False
            step = packet[start]
            start += 1
            end -= min(step, 254)
    if packet[1] & 0x80:
        return _sizes_fit(packet, start, end, frames - 1)  # R7
    room = end - start
    return room >= 0 and room % frames == 0 and room // frames <= _MAX_FRAME_BYTES  # R6


def _sizes_fit(packet: bytes, start: int, end: int, sizes: int) -> bool:
    """Whether `sizes` frames with their sizes in front fit, and a last frame gets what is left."""
    total = 0
    for _ in range(sizes):
        if start >= end:
            return False
        size = packet[start]
        start += 1
        if size >= _TWO_BYTE_SIZE:
            if start >= end:
                return False
            size += 4 * packet[start]
            start += 1
        total += size
    return 0 <= end - start - total <= _MAX_FRAME_BYTES


def carries_fec(packet: bytes) -> bool:
    """Whether a well-formed packet holds a copy of the frame before it (in-band FEC, LBRR).

    RFC 6716, 4.2.3: a SILK frame begins, for each channel, with a VAD bit for every 20 ms and one
    LBRR bit. They can be read without the range decoder.
    """
    toc = packet[0]
    if toc >> 3 >= _FIRST_CELT:
        return False
    start = _first_frame(packet)
    if start >= len(packet):  # DTX: no frame at all
        return False
    parts = max(1, _SAMPLES_BY_TOC[toc] // _SILK_FRAME_SAMPLES)
    flags = 1 << (7 - parts)
    if toc & _STEREO:
        flags |= 1 << (6 - 2 * parts)
    return bool(packet[start] & flags)


def _first_frame(packet: bytes) -> int:
    """Return where the first frame begins; the length of the packet if that frame is empty."""
    code = packet[0] & 3
    if code < 2:  # noqa: PLR2004  the wire's own numbers
        return 1
    start = 1
    if code == 3:  # noqa: PLR2004
        start = 2
        if packet[1] & 0x40:
            while packet[start] == 255:  # noqa: PLR2004  see _code_3_fits
                start += 1
            start += 1
        if not packet[1] & 0x80:
            return start
        sizes = (packet[1] & 0x3F) - 1
    else:
        sizes = 1
    first = packet[start] if sizes else 1
    for _ in range(sizes):
        start += 2 if packet[start] >= _TWO_BYTE_SIZE else 1
    return start if first else len(packet)
