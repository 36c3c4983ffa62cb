"""Samples for the tests of what measures and shows: everything zero unless said."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from trio_gateway.core.scaling import ScalingEvent, ScalingPolicy, Signals
from trio_gateway.core.window import Summary
from trio_gateway.metrics.sampler import ProcessUsage, Sample
from trio_gateway.settings import ScalingSettings
from trio_gateway.workers.statistics import PoolStatistics, WorkerState, WorkerStatistics

POLICY = ScalingPolicy(settings=ScalingSettings(), min_workers=2, max_workers=8, cores=2)

SIGNALS = Signals(workers=2, load=85.0, cpu=10.0, latency=0.001, queue=0, offered=1.0)

NOON = 1_700_000_000.0
"""Seconds since 1970."""


@frozen(kw_only=True)
class FakeSessions:
    active: int = 0
    frames_up: int = 0
    frames_down: int = 0
    lost: int = 0
    dropped: int = 0


def a_worker(
    number: int, *, busy_s: float = 0.0, frames: int = 0, state: WorkerState = "ready"
) -> WorkerStatistics:
    return WorkerStatistics(
        name=f"thread-{number}",
        kind="thread",
        state=state,
        in_flight=1,
        frames=frames,
        busy_s=busy_s,
    )


EMPTY_POOL = PoolStatistics(
    kind="thread",
    workers=(a_worker(1), a_worker(2)),
    target=2,
    streams=0,
    waiting=0,
    in_flight=0,
    frames=0,
    decoded=0,
    encoded=0,
    concealed=0,
    failed=0,
    dropped=0,
    late=0,
    deaths=0,
    latency=Summary(),
    codec=Summary(),
    busy_s=0.0,
    pending_frame_s=0.0,
    waiting_frame_s=0.0,
    slots=1024,
    slots_used=0,
)


def a_pool(**changes: Any) -> PoolStatistics:
    return evolve(EMPTY_POOL, **changes)


def a_sample(
    time: float = 0.0,
    pool: PoolStatistics = EMPTY_POOL,
    *,
    cpu_s: float = 0.0,
    cpu: float = 0.0,
    lag: float = 0.0,
    sessions: FakeSessions | None = None,
) -> Sample:
    return Sample(
        time=time,
        wall=NOON + time,
        lag=lag,
        cpu=cpu,
        cores=2.0,
        process=ProcessUsage(cpu_s, 50 * 2**20),
        pool=pool,
        sessions=sessions,
    )


def an_event(time: float, before: int, after: int, reason: str) -> ScalingEvent:
    return ScalingEvent(
        time=time, wall=NOON + time, before=before, after=after, reason=reason, signals=SIGNALS
    )
