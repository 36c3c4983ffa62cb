"""One sample a second of everything that shows how the gateway does, kept for a few minutes.

Objects know their numbers (`statistics()`), the sampler pulls them, others format and send them.
Most of what it keeps are counters and integrals; what happened between two samples is their
difference, so a mean is one over the whole time and not over a few lucky moments.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import psutil
import trio
from attrs import frozen
from trio_util import periodic

from trio_gateway.core.scaling import Signals
from trio_gateway.metrics.cpu import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.workers.statistics import PoolStatistics

__all__ = [
    "ProcessUsage",
    "Sample",
    "Sampler",
    "SessionNumbers",
    "frame_rate",
    "process_usage",
    "signals_between",
]

KEPT = 300
"""Samples; a guess: five minutes for the graphs. One is about 2 KB with eight workers."""

PAUSE = 10.0
"""Seconds: a sample that is later than this tells of a machine that was suspended, not of load. A
guess: no load holds the event loop so long."""

SHORTEST = 1e-9
"""Seconds: two samples at the same moment differ by nothing, not by a division by zero."""


class SessionNumbers(Protocol):
    """What the views show of the sessions. Counters start with the gateway."""

    @property
    def active(self) -> int:
        """Sessions now."""

    @property
    def frames_up(self) -> int:
        """Frames from devices, delivered in order."""

    @property
    def frames_down(self) -> int:
        """Frames sent to devices."""

    @property
    def lost(self) -> int:
        """Frames from devices that never came."""

    @property
    def dropped(self) -> int:
        """Frames given up on our side."""


@frozen
class ProcessUsage:
    """What the operating system says of this process.

    Attributes:
        cpu_s: Seconds of CPU so far, user and system, all threads.
        rss_bytes: Memory that is resident.
    """

    cpu_s: float
    rss_bytes: int


@frozen(kw_only=True)
class Sample:
    """One moment.

    Attributes:
        time: Seconds, `trio.current_time()`.
        wall: Seconds since 1970, for display only.
        lag: Seconds that this sample came late: what the event loop made everyone else wait too.
        cpu: % of `cores`, since the sample before.
        cores: That this process may use.
        process: CPU so far, and memory.
        pool: The pool's counters.
        sessions: The sessions' counters; None without sessions.
    """

    time: float
    wall: float
    lag: float
    cpu: float
    cores: float
    process: ProcessUsage
    pool: PoolStatistics
    sessions: SessionNumbers | None


class Sampler:
    """Takes the samples and keeps the last `KEPT`.

    Args:
        pool: `WorkerPool.statistics`.
        sessions: Returns the sessions' counters.
        interval: Seconds between two samples.
        frames_per_worker: Pending frames that are 100 % load of a worker (ScalingSettings).
        cores: That this process may use; asked of the system if None.
        process: Returns CPU time and memory.
    """

    def __init__(
        self,
        pool: Callable[[], PoolStatistics],
        *,
        sessions: Callable[[], SessionNumbers] | None = None,
        interval: float = 1.0,
        frames_per_worker: float = 5.0,
        cores: float | None = None,
        process: Callable[[], ProcessUsage] | None = None,
    ) -> None:
        self.interval = interval
        self.frames_per_worker = frames_per_worker
        self.cores = usable_cores() if cores is None else cores
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._pool = pool
        self._sessions = sessions
        self._process = process or partial(process_usage, psutil.Process())

    async def run(self) -> None:
        """Take a sample every `interval`, the first at once."""
        async for _, since_last in periodic(self.interval):
            self.take(lag=0.0 if since_last is None else max(since_last - self.interval, 0.0))

    def take(self, lag: float = 0.0) -> Sample:
        """Take one sample now.

        Args:
            lag: Seconds that this is later than it should be.
        """
        now = trio.current_time()
        process = self._process()
        cpu = 0.0
        if self.samples:
            last = self.samples[-1]
            cpu = _cpu_percent(last.process, process, (now - last.time) * self.cores)
        sample = Sample(
            time=now,
            wall=time.time(),
            lag=lag,
            cpu=cpu,
            cores=self.cores,
            process=process,
            pool=self._pool(),
            sessions=None if self._sessions is None else self._sessions(),
        )
        self.samples.append(sample)
        return sample

    def last(self, span: float) -> list[Sample]:
        """Return the newest sample and those before it, back to the one of `span` seconds ago.

        Args:
            span: Seconds; 0 means back to the sample before the newest.

        Returns:
            Oldest first. Fewer than two while there are not two samples yet; otherwise the first
            and the last differ.
        """
        found: list[Sample] = []
        for sample in reversed(self.samples):
            found.append(sample)
            # Samples come a little late, never early: half an interval finds the one that is meant.
            if len(found) > 1 and sample.time <= found[0].time - span + self.interval / 2:
                break
        return found[::-1]

    def signals(self, span: float) -> Signals | None:
        """Return what the scaler looks at, over the last `span` seconds (see `last`).

        Returns:
            None while there are not two samples yet, or not since the machine was suspended: load
            that is spread over hours of sleep looks like none.
        """
        samples = self.last(span)
        since = max((i for i, sample in enumerate(samples) if sample.lag > PAUSE), default=0)
        samples = samples[since:]
        if len(samples) < 2:  # noqa: PLR2004  a difference takes two
            return None
        return signals_between(samples[0], samples[-1], frames_per_worker=self.frames_per_worker)


def process_usage(process: psutil.Process) -> ProcessUsage:
    """Ask the operating system about a process."""
    with process.oneshot():
        times = process.cpu_times()
        return ProcessUsage(times.user + times.system, process.memory_info().rss)


def signals_between(older: Sample, newer: Sample, *, frames_per_worker: float) -> Signals:
    """Return the scaler's signals over the time between two samples.

    The offered load counts frames as they arrive and not as they finish, so it is right in
    overload too, when the two differ. The latency is the maximum over the pool's own window.
    """
    before, after = older.pool, newer.pool
    elapsed = max(newer.time - older.time, SHORTEST)
    pending = (after.pending_frame_s - before.pending_frame_s) / elapsed
    waiting = (after.waiting_frame_s - before.waiting_frame_s) / elapsed
    finished = after.frames - before.frames
    service = (after.busy_s - before.busy_s) / finished if finished else after.service_s
    return Signals(
        workers=after.target,
        load=100 * pending / max(after.target, 1) / frames_per_worker,
        cpu=_cpu_percent(older.process, newer.process, elapsed * newer.cores),
        latency=after.latency.max,
        queue=max(round(waiting), 0),
        offered=max(_arrived(after) - _arrived(before), 0) * service / elapsed,
        at=newer.time,
    )


def frame_rate(older: Sample, newer: Sample) -> float:
    """Return the frames/s that the pool finished between two samples."""
    return (newer.pool.frames - older.pool.frames) / max(newer.time - older.time, SHORTEST)


def _arrived(pool: PoolStatistics) -> int:
    """Return the frames that ever came: wherever they are now."""
    return pool.frames + pool.waiting + pool.in_flight + pool.dropped


def _cpu_percent(before: ProcessUsage, after: ProcessUsage, available: float) -> float:
    """Return the share of `available` CPU seconds that was used, in %.

    At most 100: the kernel counts in ticks of 10 ms, and a tick can fall into the wrong second.
    """
    if available <= 0:
        return 0.0
    return min(100 * (after.cpu_s - before.cpu_s) / available, 100.0)
