"""Invariant: whatever is measured, bounds and cooldowns hold, and more load is never fewer workers.

And a load that stays is reached, left alone, and given back when it ends, each within a time that
follows from the settings.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TypeAlias

from attrs import define, evolve, field
from hypothesis import example, given
from hypothesis import strategies as st

from trio_gateway.core.scaling import (
    Decision,
    ScalerState,
    ScalingPolicy,
    Signals,
    decide,
    evaluate,
)
from trio_gateway.settings import ScalingSettings


def up_to(limit: float) -> st.SearchStrategy[float]:
    return st.floats(min_value=0.0, max_value=limit)


scaling = st.builds(
    ScalingSettings,
    interval=st.integers(1, 20).map(float),
    window=st.integers(1, 20).map(float),
    cooldown_up=st.integers(0, 60).map(float),
    cooldown_down=st.integers(0, 120).map(float),
    cooldown_overload=st.integers(0, 10).map(float),
)
CORES = [0.5, 1.0, 2.0, 6.5, 64.0]


def policies_with(more: int) -> st.SearchStrategy[ScalingPolicy]:
    """Policies with at most `more` workers between their bounds."""
    return st.builds(
        lambda chosen, low, extra, cores: ScalingPolicy(
            settings=chosen,
            min_workers=low,
            max_workers=low + extra,
            cores=cores,
            latency_window=chosen.window,
        ),
        st.just(ScalingSettings()) | scaling,
        st.integers(1, 8),
        st.integers(0, more),
        st.sampled_from(CORES),
    )


policies = policies_with(24)
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
    offered=up_to(2.0),
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
    assert (decision.kind == "refused") == bool(decision.refused)
    direction = (decision.after > decision.before) - (decision.after < decision.before)
    assert direction == {"up": 1, "down": -1}.get(decision.kind, 0)


# Load just beyond the workers makes small steps up, so that many fit below the maximum; calm takes
# them back. (Window, newest sample, load beyond the workers.)
rows = st.one_of(
    st.tuples(any_signals, any_signals, st.sampled_from([0.0, 0.01, 0.2, 1.0])),
    st.tuples(quiet, quiet, st.just(-32.0)),
)
elapsed_times = up_to(5.0) | up_to(130.0)


@given(policies, st.lists(st.tuples(rows, elapsed_times), min_size=10, max_size=50))
def test_however_the_load_swings_the_changes_are_few(
    policy: ScalingPolicy, trace: list[tuple[tuple[Signals, Signals, float], float]]
) -> None:
    limit = policy.settings
    workers, state, now = policy.min_workers, ScalerState(), 0.0
    changes: list[tuple[float, Decision]] = []
    for (any_window, any_recent, beyond), elapsed in trace:
        now += elapsed
        offered = max(workers + beyond, 0.0)
        window = evolve(any_window, workers=workers, offered=min(offered, any_window.offered))
        recent = evolve(any_recent, workers=workers, offered=offered)
        decision, state = evaluate(policy, window, recent, state, now)
        if decision is not None and decision.after != workers:
            changes.append((now, decision))
            workers = decision.after
    for (before, _), (after, change) in pairwise(changes):
        seen = change.signals
        overloaded = change.before < seen.offered and change.before < policy.cores
        wait = limit.cooldown_down if change.kind == "down" else limit.cooldown_up
        if change.kind == "up" and overloaded:
            wait = min(wait, limit.cooldown_overload)
        assert after >= before + wait
    steps = [change.after - change.before for _, change in changes]
    retired, added = steps.count(-1), sum(step > 0 for step in steps)
    assert retired + added == len(steps)
    assert retired <= 1 + now / max(limit.cooldown_down, limit.interval)
    assert added <= policy.max_workers - policy.min_workers + retired


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


# The loop closed: what is decided changes what is measured.


@define
class Loop:
    """A pool as a child would draw it, looked at once a second, with signals that age.

    Each worker is an M/M/1 queue; frames of 10 ms pile up while more come than are done.
    """

    policy: ScalingPolicy
    workers: int
    backlog: float = 0.0
    now: float = 0.0
    state: ScalerState = field(factory=lambda: ScalerState(changed_at=0.0))
    changed: float = 0.0
    _seen: deque[Signals] = field(factory=deque)
    _latencies: deque[float] = field(factory=deque)

    def second(self, offered: float) -> None:
        """Let one pass, and look."""
        signals = self._measure(offered)
        span = round(self.policy.settings.window)
        self._seen.append(signals)
        self._latencies.append(signals.latency)
        while len(self._seen) > span:
            self._seen.popleft()
        while len(self._latencies) > span:
            self._latencies.popleft()
        latency = max(self._latencies)  # remembered across changes, as by the pool
        window = evolve(self._mean(), latency=latency)
        recent = evolve(signals, latency=latency)
        decision, self.state = evaluate(self.policy, window, recent, self.state, self.now)
        if decision is not None and decision.after != self.workers:
            self.workers, self.changed = decision.after, self.now
            self._seen.clear()

    def _measure(self, offered: float) -> Signals:
        self.now += 1
        self.backlog = max(self.backlog + (offered - self.workers) * 100, 0.0)
        share = min(offered / self.workers, 0.95)
        pending = share / (1 - share) + self.backlog / self.workers
        return Signals(
            workers=self.workers,
            load=pending / self.policy.settings.frames_per_worker * 100,
            cpu=min(offered, self.workers, self.policy.cores) / self.policy.cores * 100,
            latency=0.001 * (1 + pending),
            queue=round(max(pending - 1, 0) * self.workers),
            offered=offered,
        )

    def _mean(self) -> Signals:
        def mean(name: str) -> float:
            return sum(float(getattr(each, name)) for each in self._seen) / len(self._seen)

        return Signals(
            workers=self.workers,
            load=mean("load"),
            cpu=mean("cpu"),
            latency=mean("latency"),
            queue=round(mean("queue")),
            offered=mean("offered"),
        )


@st.composite
def loads(draw: st.DrawFn) -> tuple[ScalingPolicy, int, float]:
    """A policy, any number of workers within its bounds, and a load."""
    policy = draw(policies_with(6))
    workers = draw(st.integers(policy.min_workers, policy.max_workers))
    # As a share of the workers it is more often near the thresholds.
    share = up_to(1.3).map(lambda share: share * workers)
    return policy, workers, draw(up_to(20.0) | share)


Load: TypeAlias = tuple[ScalingPolicy, int, float]
# As low as a step down asks for, and yet too much for the one worker that it would leave.
TWO_WORKERS = ScalingPolicy(settings=ScalingSettings(), min_workers=1, max_workers=8, cores=64.0)
LOW_AND_TOO_MUCH = (TWO_WORKERS, 2, 0.95)


@given(loads(), up_to(10_000.0))
def test_a_load_is_reached_from_any_state(load: Load, backlog: float) -> None:
    policy, workers, offered = load
    loop = Loop(policy, workers, backlog)
    limit = loop.policy.settings
    wait = limit.cooldown_up
    if loop.workers < loop.policy.cores:
        wait = min(wait, limit.cooldown_overload)
    for _ in range(round(wait) + 1):  # one more look than the cooldown lasts
        loop.second(offered)
    assert loop.workers >= min(offered, loop.policy.max_workers)


@given(loads())
@example(LOW_AND_TOO_MUCH)
def test_a_load_that_stays_is_left_alone(load: Load) -> None:
    policy, workers, offered = load
    loop, limit = Loop(policy, workers), policy.settings
    slowest = max(limit.cooldown_up, limit.cooldown_down) + limit.interval
    settled = (policy.max_workers - policy.min_workers) * slowest + limit.window
    while loop.now < settled + 3 * slowest:
        loop.second(offered)
    assert loop.changed <= settled


@given(loads(), st.integers(0, 300))
def test_when_the_load_ends_the_workers_are_given_back(load: Load, seconds: int) -> None:
    policy, workers, offered = load
    loop = Loop(policy, workers)
    for _ in range(seconds):
        loop.second(offered)
    loop.backlog = 0.0
    limit = loop.policy.settings
    for _ in range(round(limit.window) + 1):  # until then the load that was may still add some
        loop.second(0.0)
    each = max(limit.cooldown_down, limit.window) + limit.interval
    steps = loop.workers - loop.policy.min_workers
    for _ in range(round(steps * each) + 1):
        loop.second(0.0)
    assert loop.workers == loop.policy.min_workers
