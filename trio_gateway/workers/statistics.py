"""What the pool knows about itself, as numbers that others may keep."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from trio_gateway.core.window import Summary, Window

__all__ = ["Counters", "PoolStatistics", "WorkerState", "WorkerStatistics"]

WorkerState = Literal["starting", "ready", "draining"]


@frozen(kw_only=True)
class WorkerStatistics:
    """One worker. Counters start with the worker."""

    name: str
    kind: str
    state: WorkerState
    in_flight: int
    """Tickets that it holds."""
    frames: int
    """Tickets that it finished."""
    busy_s: float
    """Seconds inside libopus."""


@frozen(kw_only=True)
class PoolStatistics:
    """The pool. Counters start with the pool and never go back."""

    kind: str
    workers: tuple[WorkerStatistics, ...]
    target: int
    """Workers that there should be; draining ones are beyond it."""
    streams: int
    """Streams that are open."""
    waiting: int
    """Frames that no worker holds yet."""
    in_flight: int
    """Frames that a worker holds."""
    frames: int
    """Frames finished: decoded + encoded + concealed + failed."""
    decoded: int
    encoded: int
    concealed: int
    """Lost frames that libopus filled in, and frames lost with a worker."""
    failed: int
    """Frames that libopus refused."""
    dropped: int
    """Frames given up: backlog full, stream closed, caller cancelled, two workers lost over it."""
    late: int
    """Frames finished after their deadline."""
    deaths: int
    """Workers that ended without having been asked to, or hung."""
    hanging: int = 0
    """Threads that were given up and have not returned: they may burn a core, and hold slots."""
    latency: Summary
    """Seconds from submission to result, over the window."""
    codec: Summary
    """Seconds of that inside libopus, over the window."""
    busy_s: float
    """Seconds inside libopus, all workers ever."""
    pending_frame_s: float
    """Integral of (waiting + in flight) over time: difference / elapsed is the mean."""
    waiting_frame_s: float
    """Integral of the frames that no worker is at work on over time: pending_frame_s - busy_s.

    Frames that a worker holds behind another one wait as much as those that none has yet.
    """
    slots: int
    slots_used: int

    @property
    def service_s(self) -> float:
        """Mean seconds inside libopus for a frame, over the window."""
        return self.codec.mean


class Counters:
    """What the dispatcher counts as it goes; PoolStatistics says what each number means.

    Args:
        window: Seconds that durations are remembered.
        now: Seconds.
    """

    def __init__(self, window: float, now: float) -> None:
        self.waiting = 0
        self.in_flight = 0
        self.decoded = 0
        self.encoded = 0
        self.concealed = 0
        self.failed = 0
        self.dropped = 0
        self.late = 0
        self.busy_s = 0.0
        self.pending_frame_s = 0.0
        self.latency = Window(window)
        self.codec = Window(window)
        self._latencies: list[float] = []
        self._codecs: list[float] = []
        self._counted_at = now

    @property
    def waiting_frame_s(self) -> float:
        """See PoolStatistics."""
        return max(self.pending_frame_s - self.busy_s, 0.0)

    def until(self, now: float) -> None:
        """Bring the integrals up to `now`: to be called before `waiting` or `in_flight` change."""
        elapsed = now - self._counted_at
        self._counted_at = now
        self.pending_frame_s += elapsed * (self.waiting + self.in_flight)

    def took(self, latency: float, codec_s: float) -> None:
        """Record a frame that a worker has finished: its seconds in the pool, and in libopus."""
        self.in_flight -= 1
        self.busy_s += codec_s
        self._latencies.append(latency)
        self._codecs.append(codec_s)

    def settle(self, now: float) -> None:
        """Put what was recorded into the windows: to be called when a batch is over."""
        if self._latencies:
            self.latency.extend(self._latencies, now)
            self.codec.extend(self._codecs, now)
            self._latencies.clear()
            self._codecs.clear()
