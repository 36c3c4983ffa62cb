"""Invariant: the window answers as a set of everything that was ever marked would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.replay import ReplayWindow, Seen

# Small steps, steps about the size of the window, and jumps.
STEPS = st.integers(-12, 12) | st.integers(-100, 100) | st.integers(-(10**9), 10**9)


class EverythingMarked:
    """The model: remembers all."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.highest = 0
        self.marked: set[int] = set()

    def look(self, sequence: int) -> Seen:
        """As `ReplayWindow.look`."""
        if sequence <= self.highest - self.size:
            return Seen.TOO_OLD
        return Seen.DUPLICATE if sequence <= 0 or sequence in self.marked else Seen.NEW

    def mark(self, sequence: int) -> None:
        """As `ReplayWindow.mark`."""
        self.marked.add(sequence)
        self.highest = max(self.highest, sequence)


@given(
    size=st.sampled_from([1, 2, 8, 64]),
    steps=st.lists(st.tuples(STEPS, st.booleans()), max_size=200),
)
def test_the_window_equals_the_set(size: int, steps: list[tuple[int, bool]]) -> None:
    window, model = ReplayWindow(size), EverythingMarked(size)
    for step, mark in steps:
        sequence = window.highest + step
        assert window.look(sequence) is model.look(sequence)
        if mark:
            window.mark(sequence)
            model.mark(sequence)
        assert window.highest == model.highest
        assert window._seen < 1 << size
