"""Invariant: frames leave ascending, once each, as late as the missing ones make them and no later.

The model sorts what is here, looks at it at every tick of the clock, and has no timer at all.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.jitter import JitterBuffer, UplinkFrame

# Time is counted in whole ticks, so that both sides compare equal numbers.
WAIT = 3
ARRIVALS = st.lists(
    st.tuples(st.integers(1, 40) | st.integers(1, 2000), st.integers(0, 4)),
    unique_by=lambda arrival: arrival[0],
    max_size=40,
)


class SortedList:
    """The model."""

    def __init__(self, max_gap_frames: int) -> None:
        self.max_gap_frames = max_gap_frames
        self.next = 1
        self.here: list[tuple[int, int]] = []

    def tick(self, now: int) -> list[tuple[int, bool]]:
        """Return what leaves at `now`: sequence, and whether it was heard."""
        out: list[tuple[int, bool]] = []
        while self.here:
            first = min(self.here)[0]
            if first != self.next:
                if now < min(arrived for _, arrived in self.here) + WAIT:
                    break
                gap = range(self.next, first)
                out += [(each, False) for each in gap[max(0, len(gap) - self.max_gap_frames) :]]
            out.append((first, True))
            self.here = [each for each in self.here if each[0] != first]
            self.next = first + 1
        return out


def named(frames: list[UplinkFrame]) -> list[tuple[int, bool]]:
    for frame in frames:
        assert frame.payload in (None, b"\x58audio %d" % frame.sequence)
    return [(frame.sequence, frame.payload is not None) for frame in frames]


@given(arrivals=ARRIVALS, max_gap_frames=st.integers(0, 5))
def test_the_buffer_equals_the_sorted_list(
    arrivals: list[tuple[int, int]], max_gap_frames: int
) -> None:
    jitter, model = JitterBuffer(WAIT, max_gap_frames), SortedList(max_gap_frames)
    everything: list[tuple[int, bool]] = []
    now = late = 0
    for sequence, pause in arrivals:
        for now in range(now + 1, now + pause + 1):  # noqa: B020  the clock goes on
            due = jitter.get_timer()
            out = named(jitter.handle_timer(now)) if due is not None and due <= now else []
            assert out == model.tick(now)
            everything += out
        assert jitter.is_late(sequence) == (sequence < model.next)
        if jitter.is_late(sequence):
            late += 1
            continue
        model.here.append((sequence, now))
        out = named(jitter.push(UplinkFrame(sequence, b"\x58audio %d" % sequence), now))
        assert out == model.tick(now)
        everything += out
        assert jitter.waiting == len(model.here)
        assert (jitter.get_timer() is None) == (not model.here)
    out = named(jitter.flush())
    assert out == model.tick(now + WAIT)
    everything += out

    sequences = [sequence for sequence, _ in everything]
    assert sequences == sorted(set(sequences))
    assert jitter.delivered == sum(heard for _, heard in everything) == len(arrivals) - late
    assert jitter.delivered + jitter.lost == len(everything)
    assert jitter.delivered + jitter.lost + jitter.skipped == model.next - 1
