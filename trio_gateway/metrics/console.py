"""The readable block for the log: how the gateway did since the last one."""

from __future__ import annotations

from time import localtime, strftime
from typing import TYPE_CHECKING

import structlog
from trio_util import periodic

from trio_gateway.metrics.sampler import frame_rate, signals_between
from trio_gateway.metrics.units import megabytes, milliseconds, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trio_gateway.core.scaling import ScalingEvent, ScalingPolicy, Signals
    from trio_gateway.metrics.sampler import Sample, Sampler

__all__ = ["event_line", "run_console", "status_block"]

log = structlog.get_logger(__name__)


async def run_console(
    sampler: Sampler,
    *,
    policy: Callable[[], ScalingPolicy],
    events: Iterable[ScalingEvent],
    interval: float = 30.0,
    write: Callable[[str], object] | None = None,
) -> None:
    """Write a block every `interval`, until cancelled.

    Args:
        sampler: Where the numbers are.
        policy: Returns the policy in force.
        events: `Scaler.events`.
        interval: Seconds.
        write: Takes a block; the log if None.
    """
    async for _, since_last in periodic(interval):
        samples = sampler.last(interval)
        if since_last is None or len(samples) < 2:  # noqa: PLR2004  nothing to compare yet
            continue
        recent = [event for event in events if event.time > samples[0].time]
        block = status_block(samples, policy=policy(), events=recent)
        (write or log.info)(block)


def status_block(
    samples: Sequence[Sample], *, policy: ScalingPolicy, events: Iterable[ScalingEvent]
) -> str:
    """Return what happened from the first sample to the last, in about eight lines for people.

    Args:
        samples: At least two, oldest first.
        policy: In force.
        events: Changes to list, oldest first.
    """
    older, newer = samples[0], samples[-1]
    signals = signals_between(older, newer, frames_per_worker=policy.settings.frames_per_worker)
    lines = [
        ("workers", _workers(newer, signals, policy)),
        ("frames", _frames(older, newer)),
        ("latency", _latency(newer)),
        ("sessions", _sessions(older, newer)),
        ("process", _process(samples, signals)),
        ("errors", _errors(older, newer)),
        *(("scaled", event_line(event)) for event in events),
    ]
    title = f"the last {newer.time - older.time:.0f} s"
    return "\n".join([title, *(f"  {name:<9} {text}" for name, text in lines if text)])


def event_line(event: ScalingEvent) -> str:
    """Return a change as one line: "14:03:11  2 -> 6  load 85 % > 70 %"."""
    clock = strftime("%H:%M:%S", localtime(event.wall))
    return f"{clock}  {event.before} -> {event.after}  {event.reason}"


def _workers(newer: Sample, signals: Signals, policy: ScalingPolicy) -> str:
    pending = signals.load / 100 * policy.settings.frames_per_worker
    ready = sum(worker.state == "ready" for worker in newer.pool.workers)
    return (
        f"{ready} of {policy.min_workers} to {policy.max_workers} ({newer.pool.kind}), "
        f"load {signals.load:.0f} % ({pending:.1f} frames pending per worker), "
        f"queue {signals.queue}"
    )


def _frames(older: Sample, newer: Sample) -> str:
    before, after = older.pool, newer.pool
    return (
        f"{after.frames - before.frames:,} ({rate(frame_rate(older, newer))}): "
        f"{after.decoded - before.decoded:,} decoded, {after.encoded - before.encoded:,} encoded, "
        f"{after.concealed - before.concealed:,} concealed; {after.frames:,} in all"
    )


def _latency(newer: Sample) -> str:
    latency, codec = newer.pool.latency, newer.pool.codec
    if not latency.count:
        return "no frames"
    quantiles = (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    return (
        ", ".join(f"{name} {milliseconds(value)}" for name, value in quantiles)
        + f", max {milliseconds(latency.max)} (codec p50 {milliseconds(codec.p50)})"
    )


def _sessions(older: Sample, newer: Sample) -> str:
    before, after = older.sessions, newer.sessions
    if before is None or after is None:
        return ""
    return (
        f"{after.active} active; {after.frames_up - before.frames_up:,} frames up, "
        f"{after.frames_down - before.frames_down:,} down, "
        f"{after.lost - before.lost:,} lost, {after.dropped - before.dropped:,} dropped"
    )


def _process(samples: Sequence[Sample], signals: Signals) -> str:
    newer = samples[-1]
    lag = max(sample.lag for sample in samples[1:])
    return (
        f"CPU {signals.cpu:.0f} % of {newer.cores:g} cores, "
        f"memory {megabytes(newer.process.rss_bytes)}, "
        f"event loop at most {milliseconds(lag)} late"
    )


def _errors(older: Sample, newer: Sample) -> str:
    before, after = older.pool, newer.pool
    return (
        f"{after.failed - before.failed} frames refused by the codec, "
        f"{after.dropped - before.dropped} dropped, {after.late - before.late} late, "
        f"{after.deaths - before.deaths} workers died"
    )
