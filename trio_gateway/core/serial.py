"""Serial numbers of 32 bits (RFC 1982), unrolled into plain integers that never wrap.

Everything behind the wire compares, sorts and subtracts sequences with Python's own operators; only
these few lines know that the wire has 32 bits.
"""

from __future__ import annotations

__all__ = ["unrolled"]

_MODULUS = 1 << 32
_HALF = 1 << 31


def unrolled(serial: int, near: int) -> int:
    """Return the integer nearest to `near` that is `serial` modulo 2**32.

    It is negative for a serial from before the count began: near 1, 0xFFFFFFFF is -1. At a distance
    of exactly 2**31, which RFC 1982 leaves undefined, it lies below `near`.

    Args:
        serial: 0 to 2**32 - 1.
        near: The highest unrolled number so far.
    """
    return near - _HALF + ((serial - near + _HALF) % _MODULUS)
