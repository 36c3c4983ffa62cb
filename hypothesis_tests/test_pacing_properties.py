"""Invariant: a device that the pacer feeds holds `lead_frames` at most and starves only with us.

The model is the device: a queue, and a player that takes a frame from it each frame's time.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.pacing import TOLERANCE, Pacer

FRAME = 0.0625  # exact in binary, so the sums below are, too


class Device:
    """Plays each frame when the one before it has ended, or on arrival if it stood still."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def receive(self, now: float) -> None:
        """Queue a frame."""
        self.starts.append(max(now, self.ends_at) if self.starts else now)

    @property
    def ends_at(self) -> float:
        """When all is played."""
        return self.starts[-1] + FRAME

    def holds(self, now: float) -> int:
        """Frames not played to their end, the playing one included."""
        return sum(start + FRAME > now for start in self.starts)


@given(
    lead_frames=st.integers(1, 4),
    # How late the source is with each frame, in quarters of a frame, mostly not at all.
    lateness=st.lists(st.just(0) | st.integers(0, 25), min_size=1, max_size=60),
)
def test_the_device_s_queue(lead_frames: int, lateness: list[int]) -> None:
    pacer, device = Pacer(FRAME, lead_frames), Device()
    now, starved = 1000.0, 0
    for late in lateness:
        now = max(now, pacer.next_due(now)) + late * FRAME / 4
        if device.starts and now > device.ends_at:
            starved += 1
        device.receive(now)
        pacer.sent(now)
        assert device.holds(now) <= lead_frames
        assert pacer.played_out_at() == device.ends_at
    assert pacer.underruns == starved


@given(
    lead_frames=st.integers(1, 4),
    latencies=st.lists(st.floats(0, TOLERANCE / 2), min_size=1, max_size=200),
)
def test_wake_up_latency_does_not_add_up(lead_frames: int, latencies: list[float]) -> None:
    pacer = Pacer(FRAME, lead_frames)
    now = start = 1000.0
    for i, latency in enumerate(latencies):
        now = max(now, pacer.next_due(now)) + latency
        pacer.sent(now)
        ideal = start + max(0, i - (lead_frames - 1)) * FRAME
        # The first frame's latency is everybody's; those sent at once pass theirs on.
        assert now <= ideal + latencies[0] + sum(latencies[1:lead_frames]) + latency + 1e-9
    assert pacer.underruns == 0


@given(lead_frames=st.integers(1, 4), count=st.integers(1, 300), start=st.floats(0, 1e6))
def test_a_source_in_time_gets_the_formula(lead_frames: int, count: int, start: float) -> None:
    pacer = Pacer(FRAME, lead_frames)
    now = start
    for i in range(count):
        due = pacer.next_due(now)
        assert due == pytest.approx(start + max(0, i - (lead_frames - 1)) * FRAME, abs=1e-6)
        now = max(now, due)
        pacer.sent(now)
    assert pacer.played_out_at() == pytest.approx(start + count * FRAME, abs=1e-6)
    assert pacer.underruns == 0
