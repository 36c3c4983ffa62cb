"""A trace through the scaling policy, look by look, on a pool that obeys queueing theory.

The loop is closed: what the policy decides changes what it sees next. Where the trace is a
gateway's recording, the model says only what other numbers of workers would have changed; with as
many as there were, the signals are those that were measured. So the policy that was in force makes
the decisions that it made, and another one is judged by the same day.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from attrs import frozen

from trio_gateway.core.scaling import ScalerState, ScalingPolicy, Signals, evaluate
from trio_gateway.metrics.cpu import usable_cores
from trio_gateway.replay.model import FRAME, Moment, QueueingPool

if TYPE_CHECKING:
    from collections.abc import Collection

    from trio_gateway.core.scaling import Decision
    from trio_gateway.replay.trace import Measured, Span, Trace
    from trio_gateway.settings import Settings

__all__ = ["Replay", "Step", "replay"]


@frozen(kw_only=True)
class Step:
    """What was between two looks of the scaler, and what it said in the end.

    Attributes:
        span: Of the trace.
        workers: During it.
        moment: What the pool reported.
        signals: The same as the policy sees it: of this step alone, not of the window.
        decision: None when there was nothing to decide.
    """

    span: Span
    workers: int
    moment: Moment
    signals: Signals
    decision: Decision | None

    @property
    def change(self) -> Decision | None:
        """The decision, if it changed anything."""
        decision = self.decision
        return decision if decision is not None and decision.after != decision.before else None


@frozen
class Replay:
    """A trace, a policy, and what the one did with the other.

    Attributes:
        trace: The load.
        policy: What decided.
        tick: Seconds between two looks, about.
        steps: At least one, by time.
    """

    trace: Trace
    policy: ScalingPolicy
    tick: float
    steps: tuple[Step, ...]


def replay(trace: Trace, settings: Settings, *, cores: float | None = None) -> Replay:
    """Run a trace through the policy that the settings make, as `Scaler` and `Sampler` would.

    Args:
        trace: The load.
        settings: `pool`, `scaling` and `metrics` count.
        cores: That the process may use; by default the trace's, else this machine's.

    Raises:
        TraceError: The trace is too long.
    """
    policy = ScalingPolicy(
        settings=settings.scaling,
        min_workers=settings.pool.min_workers,
        max_workers=settings.pool.max_workers,
        cores=cores or trace.cores or usable_cores(),
        latency_window=settings.metrics.window,
    )
    tick = settings.metrics.interval
    pool = _Pool(trace, policy, settings)
    state = ScalerState()
    steps: list[Step] = []
    since_change: deque[tuple[Span, Moment]] = deque()
    for span in trace.spans(tick):
        moment = pool.step(span)
        since_change.append((span, moment))
        # What was measured before a change says nothing about the pool of now.
        while len(since_change) > 1 and _is_over(since_change[0][0], span, policy, tick):
            since_change.popleft()
        window = _signals(since_change, pool.workers, policy)
        recent = _signals([(span, moment)], pool.workers, policy)
        decision, state = evaluate(policy, window, recent, state, span.time)
        step = Step(
            span=span, workers=pool.workers, moment=moment, signals=recent, decision=decision
        )
        steps.append(step)
        if step.change is not None:
            pool.workers = step.change.after
            since_change.clear()
    return Replay(trace, policy, tick, tuple(steps))


def _is_over(old: Span, now: Span, policy: ScalingPolicy, tick: float) -> bool:
    """Whether a span is none of the window's; as `Sampler.last` has it."""
    return old.time <= now.time - policy.settings.window + tick / 2


def _signals(
    measured: Collection[tuple[Span, Moment]], workers: int, policy: ScalingPolicy
) -> Signals:
    """Return the scaler's signals over all of these, of which the last is the newest."""
    seconds = sum(span.elapsed for span, _ in measured)

    def mean(values: list[float]) -> float:
        pairs = zip(values, measured, strict=True)
        return sum(value * span.elapsed for value, (span, _) in pairs) / seconds

    pending = mean([moment.pending for _, moment in measured])
    *_, (last, newest) = measured
    return Signals(
        workers=workers,
        load=100 * pending / workers / policy.settings.frames_per_worker,
        cpu=mean([moment.cpu for _, moment in measured]),
        latency=newest.latency,
        queue=round(mean([moment.waiting for _, moment in measured])),
        offered=mean([span.row.offered for span, _ in measured]),
        at=last.time,
    )


class _Pool:
    """What the policy's workers do with the trace's load.

    Attributes:
        workers: May be set at any time.
    """

    def __init__(self, trace: Trace, policy: ScalingPolicy, settings: Settings) -> None:
        first = trace.rows[0].measured
        start = policy.min_workers if first is None else first.workers

        def model(cores: float) -> QueueingPool:
            return QueueingPool(
                workers=start,
                cores=cores,
                patience=settings.pool.backlog_frames * FRAME,
                window=settings.metrics.window,
            )

        self.workers = min(max(start, policy.min_workers), policy.max_workers)
        self._model = model(policy.cores)
        self._as_it_was = model(trace.cores or policy.cores)

    def step(self, span: Span) -> Moment:
        """Let a span pass."""
        row, measured = span.row, span.row.measured
        self._model.workers = self.workers
        moment = self._model.step(row.offered, row.service, span.elapsed)
        if measured is None:
            return moment
        self._as_it_was.workers = measured.workers
        was = self._as_it_was.step(row.offered, row.service, span.elapsed)
        return _carried_over(measured, self.workers, was=was, would_be=moment)


def _carried_over(measured: Measured, workers: int, *, was: Moment, would_be: Moment) -> Moment:
    """Carry over what was measured to another number of workers.

    What a model does not know (frames that come in bursts and wait for each other) is taken to
    shrink as the workers grow, for that is how long a burst takes them. The rest is the difference
    between what the model says of both numbers of workers.
    """
    share = measured.workers / workers

    def carried(was_measured: float, was_model: float, is_model: float) -> float:
        # Written so that one and the same number of workers gives what was measured, exactly.
        return max(was_measured * share + (is_model - was_model * share), 0.0)

    return Moment(
        pending=carried(measured.pending, was.pending, would_be.pending),
        waiting=carried(measured.waiting, was.waiting, would_be.waiting),
        cpu=min(max(measured.cpu + (would_be.cpu - was.cpu), 0.0), 100.0),
        latency=carried(measured.latency, was.latency, would_be.latency),
        overloaded=would_be.overloaded,
        dropped=would_be.dropped,
    )
