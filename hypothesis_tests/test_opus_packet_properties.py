"""Invariant: a packet is well-formed, lasts as long and carries FEC as libopus' own parser says."""

from __future__ import annotations

import ctypes

from hypothesis import given
from hypothesis import strategies as st
from opuslib_next.api import libopus

from trio_gateway.core.opus_packet import SAMPLE_RATE, carries_fec, duration_untrusted
from trio_gateway.errors import BadPacket


def sizes_by_libopus(packet: bytes) -> list[int] | None:
    """Return the bytes of each frame, or None if opus_packet_parse refuses."""
    toc, offset = ctypes.c_ubyte(), ctypes.c_int()
    frames, sizes = (ctypes.c_void_p * 48)(), (ctypes.c_int16 * 48)()
    count = libopus.opus_packet_parse(
        packet,
        ctypes.c_int32(len(packet)),
        ctypes.byref(toc),
        frames,
        sizes,
        ctypes.byref(offset),
    )
    return None if count < 0 else list(sizes[:count])


def duration_by_libopus(packet: bytes) -> int | None:
    """Return samples at 48 kHz, or None if opus_packet_parse refuses."""
    sizes = sizes_by_libopus(packet)
    if sizes is None:
        return None
    return len(sizes) * int(libopus.opus_packet_get_samples_per_frame(packet, SAMPLE_RATE))


def duration_by_us(packet: bytes) -> int | None:
    try:
        return duration_untrusted(packet)
    except BadPacket:
        return None


# The second byte and the sizes decide most; lengths about the limits decide the rest.
SHORT = st.binary(max_size=24)
LONG = st.tuples(
    st.binary(max_size=6), st.sampled_from([1270, 2540, 3000]), st.integers(0, 12)
).map(lambda parts: parts[0] + bytes(parts[1] + parts[2]))
CODE_3 = st.tuples(
    st.integers(0, 31),
    st.integers(0, 255),
    st.lists(st.integers(0, 3) | st.integers(250, 255), max_size=8),
    st.integers(0, 600),
).map(lambda p: bytes([p[0] << 3 | 3, p[1], *p[2]]) + bytes(p[3]))


@given(packet=SHORT | LONG | CODE_3)
def test_the_same_verdict_and_duration(packet: bytes) -> None:
    assert duration_by_us(packet) == duration_by_libopus(packet)


@given(packet=SHORT | LONG | CODE_3)
def test_the_same_opinion_about_fec(packet: bytes) -> None:
    sizes = sizes_by_libopus(packet)
    if not sizes:
        return
    if not sizes[0]:  # libopus would look at a byte that is not there
        assert not carries_fec(packet)
    else:
        by_libopus = libopus.opus_packet_has_lbrr(packet, ctypes.c_int32(len(packet)))
        assert carries_fec(packet) == bool(by_libopus)
