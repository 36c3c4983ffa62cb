"""How many workers there should be: a pure function of what was measured.

Rule 1: the answer is within the policy's bounds, whatever was measured.
Rule 2: after a change nothing is retired for `cooldown_down` and nothing added for `cooldown_up`;
    for `cooldown_overload` only, where more is offered than the workers can do and a core is free
    for one more. Bounds that an operator moved are obeyed at once.
Rule 3: more load never yields fewer workers.
Rule 4: a worker is retired only if the rest can carry what is offered, or the step down would
    call for the step up that undoes it.

Any one signal above its threshold adds workers; all of them below theirs retire one. A step up is
as large as the offered load asks for (arrival rate x service time = the workers it keeps busy;
Erlang's unit), so a spike is absorbed in one step. A step down is one worker: retiring too slowly
costs a little memory, retiring too fast costs latency.

So however a load swings, the changes of T seconds are bounded. One in `cooldown_down` retires one
worker, and one that adds some ends at the maximum at the latest:

    retired <= 1 + T / cooldown_down        added <= (max_workers - min_workers) + retired

A load beyond the workers is met within the cooldown and one look. When a load ends, the minimum is
reached within `window` + (workers - min_workers) * (cooldown_down + interval), if the cooldown is
longer than the window.

The short cooldown is for what no step could be sized by: a jump that the newest sample saw a part
of, a load that goes on growing. It cannot make the pool swing, because the offered load does not
depend on the workers; beyond the cores it would, for workers that take turns are slower.

What runs this every second is `scaler.py`; what replays a recorded trace needs only `evaluate`.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from trio_gateway.core.signals import Decision, ScalingEvent, Signals

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

FORGOTTEN = 1.1
"""Windows after which a latency is surely forgotten (window.py, rule 1)."""


@frozen(kw_only=True)
class ScalingPolicy:
    """The thresholds and the bounds.

    Attributes:
        settings: Thresholds, cooldowns, times.
        min_workers: Never fewer.
        max_workers: Never more.
        cores: CPU cores that this process may use; 1.5 is a valid share.
        latency_window: Seconds that the pool's latencies look back.
    """

    settings: ScalingSettings
    min_workers: int
    max_workers: int = field()
    cores: float
    latency_window: float = 10.0

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

    def overloads(self, signals: Signals) -> bool:
        """Whether more comes than the workers can do, and another one could do some of it."""
        return signals.offered > signals.workers and signals.workers < self.cores


@frozen(kw_only=True)
class ScalerState:
    """What a decision needs to know of earlier ones.

    Attributes:
        changed_at: Seconds; end of the last change.
        checked_at: Seconds; the last regular check.
    """

    changed_at: float = -inf
    checked_at: float = -inf


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
        at=other.at,
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
    age = now - state.changed_at
    if signals.latency > limit.latency_up and age >= policy.latency_window * FORGOTTEN:
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
    asked = f"would scale up ({because})"
    cores = ceil(policy.cores)
    limit, full = policy.max_workers, f"already at the maximum of {policy.max_workers}"
    if set(high) == {"cpu"} and cores < limit:  # a worker without a core only takes turns
        limit, full = cores, f"{cores} cores have their workers"
    if workers >= limit:
        return _refuse(signals, f"{asked}, {full}", "up: limit")
    cooldown = policy.settings.cooldown_up
    needed = policy.workers_for(signals.offered)
    if needed > workers + 1:
        because = f"{because}; {signals.offered:.1f} workers of load need {needed}"
    if policy.overloads(signals) and policy.settings.cooldown_overload < cooldown:
        if now - changed_at < cooldown:
            because = f"{because}; overloaded, which cuts the cooldown short"
        cooldown = policy.settings.cooldown_overload
    wait = changed_at + cooldown - now
    if wait > 0:
        return _refuse(signals, f"{asked}, cooldown {ceil(wait)} s left", "up: cooldown")
    return _answer(signals, "up", min(max(workers + 1, needed), limit), because)


def _shrink(
    policy: ScalingPolicy, signals: Signals, low: str, changed_at: float, now: float
) -> Decision:
    workers = signals.workers
    if workers == policy.min_workers:
        return _answer(signals, "hold", workers, f"idle at the minimum of {workers}")
    needed = policy.workers_for(signals.offered)
    if needed >= workers:
        why = f"{signals.offered:.1f} workers of load need {needed}"
        return _refuse(signals, f"would scale down, {why}", "down: needed")
    wait = changed_at + policy.settings.cooldown_down - now
    if wait > 0:
        why = f"cooldown {ceil(wait)} s left"
        return _refuse(signals, f"would scale down, {why}", "down: cooldown")
    return _answer(signals, "down", workers - 1, low)


def _answer(
    signals: Signals, kind: Literal["up", "down", "hold"], after: int, reason: str
) -> Decision:
    return Decision(kind=kind, before=signals.workers, after=after, reason=reason, signals=signals)


def _refuse(signals: Signals, reason: str, refused: str) -> Decision:
    return Decision(
        kind="refused",
        before=signals.workers,
        after=signals.workers,
        reason=reason,
        signals=signals,
        refused=refused,
    )


def _plain(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _ms(seconds: float) -> str:
    return f"{_plain(seconds * 1000)} ms"
