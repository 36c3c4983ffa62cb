"""Invariant: of all integers with the same low 32 bits, `unrolled` returns the nearest one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.serial import unrolled

TOP = 1 << 32
NEAR = st.integers(-TOP, 1 << 40) | st.integers(-5, 5) | st.integers(TOP - 5, TOP + 5)


def nearest_of_the_neighbourhood(serial: int, near: int) -> int:
    turn = near // TOP
    candidates = [serial + k * TOP for k in range(turn - 2, turn + 3)]
    return min(candidates, key=lambda each: (abs(each - near), each))


@given(serial=st.integers(0, TOP - 1), near=NEAR)
def test_it_is_the_nearest(serial: int, near: int) -> None:
    assert unrolled(serial, near) == nearest_of_the_neighbourhood(serial, near)


@given(near=NEAR, step=st.integers(-(TOP // 2), TOP // 2 - 1))
def test_a_step_of_less_than_half_survives_the_wire(near: int, step: int) -> None:
    assert unrolled((near + step) % TOP, near) == near + step
