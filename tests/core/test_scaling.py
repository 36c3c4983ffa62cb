from __future__ import annotations

import pytest
from attrs import asdict, evolve

from trio_gateway.core.scaling import (
    Decision,
    ScalerState,
    ScalingPolicy,
    Signals,
    decide,
    evaluate,
)
from trio_gateway.settings import PoolSettings, ScalingSettings

POLICY = ScalingPolicy(settings=ScalingSettings(), min_workers=2, max_workers=8, cores=8)
TABLE = {
    "load_up": 70.0,
    "cpu_up": 60.0,
    "latency_up": 0.050,
    "queue_per_worker_up": 3.0,
    "cooldown_up": 30.0,
    "load_down": 30.0,
    "cpu_down": 30.0,
    "latency_down": 0.010,
    "cooldown_down": 60.0,
    "frames_per_worker": 5.0,
    "interval": 10.0,
}
"""The defaults that were asked for. What is retired only "= 0" of, the queue, has no setting."""

IDLE = Signals(workers=4, load=1.0, cpu=5.0, latency=0.001, queue=0, offered=0.1)
BETWEEN = Signals(workers=4, load=50.0, cpu=45.0, latency=0.020, queue=0, offered=2.0)
NEVER = ScalerState()


def answer(
    signals: Signals,
    state: ScalerState = NEVER,
    now: float = 1000.0,
    policy: ScalingPolicy = POLICY,
) -> Decision:
    return decide(policy, signals, state, now)


# The table of thresholds: any of them above adds, all of them below retires.


def test_the_defaults_are_those_of_the_table() -> None:
    settings = asdict(ScalingSettings())
    assert {name: settings[name] for name in TABLE} == TABLE
    pool = PoolSettings()
    assert (pool.min_workers, pool.max_workers) == (2, 8)


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        (evolve(BETWEEN, load=85.0), "load 85 % > 70 %"),
        (evolve(BETWEEN, cpu=60.4), "CPU 60.4 % > 60 %"),
        (evolve(BETWEEN, latency=0.080), "latency 80 ms > 50 ms"),
        (evolve(BETWEEN, queue=13), "queue 13 > 12"),
        (evolve(IDLE, queue=13), "queue 13 > 12"),
        (evolve(BETWEEN, load=85.0, queue=13), "load 85 % > 70 %, queue 13 > 12"),
    ],
)
def test_any_signal_above_its_threshold_adds_a_worker(signals: Signals, reason: str) -> None:
    decision = answer(signals)
    assert (decision.kind, decision.before, decision.after) == ("up", 4, 5)
    assert decision.reason == reason
    assert decision.signals is signals


@pytest.mark.parametrize(
    "signals",
    [
        evolve(BETWEEN, load=70.0),
        evolve(BETWEEN, cpu=60.0),
        evolve(BETWEEN, latency=0.050),
        evolve(BETWEEN, queue=12),
        evolve(IDLE, load=30.0),
        evolve(IDLE, cpu=30.0),
        evolve(IDLE, latency=0.010),
        evolve(IDLE, queue=1),
    ],
)
def test_on_a_threshold_nothing_changes(signals: Signals) -> None:
    assert answer(signals).kind == "hold"


def test_all_signals_low_retire_one_worker() -> None:
    decision = answer(IDLE)
    assert (decision.kind, decision.after) == ("down", 3)
    assert decision.reason == "load 1 % < 30 %, CPU 5 % < 30 %, latency 1 ms < 10 ms, queue empty"


# Steps and bounds.


def test_a_step_up_is_sized_by_the_offered_load() -> None:
    decision = answer(evolve(BETWEEN, workers=2, load=300.0, offered=4.0))
    assert decision.after == 6  # 4.0 / 0.7 = 5.7
    assert decision.reason == "load 300 % > 70 %; 4.0 workers of load need 6"


def test_a_load_that_fits_exactly_is_not_rounded_up() -> None:
    assert POLICY.workers_for(1.4) == 2
    assert POLICY.workers_for(0.0) == 0


def test_a_step_up_ends_at_the_maximum_and_is_then_refused() -> None:
    assert answer(evolve(BETWEEN, load=900.0, offered=50.0)).after == 8
    decision = answer(evolve(BETWEEN, workers=8, load=900.0, offered=50.0))
    assert (decision.kind, decision.after) == ("refused", 8)
    assert decision.reason == "would scale up (load 900 % > 70 %), already at the maximum of 8"


def test_at_the_minimum_idle_is_a_state_of_rest() -> None:
    decision = answer(evolve(IDLE, workers=2))
    assert (decision.kind, decision.after) == ("hold", 2)
    assert decision.reason == "idle at the minimum of 2"


def test_a_worker_that_the_load_needs_is_not_retired() -> None:
    decision = answer(evolve(IDLE, offered=2.2))  # 2.2 / 0.7 = 3.1: all four
    assert (decision.kind, decision.after) == ("refused", 4)
    assert decision.reason == "would scale down, 2.2 workers of load need 4"


@pytest.mark.parametrize(("workers", "after", "kind"), [(1, 2, "up"), (12, 8, "down")])
def test_moved_bounds_are_obeyed_at_once(workers: int, after: int, kind: str) -> None:
    decision = answer(evolve(BETWEEN, workers=workers), ScalerState(changed_at=999.0))
    assert (decision.kind, decision.after) == (kind, after)
    assert decision.reason == "the bounds are 2 to 8"


def test_bounds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="3 to 2"):
        evolve(POLICY, min_workers=3, max_workers=2)
    with pytest.raises(ValueError, match="0 to 2"):
        evolve(POLICY, min_workers=0, max_workers=2)


# CPU alone.


def test_cpu_alone_adds_no_workers_beyond_the_cores() -> None:
    two_cores = evolve(POLICY, cores=1.5)
    busy = evolve(BETWEEN, cpu=95.0, offered=5.0)
    decision = answer(evolve(busy, workers=2), policy=two_cores)
    assert (decision.kind, decision.after) == ("refused", 2)
    assert decision.reason == "would scale up (CPU 95 % > 60 %), 2 cores have their workers"
    assert answer(evolve(busy, workers=4), policy=two_cores).after == 4, "nor takes any away"


def test_cpu_alone_fills_the_cores_and_no_more() -> None:
    decision = answer(
        evolve(BETWEEN, cpu=95.0, workers=2, offered=5.0), policy=evolve(POLICY, cores=4)
    )
    assert decision.after == 4


def test_another_signal_lifts_the_limit_of_the_cores() -> None:
    busy = evolve(BETWEEN, workers=2, cpu=95.0, load=90.0)
    assert answer(busy, policy=evolve(POLICY, cores=2)).after == 3


# Cooldowns.


def test_up_waits_for_its_cooldown() -> None:
    high = evolve(BETWEEN, load=85.0)
    changed = ScalerState(changed_at=1000.0)
    decision = answer(high, changed, now=1018.2)
    assert (decision.kind, decision.after) == ("refused", 4)
    assert decision.reason == "would scale up (load 85 % > 70 %), cooldown 12 s left"
    assert answer(high, changed, now=1029.9).kind == "refused"
    assert answer(high, changed, now=1030.0).kind == "up"


def test_down_waits_for_its_longer_cooldown() -> None:
    changed = ScalerState(changed_at=1000.0)
    decision = answer(IDLE, changed, now=1059.5)
    assert decision.reason == "would scale down, cooldown 1 s left"
    assert answer(IDLE, changed, now=1060.0).kind == "down"


def test_a_late_frame_from_before_the_last_change_is_no_reason() -> None:
    impatient = evolve(POLICY, settings=ScalingSettings(cooldown_up=2.0))
    late = evolve(BETWEEN, latency=0.080)
    changed = ScalerState(changed_at=1000.0)
    # Ten seconds are remembered for up to eleven (window.py, rule 1).
    assert answer(late, changed, now=1010.9, policy=impatient).kind == "hold"
    assert answer(late, changed, now=1011.0, policy=impatient).kind == "up"
    longer = evolve(impatient, latency_window=60.0)
    assert answer(late, changed, now=1065.9, policy=longer).kind == "hold"
    assert answer(late, changed, now=1066.0, policy=longer).kind == "up"


# Overload: more is offered than the workers can do.

OVERLOADED = evolve(BETWEEN, queue=100, offered=4.1)
JUST_CHANGED = ScalerState(changed_at=1000.0)


def test_overload_waits_for_a_shorter_cooldown() -> None:
    decision = answer(OVERLOADED, JUST_CHANGED, now=1001.4)
    assert decision.kind == "refused"
    assert decision.reason == "would scale up (queue 100 > 12), cooldown 1 s left"
    decision = answer(OVERLOADED, JUST_CHANGED, now=1001.5)
    assert (decision.kind, decision.after) == ("up", 6)
    assert decision.reason == (
        "queue 100 > 12; 4.1 workers of load need 6; overloaded, which cuts the cooldown short"
    )
    assert "cooldown" not in answer(OVERLOADED, JUST_CHANGED, now=1030.0).reason


def test_workers_that_can_do_it_are_not_overloaded() -> None:
    busy = evolve(OVERLOADED, offered=4.0)
    assert answer(busy, JUST_CHANGED, now=1029.0).refused == "up: cooldown"


def test_a_load_that_calls_for_nothing_is_no_overload() -> None:
    assert answer(evolve(BETWEEN, offered=4.1), JUST_CHANGED, now=1029.0).kind == "hold"


@pytest.mark.parametrize(("cores", "kind"), [(3.5, "refused"), (4.0, "refused"), (4.5, "up")])
def test_beyond_the_cores_overload_waits_like_everything(cores: float, kind: str) -> None:
    policy = evolve(POLICY, cores=cores)
    assert answer(OVERLOADED, JUST_CHANGED, now=1029.0, policy=policy).kind == kind
    assert answer(OVERLOADED, JUST_CHANGED, now=1030.0, policy=policy).kind == "up"


def test_the_cooldown_for_overload_is_never_the_longer_one() -> None:
    impatient = evolve(POLICY, settings=ScalingSettings(cooldown_up=1.0, cooldown_overload=9.0))
    assert answer(OVERLOADED, JUST_CHANGED, now=1001.0, policy=impatient).kind == "up"
    strict = evolve(POLICY, settings=ScalingSettings(cooldown_overload=30.0))
    assert answer(OVERLOADED, JUST_CHANGED, now=1029.0, policy=strict).kind == "refused"


def test_a_jump_that_the_first_sample_saw_half_of_takes_two_steps() -> None:
    state, workers, steps = ScalerState(checked_at=1000.0), 2, []
    for second, offered in enumerate((2.1, 3.5, 3.5, 3.5), 1001):
        signals = evolve(BETWEEN, workers=workers, queue=100, offered=offered)
        decision, state = evaluate(POLICY, signals, signals, state, float(second))
        assert decision is not None
        workers = decision.after
        steps.append(workers)
    assert steps == [3, 3, 5, 5]


# Refusals.


@pytest.mark.parametrize(
    ("signals", "changed_at", "refused"),
    [
        (evolve(BETWEEN, load=85.0), 990.0, "up: cooldown"),
        (evolve(BETWEEN, workers=8, load=85.0), 0.0, "up: limit"),
        (IDLE, 990.0, "down: cooldown"),
        (evolve(IDLE, offered=2.2), 0.0, "down: needed"),
        (evolve(BETWEEN, load=85.0), 0.0, ""),
        (IDLE, 0.0, ""),
        (BETWEEN, 0.0, ""),
    ],
)
def test_a_refusal_has_a_name_that_lasts_as_long_as_it(
    signals: Signals, changed_at: float, refused: str
) -> None:
    decision = answer(signals, ScalerState(changed_at=changed_at))
    assert decision.refused == refused
    assert (decision.kind == "refused") == bool(refused)


# When to decide.


def test_a_regular_check_comes_once_an_interval() -> None:
    state = NEVER
    checks = []
    for now in range(31):
        decision, state = evaluate(POLICY, BETWEEN, BETWEEN, state, float(now))
        if decision is not None:
            checks.append(now)
    assert checks == [0, 10, 20, 30]


def test_a_spike_does_not_wait_for_the_check_and_is_sized_by_what_is_recent() -> None:
    state = ScalerState(checked_at=100.0)
    calm = evolve(IDLE, workers=2)
    spike = evolve(BETWEEN, workers=2, queue=40, offered=4.0)
    decision, state = evaluate(POLICY, calm, spike, state, 101.0)
    assert decision is not None
    assert decision.after == 6
    assert decision.reason == "spike: queue 40 > 6; 4.0 workers of load need 6"
    assert state == ScalerState(checked_at=100.0, changed_at=101.0)


def test_a_late_frame_is_a_spike_too() -> None:
    late = evolve(BETWEEN, latency=0.080)
    decision, _ = evaluate(POLICY, late, late, ScalerState(checked_at=100.0), 101.0)
    assert decision is not None
    assert decision.reason == "spike: latency 80 ms > 50 ms"


def test_a_spike_at_the_moment_of_a_check_is_sized_by_the_higher_load() -> None:
    heavy = evolve(BETWEEN, load=90.0, offered=4.9)
    decision, _ = evaluate(POLICY, heavy, evolve(IDLE, queue=13), NEVER, 101.0)
    assert decision is not None
    assert decision.after == 7
    assert decision.reason == "spike: load 90 % > 70 %, queue 13 > 12; 4.9 workers of load need 7"


def test_a_spike_respects_the_cooldown() -> None:
    state = ScalerState(checked_at=100.0, changed_at=100.0)
    decision, after = evaluate(POLICY, BETWEEN, evolve(BETWEEN, queue=40), state, 101.0)
    assert decision is not None
    assert decision.kind == "refused"
    assert after == state


def test_load_alone_waits_for_the_check() -> None:
    high = evolve(BETWEEN, load=85.0, cpu=85.0)
    assert evaluate(POLICY, high, high, ScalerState(checked_at=100.0), 101.0)[0] is None
