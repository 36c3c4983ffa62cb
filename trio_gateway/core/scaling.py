"""How many workers there should be: a pure function of what was measured.

Rule 1: the answer is within the policy's bounds, whatever was measured.
Rule 2: after a change nothing is added for `cooldown_up` and nothing retired for `cooldown_down`.
    Only bounds that an operator moved are obeyed at once.
Rule 3: more load never yields fewer workers.
Rule 4: a worker is retired only if the rest can carry what is offered, or the step down would
    call for the step up that undoes it.

Any one signal above its threshold adds workers; all of them below theirs retire one. A step up is
as large as the offered load asks for (arrival rate x service time = the workers it keeps busy;
Erlang's unit), so a spike is absorbed in one step. A step down is one worker: retiring too slowly
costs a little memory, retiring too fast costs latency.

What runs this every second is `scaler.py`; what replays a recorded trace needs only `evaluate`.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from attrs import Attribute

    from trio_gateway.settings import ScalingSettings

__all__ = [
    "Decision",
    "ScalerState",
    "ScalingEvent",
    "ScalingPolicy",
    "Signals",
    "decide",
    "evaluate",
]


@frozen(kw_only=True)
class ScalingPolicy:
    """The thresholds and the bounds.

    Attributes:
        settings: Thresholds, cooldowns, times.
        min_workers: Never fewer.
        max_workers: Never more.
        cores: CPU cores that this process may use; 1.5 is a valid share.
    """

    settings: ScalingSettings
    min_workers: int
    max_workers: int = field()
    cores: float

    @max_workers.validator
    def _bounds(self, _attribute: Attribute[int], value: int) -> None:
        if not 1 <= self.min_workers <= value:
            raise ValueError(f"bad bounds for workers: {self.min_workers} to {value}")

    def workers_for(self, offered: float) -> int:
        """Return how many workers keep their utilisation at or below `load_up`.

        Args:
            offered: Load in workers (Signals.offered).
        """
        utilisation = min(self.settings.load_up / 100, 1.0)
        return ceil(offered / utilisation - 1e-9)  # 1.4 / 0.7 is 2.0000000000000004


@frozen(kw_only=True)
class Signals:
    """What was measured over some span of time.

    Attributes:
        workers: That there should be now (PoolStatistics.target).
        load: %; mean frames pending per worker / `frames_per_worker`.
        cpu: % of the cores that this process may use.
        latency: Seconds; the slowest frame's way through the pool.
        queue: Frames without a worker; mean, rounded.
        offered: Load in workers: arrival rate x service time.
    """

    workers: int
    load: float
    cpu: float
    latency: float
    queue: int
    offered: float


@frozen(kw_only=True)
class ScalerState:
    """What a decision needs to know of earlier ones.

    Attributes:
        changed_at: Seconds; end of the last change.
        checked_at: Seconds; the last regular check.
    """

    changed_at: float = -inf
    checked_at: float = -inf


@frozen(kw_only=True)
class Decision:
    """An answer and why.

    Attributes:
        kind: "refused" = the signals ask for a change that a rule forbids.
        before: Workers.
        after: Workers that there should be.
        reason: For people: "load 85 % > 70 %".
        signals: What it was decided on.
    """

    kind: Literal["up", "down", "hold", "refused"]
    before: int
    after: int
    reason: str
    signals: Signals


@frozen(kw_only=True)
class ScalingEvent:
    """A change that was made.

    Attributes:
        time: Seconds on the monotonic clock.
        wall: Seconds since 1970, for display.
        before: Workers.
        after: Workers.
        reason: In words.
        signals: What it was decided on.
    """

    time: float
    wall: float
    before: int
    after: int
    reason: str
    signals: Signals


def evaluate(
    policy: ScalingPolicy, window: Signals, recent: Signals, state: ScalerState, now: float
) -> tuple[Decision | None, ScalerState]:
    """Decide if it is time to: at a regular check, or at once when a spike begins.

    A spike is sized by `recent` where that is higher: a mean over the whole window would size the
    step by the calm before it.

    Args:
        policy: What to hold to.
        window: Measured over `settings.window`.
        recent: Measured over the last sample.
        state: From the last call.
        now: Seconds.

    Returns:
        The decision, or None when there is nothing to decide; and the state for the next call, in
        which a change counts as done at `now`.
    """
    if _spikes(policy, recent, state, now):
        decision = decide(policy, _higher(window, recent), state, now)
        decision = evolve(decision, reason=f"spike: {decision.reason}")
    elif now - state.checked_at >= policy.settings.interval:
        decision = decide(policy, window, state, now)
        state = evolve(state, checked_at=now)
    else:
        return None, state
    if decision.after != decision.before:
        state = evolve(state, changed_at=now)
    return decision, state


def decide(policy: ScalingPolicy, signals: Signals, state: ScalerState, now: float) -> Decision:
    """Return how many workers there should be.

    Args:
        policy: What to hold to.
        signals: What was measured.
        state: What came before.
        now: Seconds; the clock of `state`.
    """
    workers = signals.workers
    bounded = min(max(workers, policy.min_workers), policy.max_workers)
    if bounded != workers:  # an operator moved the bounds: not a matter of load or cooldowns
        reason = f"the bounds are {policy.min_workers} to {policy.max_workers}"
        return _answer(signals, "up" if bounded > workers else "down", bounded, reason)
    high = _high(policy, signals, state, now)
    if high:
        return _grow(policy, signals, high, state.changed_at, now)
    low = _low(policy, signals)
    if low:
        return _shrink(policy, signals, low, state.changed_at, now)
    return _answer(signals, "hold", workers, "between the thresholds")


def _spikes(policy: ScalingPolicy, recent: Signals, state: ScalerState, now: float) -> bool:
    """Whether to decide before the next check: frames wait, or one came late."""
    high = _high(policy, recent, state, now)
    return "queue" in high or "latency" in high


def _higher(one: Signals, other: Signals) -> Signals:
    """Return the higher of each signal: with either set alone, `evaluate` would break rule 3."""
    return Signals(
        workers=other.workers,
        load=max(one.load, other.load),
        cpu=max(one.cpu, other.cpu),
        latency=max(one.latency, other.latency),
        queue=max(one.queue, other.queue),
        offered=max(one.offered, other.offered),
    )


def _high(
    policy: ScalingPolicy, signals: Signals, state: ScalerState, now: float
) -> dict[str, str]:
    """Return the signals that ask for more workers, each in words."""
    limit = policy.settings
    high = {}
    if signals.load > limit.load_up:
        high["load"] = f"load {_plain(signals.load)} % > {_plain(limit.load_up)} %"
    if signals.cpu > limit.cpu_up:
        high["cpu"] = f"CPU {_plain(signals.cpu)} % > {_plain(limit.cpu_up)} %"
    # A maximum lives for the whole window: one from before the last change says nothing about the
    # pool of now. Matters where the cooldown is shorter than the window.
    if signals.latency > limit.latency_up and now - state.changed_at >= limit.window:
        high["latency"] = f"latency {_ms(signals.latency)} > {_ms(limit.latency_up)}"
    queue_up = limit.queue_per_worker_up * signals.workers
    if signals.queue > queue_up:
        high["queue"] = f"queue {signals.queue} > {_plain(queue_up)}"
    return high


def _low(policy: ScalingPolicy, signals: Signals) -> str:
    """Return in words that every signal asks for fewer workers, or "" when one does not."""
    limit = policy.settings
    if not (
        signals.load < limit.load_down
        and signals.cpu < limit.cpu_down
        and signals.latency < limit.latency_down
        and signals.queue == 0
    ):
        return ""
    return (
        f"load {_plain(signals.load)} % < {_plain(limit.load_down)} %, "
        f"CPU {_plain(signals.cpu)} % < {_plain(limit.cpu_down)} %, "
        f"latency {_ms(signals.latency)} < {_ms(limit.latency_down)}, queue empty"
    )


def _grow(
    policy: ScalingPolicy, signals: Signals, high: dict[str, str], changed_at: float, now: float
) -> Decision:
    workers = signals.workers
    because = ", ".join(high.values())
    needed = policy.workers_for(signals.offered)
    limit = policy.max_workers
    why_limited = f"already at the maximum of {limit}"
    cores = ceil(policy.cores)
    if set(high) == {"cpu"} and cores < limit:  # a worker without a core only takes turns
        limit = cores
        why_limited = f"{cores} cores have their workers"
    if workers >= limit:
        return _answer(signals, "refused", workers, f"would scale up ({because}), {why_limited}")
    wait = changed_at + policy.settings.cooldown_up - now
    if wait > 0:
        reason = f"would scale up ({because}), cooldown {ceil(wait)} s left"
        return _answer(signals, "refused", workers, reason)
    if needed > workers + 1:
        because = f"{because}; {signals.offered:.1f} workers of load need {needed}"
    return _answer(signals, "up", min(max(workers + 1, needed), limit), because)


def _shrink(
    policy: ScalingPolicy, signals: Signals, low: str, changed_at: float, now: float
) -> Decision:
    workers = signals.workers
    if workers == policy.min_workers:
        return _answer(signals, "hold", workers, f"idle at the minimum of {workers}")
    needed = policy.workers_for(signals.offered)
    if needed >= workers:
        reason = f"would scale down, {signals.offered:.1f} workers of load need {needed}"
        return _answer(signals, "refused", workers, reason)
    wait = changed_at + policy.settings.cooldown_down - now
    if wait > 0:
        reason = f"would scale down, cooldown {ceil(wait)} s left"
        return _answer(signals, "refused", workers, reason)
    return _answer(signals, "down", workers - 1, low)


def _answer(
    signals: Signals, kind: Literal["up", "down", "hold", "refused"], after: int, reason: str
) -> Decision:
    return Decision(kind=kind, before=signals.workers, after=after, reason=reason, signals=signals)


def _plain(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _ms(seconds: float) -> str:
    return f"{_plain(seconds * 1000)} ms"
