"""Invariant: `Speaker`, which only does sums, drops, cuts and runs dry as a real queue does.

The naive model keeps every packet with the moment at which it begins to sound.
"""

from __future__ import annotations

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.simulator.speaker import Speaker

FRAME = 60
CAPACITY = 40


@define
class NaiveSpeaker:
    """A list of moments."""

    begins: list[int] = field(factory=list)
    underruns: int = 0

    def push(self, now: int) -> bool:
        """Queue a packet if there is room."""
        if sum(begin > now for begin in self.begins) >= CAPACITY:
            return False
        end = self.begins[-1] + FRAME if self.begins else now
        self.underruns += end < now
        self.begins.append(max(end, now))
        return True

    def stop(self, now: int) -> int:
        """Return how many were not heard."""
        unheard = sum(begin > now for begin in self.begins)
        self.begins.clear()
        return unheard


# Whole milliseconds, so that both sides can be exact. Mostly at the pace of speech, also in bursts.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push"] * 8 + ["stop"]),
        st.sampled_from([0, 0, 1, 30, 59, 60, 60, 60, 61, 500]),
    ),
    max_size=200,
)


@given(STEPS)
def test_like_a_queue(steps: list[tuple[str, int]]) -> None:
    speaker, naive = Speaker(float(FRAME)), NaiveSpeaker()
    now = cuts = overflows = 0
    for action, elapsed in steps:
        now += elapsed
        if action == "push":
            expected = naive.push(now)
            assert speaker.push(now) == expected
            overflows += not expected
        else:
            unheard = naive.stop(now)
            assert speaker.stop(now) == unheard
            cuts += unheard
    assert (speaker.underruns, speaker.cuts, speaker.overflows) == (
        naive.underruns,
        cuts,
        overflows,
    )
