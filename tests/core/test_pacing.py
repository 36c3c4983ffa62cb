from __future__ import annotations

import math

import pytest

from trio_gateway.core.pacing import TOLERANCE, Pacer

FRAME = 0.060


def send_when_due(pacer: Pacer, now: float, count: int, *, late: float = 0.0) -> list[float]:
    """Send `count` frames, each `late` after it is due; return the times."""
    times = []
    for _ in range(count):
        now = max(now, pacer.next_due(now) + late)
        pacer.sent(now)
        times.append(now)
    return times


def test_the_lead_goes_out_at_once_and_then_a_frame_each_frame() -> None:
    pacer = Pacer(FRAME, lead_frames=2)
    times = send_when_due(pacer, 100.0, 6)
    assert times == pytest.approx([100.0, 100.0, 100.06, 100.12, 100.18, 100.24])
    assert pacer.played_out_at() == pytest.approx(100.36)


@pytest.mark.parametrize("lead_frames", [0, 1])
def test_without_a_lead_frames_go_out_as_they_are_needed(lead_frames: int) -> None:
    pacer = Pacer(FRAME, lead_frames)
    assert send_when_due(pacer, 0.0, 4) == pytest.approx([0.0, 0.06, 0.12, 0.18])


@pytest.mark.parametrize("lead_frames", [1, 2, 4])
def test_lateness_does_not_add_up(lead_frames: int) -> None:
    pacer = Pacer(FRAME, lead_frames)
    last = send_when_due(pacer, 0.0, 10_001, late=0.003)[-1]
    # Late twice: the first frame, which is the start, and the last one.
    assert last == pytest.approx((10_001 - lead_frames) * FRAME + 2 * 0.003)
    assert pacer.underruns == 0


def test_a_late_frame_within_the_lead_keeps_the_clock() -> None:
    pacer = Pacer(FRAME, lead_frames=2)
    send_when_due(pacer, 0.0, 2)
    pacer.sent(0.110)  # due at 0.060, needed at 0.120
    assert pacer.next_due(0.110) == pytest.approx(0.120)
    assert pacer.underruns == 0


def test_after_an_underrun_the_clock_starts_again() -> None:
    pacer = Pacer(FRAME, lead_frames=2)
    send_when_due(pacer, 0.0, 2)
    now = 0.120 + 2 * TOLERANCE
    assert pacer.next_due(now) < now
    pacer.sent(now)
    assert pacer.underruns == 1
    assert pacer.played_out_at() == pytest.approx(now + FRAME)
    assert send_when_due(pacer, now, 2) == pytest.approx([now, now + FRAME])


def test_after_a_long_stall_no_burst_exceeds_the_lead() -> None:
    pacer = Pacer(FRAME, lead_frames=3)
    send_when_due(pacer, 0.0, 3)
    assert send_when_due(pacer, 10.0, 5) == pytest.approx([10.0, 10.0, 10.0, 10.06, 10.12])


def test_nothing_sent_is_played_out() -> None:
    pacer = Pacer(FRAME)
    assert pacer.played_out_at() == -math.inf
    assert pacer.next_due(5.0) == 5.0


def test_restart_begins_a_new_stream_without_an_underrun() -> None:
    pacer = Pacer(FRAME, lead_frames=2)
    send_when_due(pacer, 0.0, 5)
    pacer.restart()
    assert pacer.played_out_at() == -math.inf
    assert send_when_due(pacer, 0.05, 3) == pytest.approx([0.05, 0.05, 0.11])
    assert pacer.underruns == 0


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="frame_s"):
        Pacer(0.0)
    with pytest.raises(ValueError, match="lead_frames"):
        Pacer(FRAME, -1)
