from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from trio_gateway.metrics.cpu import usable_cores
from trio_gateway.replay import Replay, Trace, replay
from trio_gateway.replay.trace import Measured, Row
from trio_gateway.settings import PoolSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS = Settings()


def a_trace(*loads: tuple[float, float], cores: float | None = 8.0) -> Trace:
    rows = tuple(Row(time=time, offered=offered, service=0.001) for time, offered in loads)
    return Trace("t", rows, cores)


def bounded(low: int, high: int) -> Settings:
    return evolve(SETTINGS, pool=PoolSettings(min_workers=low, max_workers=high))


def changes(done: Replay) -> list[tuple[float, int, int]]:
    found = ((step.span.time, step.change) for step in done.steps)
    return [(time, change.before, change.after) for time, change in found if change is not None]


def test_what_is_decided_changes_what_is_seen_next() -> None:
    done = replay(a_trace((60, 0.4), (120, 3.5)), SETTINGS)
    assert changes(done) == [(61.0, 2, 5)]
    assert [step.workers for step in done.steps[58:63]] == [2, 2, 2, 5, 5]
    loads = [step.signals.load for step in done.steps]
    assert loads[60] > 1000
    assert loads[70] < 50


def test_the_same_trace_gives_the_same_answer() -> None:
    trace = a_trace((60, 0.4), (90, 3.5), (300, 0.1))
    assert replay(trace, SETTINGS) == replay(trace, SETTINGS)


def test_the_bounds_are_obeyed() -> None:
    done = replay(a_trace((60, 30.0), (900, 0.0)), bounded(3, 5))
    assert {step.workers for step in done.steps} == {3, 4, 5}


def test_cores_are_asked_of_the_caller_then_the_trace_then_this_machine() -> None:
    def cores(trace: Trace, given: float | None = None) -> float:
        return replay(trace, SETTINGS, cores=given).policy.cores

    assert cores(a_trace((1, 0)), 3.0) == 3.0
    assert cores(a_trace((1, 0))) == 8.0
    assert cores(a_trace((1, 0), cores=None)) == usable_cores()


def test_too_few_cores_cannot_be_cured_by_workers() -> None:
    done = replay(a_trace((300, 3.0)), SETTINGS, cores=2.0)
    assert done.steps[-1].workers == 8
    assert done.steps[-1].moment.overloaded


def test_a_look_comes_every_sample() -> None:
    often = evolve(SETTINGS, metrics=evolve(SETTINGS.metrics, interval=0.5))
    assert len(replay(a_trace((10, 0.1)), often).steps) == 20


def test_a_check_looks_at_the_mean_over_the_window() -> None:
    done = replay(a_trace((70, 0.0), (71, 1.7)), SETTINGS)  # checks are at 1, 11, ... 71
    decision = done.steps[-1].decision
    assert decision is not None
    assert decision.signals.offered == pytest.approx(0.17)
    assert decision.signals.load == pytest.approx(done.steps[-1].signals.load / 10)
    assert decision.signals.latency == done.steps[-1].signals.latency


def test_between_the_checks_nothing_is_decided() -> None:
    done = replay(a_trace((25, 1.0)), SETTINGS)
    decided = [step.span.time for step in done.steps if step.decision is not None]
    assert decided == [1.0, 11.0, 21.0]


# Recordings.


def recorded(rows: Iterable[tuple[float, int, float]]) -> Trace:
    """Make a recording of (offered load, workers, frames pending), a second each."""
    return Trace(
        "recorded",
        tuple(
            Row(
                time=float(second),
                offered=offered,
                service=0.001,
                measured=Measured(
                    workers=workers,
                    pending=pending,
                    waiting=max(pending - 4 * workers, 0.0),
                    cpu=40.0,
                    cores=8.0,
                    latency=pending / workers * 0.001,
                ),
            )
            for second, (offered, workers, pending) in enumerate(rows, 1)
        ),
        8.0,
    )


def test_with_as_many_workers_the_signals_are_those_measured() -> None:
    trace = recorded([(0.5, 2, 3.3)] * 5 + [(0.5, 2, 4.7)] * 5)
    done = replay(trace, SETTINGS)
    for step in done.steps:
        measured = step.span.row.measured
        assert measured is not None
        moment = step.moment
        seen = (step.workers, moment.pending, moment.waiting, moment.cpu, moment.latency)
        assert seen == (2, measured.pending, measured.waiting, measured.cpu, measured.latency)


def test_a_burst_takes_twice_as_many_workers_half_as_long() -> None:
    chorus = recorded([(0.2, 2, 12.0)] * 10)  # far more than chance makes of so little load
    done = replay(chorus, bounded(4, 8))
    moment = done.steps[-1].moment
    assert done.steps[-1].workers == 4
    assert moment.pending == pytest.approx(6.0, rel=0.03)
    assert moment.latency == pytest.approx(0.003, rel=0.3)


def test_fewer_workers_than_recorded_pile_up_what_they_cannot_do() -> None:
    calm = recorded([(3.5, 6, 4.0)] * 5)
    done = replay(calm, bounded(1, 2))
    assert {step.workers for step in done.steps} == {2}
    assert done.steps[-1].moment.overloaded
    assert done.steps[-1].moment.pending == pytest.approx(1.5 * 1000 * 4.5, rel=0.05)
    assert done.steps[-1].moment.cpu < 40.0, "two workers cannot use what six did"


def test_more_workers_than_recorded_have_no_backlog() -> None:
    drowned = recorded([(3.5, 2, 1500.0 * (second + 0.5)) for second in range(5)])
    done = replay(drowned, bounded(6, 8))
    assert done.steps[-1].moment.pending < 100
    assert done.steps[-1].moment.cpu > 40.0


def test_a_recording_begins_with_the_workers_that_it_had() -> None:
    assert replay(recorded([(0.5, 5, 1.0)]), SETTINGS).steps[0].workers == 5
    assert replay(recorded([(0.5, 5, 1.0)]), bounded(1, 3)).steps[0].workers == 3
