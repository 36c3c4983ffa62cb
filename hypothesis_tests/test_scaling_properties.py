"""Invariant: whatever is measured, bounds and cooldowns hold, and more load is never fewer workers.

And a load that stays is reached, left alone, and given back when it ends.
"""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_gateway.core.scaling import ScalerState, ScalingPolicy, Signals, decide, evaluate
from trio_gateway.settings import ScalingSettings

SETTINGS = ScalingSettings()

policies = st.builds(
    lambda low, more, cores: ScalingPolicy(
        settings=SETTINGS, min_workers=low, max_workers=low + more, cores=cores
    ),
    st.integers(1, 8),
    st.integers(0, 24),
    st.sampled_from([0.5, 1.0, 2.0, 6.5, 64.0]),
)


def up_to(limit: float) -> st.SearchStrategy[float]:
    return st.floats(min_value=0.0, max_value=limit)


signals_of = st.builds(
    Signals,
    workers=st.integers(0, 40),
    load=up_to(1000.0),
    cpu=up_to(100.0),
    latency=up_to(1.0),
    queue=st.integers(0, 500),
    offered=up_to(50.0),
)
quiet = st.builds(
    Signals,
    workers=st.integers(1, 32),
    load=up_to(29.0),
    cpu=up_to(29.0),
    latency=up_to(0.009),
    queue=st.just(0),
    offered=up_to(32.0),
)
any_signals = st.one_of(signals_of, quiet)
times = up_to(200.0)
states = st.builds(ScalerState, changed_at=times, checked_at=times)


@given(policies, any_signals, states, times)
def test_the_answer_is_in_bounds_and_explained(
    policy: ScalingPolicy, signals: Signals, state: ScalerState, now: float
) -> None:
    decision = decide(policy, signals, state, now)
    assert policy.min_workers <= decision.after <= policy.max_workers
    assert decision.before == signals.workers
    assert decision.reason
    direction = (decision.after > decision.before) - (decision.after < decision.before)
    assert direction == {"up": 1, "down": -1}.get(decision.kind, 0)


@given(
    policies,
    st.lists(st.tuples(any_signals, any_signals, up_to(30.0)), min_size=1, max_size=200),
)
def test_cooldowns_hold_under_any_trace(
    policy: ScalingPolicy, trace: list[tuple[Signals, Signals, float]]
) -> None:
    workers, state, now = policy.min_workers, ScalerState(), 0.0
    changes: list[tuple[float, int]] = []
    for any_window, any_recent, elapsed in trace:
        now += elapsed
        window = evolve(any_window, workers=workers)
        recent = evolve(any_recent, workers=workers)
        decision, state = evaluate(policy, window, recent, state, now)
        if decision is not None and decision.after != workers:
            changes.append((now, decision.after - workers))
            workers = decision.after
    for (before, _), (after, step) in pairwise(changes):
        assert after - before >= (SETTINGS.cooldown_up if step > 0 else SETTINGS.cooldown_down)
        assert step >= -1
    assert len(changes) <= 1 + now / SETTINGS.cooldown_up


@st.composite
def more_and_less(draw: st.DrawFn) -> tuple[Signals, Signals]:
    one, other = draw(any_signals), draw(any_signals)
    names = ("load", "cpu", "latency", "queue", "offered")
    more = {name: max(getattr(one, name), getattr(other, name)) for name in names}
    return one, evolve(one, **more)


@given(policies, more_and_less(), states, times)
def test_more_load_never_decides_for_fewer(
    policy: ScalingPolicy, pair: tuple[Signals, Signals], state: ScalerState, now: float
) -> None:
    less, more = (decide(policy, signals, state, now) for signals in pair)
    assert less.after <= more.after


@given(policies, more_and_less(), more_and_less(), states, times)
def test_nor_at_the_moment_of_a_check_or_a_spike(
    policy: ScalingPolicy,
    windows: tuple[Signals, Signals],
    recents: tuple[Signals, Signals],
    state: ScalerState,
    now: float,
) -> None:
    workers = windows[0].workers
    after = []
    for window, recent in zip(windows, recents, strict=True):
        decision, _ = evaluate(policy, window, evolve(recent, workers=workers), state, now)
        after.append(workers if decision is None else decision.after)
    if policy.min_workers <= workers <= policy.max_workers:
        assert after[0] <= after[1]


def measured(workers: int, offered: float, backlog: float, cores: float) -> Signals:
    """Model of a pool: each worker an M/M/1 queue, a backlog while more is offered than it does."""
    share = min(offered / workers, 0.95)
    pending = share / (1 - share) + backlog / workers
    return Signals(
        workers=workers,
        load=pending / SETTINGS.frames_per_worker * 100,
        cpu=min(offered / cores, 1.0) * 100,
        latency=0.001 * (1 + pending),
        queue=round(max(pending - 1, 0) * workers),
        offered=offered,
    )


@settings(deadline=None, max_examples=50)  # an example is up to two simulated hours
@given(policies, st.lists(up_to(40.0), min_size=1, max_size=4))
def test_every_load_is_reached_left_alone_and_given_back(
    policy: ScalingPolicy, loads: list[float]
) -> None:
    workers, backlog, now, state = policy.min_workers, 0.0, 0.0, ScalerState()
    settle = round(60 * (policy.max_workers - policy.min_workers) + 120)
    for offered in [*loads, 0.0]:
        changes = 0
        for second in range(settle + 300):
            now += 1
            backlog = min(max(backlog + (offered - workers) * 100, 0.0), 1000.0)
            signals = measured(workers, offered, backlog, policy.cores)
            decision, state = evaluate(policy, signals, signals, state, now)
            if decision is not None and decision.after != workers:
                workers = decision.after
                changes += second >= settle
        assert workers >= min(offered, policy.max_workers), "reached"
        assert changes == 0, "left alone"
    assert workers == policy.min_workers, "given back"
