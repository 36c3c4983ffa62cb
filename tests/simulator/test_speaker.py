from __future__ import annotations

import pytest

from trio_gateway.simulator.speaker import Speaker

FRAME = 0.06


@pytest.fixture
def speaker() -> Speaker:
    speaker = Speaker(FRAME)
    speaker.start()
    return speaker


def test_a_paced_stream_neither_runs_dry_nor_over(speaker: Speaker) -> None:
    for index in range(100):
        assert speaker.push(max(0, index - 2) * FRAME)
    assert (speaker.underruns, speaker.overflows) == (0, 0)


def test_the_queue_holds_forty_and_the_one_that_sounds(speaker: Speaker) -> None:
    taken = [speaker.push(1.0) for _ in range(45)]
    assert taken == [True] * 41 + [False] * 4
    assert speaker.overflows == 4
    assert speaker.push(1.0 + FRAME), "one was played meanwhile"


def test_a_late_packet_is_an_underrun_and_the_first_is_not(speaker: Speaker) -> None:
    speaker.push(5.0)
    speaker.push(5.0 + FRAME)  # just in time
    speaker.push(5.0 + 2 * FRAME + 0.001)
    assert speaker.underruns == 1


def test_stop_cuts_what_has_not_begun(speaker: Speaker) -> None:
    for _ in range(4):
        speaker.push(0.0)
    assert speaker.stop(1.5 * FRAME) == 2, "the first is over, the second sounds"
    assert speaker.cuts == 2


@pytest.mark.parametrize("at", [3 * FRAME - 0.001, 3 * FRAME, 3 * FRAME + 1])
def test_stop_in_the_last_packet_or_after_it_cuts_nothing(speaker: Speaker, at: float) -> None:
    for _ in range(3):
        speaker.push(0.0)
    assert speaker.stop(at) == 0


def test_a_new_start_empties_the_queue(speaker: Speaker) -> None:
    for _ in range(10):
        speaker.push(0.0)
    speaker.start()
    speaker.push(0.0)
    assert speaker.stop(FRAME) == 0
    assert speaker.underruns == 0
