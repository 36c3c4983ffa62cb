"""Invariant: a worker hangs if it has held one ticket for the whole timeout, and only then.

The model knows when each ticket was handed out and finished, which the watch must do without. It
is told of each moment; the watch looks twice in a timeout, except when our own thread stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.workers.lane import Lane
from trio_gateway.workers.watch import LOOKS, Watch

if TYPE_CHECKING:
    from trio_gateway.workers.frame import Frame

TIMEOUT = 16.0
STEPS = st.lists(
    st.tuples(st.sampled_from(["hand", "finish", "stand still", "nothing"]), st.integers(1, 30)),
    max_size=30,
)


@given(STEPS)
def test_who_hangs_is_found_and_nobody_else(steps: list[tuple[str, int]]) -> None:
    lane = Lane("one", len)
    watch = Watch(lane, TIMEOUT)
    now = next_look = 0.0
    silent_since = 0.0  # of what we have seen with our own eyes
    for what, ticks in steps:
        if what == "hand":
            if not lane.held:
                silent_since = now
            lane.held.append(cast("Frame", object()))
        elif what == "finish" and lane.held:
            lane.held.popleft()
            silent_since = now
        elif what == "stand still":
            now = next_look = silent_since = now + 2 * TIMEOUT
        for _ in range(ticks):
            now += 1
            if now < next_look:
                continue
            next_look = now + TIMEOUT / LOOKS
            silent = watch.look(now)
            if silent is not None:
                assert lane.held
                assert TIMEOUT <= silent <= now - silent_since
                return
            assert not lane.held or now - silent_since < TIMEOUT + TIMEOUT / LOOKS
