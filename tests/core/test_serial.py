from __future__ import annotations

import pytest

from trio_gateway.core.serial import unrolled

TOP = 1 << 32


@pytest.mark.parametrize(
    ("serial", "near", "expected"),
    [
        (1, 0, 1),
        (5, 5, 5),
        (4, 5, 4),
        (TOP - 1, 0, -1),  # not four billion ahead: one before the beginning
        (TOP - 1, TOP - 2, TOP - 1),
        (0, TOP - 1, TOP),  # the wrap
        (TOP - 1, TOP, TOP - 1),
        (3, 7 * TOP + 1, 7 * TOP + 3),
        (TOP // 2 - 1, 0, TOP // 2 - 1),
        (TOP // 2, 0, -TOP // 2),  # undefined in RFC 1982; here it is the past
    ],
)
def test_nearest(serial: int, near: int, expected: int) -> None:
    assert unrolled(serial, near) == expected
