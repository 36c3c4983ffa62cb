"""The scenarios of the gateway that this one replaces, each with ten times the devices."""

from __future__ import annotations

import pytest
from attrs import evolve

from trio_gateway.replay import SCENARIOS, Replay, replay
from trio_gateway.replay.report import Summary, summary
from trio_gateway.replay.trace import Row, Trace
from trio_gateway.settings import Settings


def run(name: str) -> tuple[Replay, Summary]:
    done = replay(SCENARIOS[name].trace(), Settings())
    return done, summary(done)


def workers_at(done: Replay, time: float) -> int:
    return next(step.workers for step in done.steps if step.span.time >= time)


@pytest.mark.parametrize(
    ("name", "fewest", "most", "cpu", "latency"),
    [
        ("idle", 2, 2, 5, 0.001),
        ("10-devices", 2, 2, 10, 0.002),
        ("30-devices", 2, 3, 30, 0.003),
        ("50-devices", 3, 4, 50, 0.005),
        ("100-devices", 5, 8, 70, 0.008),
    ],
)
def test_a_steady_load_is_served(
    name: str, fewest: int, most: int, cpu: float, latency: float
) -> None:
    done, total = run(name)
    assert fewest <= total.workers_end <= most
    assert total.cpu[1] <= cpu + 1.5  # "~10 %" are 11
    assert total.latency_mean <= latency
    settled = done.steps[-60:]
    assert all(step.workers == total.workers_end for step in settled)
    assert max(step.moment.latency for step in settled) < 0.010, "its peak, as it claims"


@pytest.mark.parametrize("name", ["10-devices", "30-devices", "50-devices", "100-devices"])
def test_an_hour_of_the_same_load_changes_nothing(name: str) -> None:
    (row,) = SCENARIOS[name].trace().rows
    hour = Trace("an hour", (evolve(row, time=3600.0),), 8.0)
    changed = [step.span.time for step in replay(hour, Settings()).steps if step.change]
    assert max(changed, default=0.0) < 120


def test_a_traffic_spike_is_absorbed_in_one_step() -> None:
    done, total = run("traffic-spike")
    assert [workers_at(done, time) for time in (120, 122)] == [2, 6], "within two seconds"
    assert total.ups == 1
    assert total.overloaded <= 2
    assert 10 <= total.cpu[0] <= total.cpu[1] <= 60
    assert all(step.moment.latency < 0.012 for step in done.steps if 140 < step.span.time < 240)
    assert total.workers_end == 2


def test_after_the_spike_the_pool_is_small_again() -> None:
    done, total = run("after-the-spike")
    assert workers_at(done, 60) > 5
    assert total.workers_end == 2
    steps = [step.change for step in done.steps if step.change and step.span.time > 61]
    assert {change.after - change.before for change in steps} == {-1}


@pytest.mark.parametrize("name", ["straddling-spike", "ramp"])
def test_what_no_step_can_be_sized_by_is_answered_in_two(name: str) -> None:
    done, total = run(name)
    assert total.ups == 2
    assert total.overloaded <= 3
    assert total.latency_worst < 1.0
    assert total.dropped == 0
    assert total.workers[1] <= 6, "no more than the load needs"
    scaling = evolve(Settings().scaling, cooldown_overload=30.0)
    patient = summary(replay(done.trace, evolve(Settings(), scaling=scaling)))
    assert patient.overloaded > 20, "what the short cooldown is for"


@pytest.mark.parametrize("name", [name for name in SCENARIOS if SCENARIOS[name].earlier.workers])
def test_the_short_cooldown_adds_nothing_to_the_others(name: str) -> None:
    done, _ = run(name)
    scaling = evolve(Settings().scaling, cooldown_overload=30.0)
    patient = replay(done.trace, evolve(Settings(), scaling=scaling))
    assert [step.workers for step in done.steps] == [step.workers for step in patient.steps]


def test_all_seven_are_there_and_have_a_load_that_somebody_chose() -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.earlier.workers] == [
        "idle",
        "10-devices",
        "30-devices",
        "50-devices",
        "100-devices",
        "traffic-spike",
        "after-the-spike",
    ]
    hundred: Row = SCENARIOS["100-devices"].trace().rows[0]
    assert hundred.offered == pytest.approx(4.2)
    assert hundred.offered / hundred.service == pytest.approx(100 * 2 / 0.060)  # frames/s
