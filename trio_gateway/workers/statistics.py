"""What the pool knows about itself, as numbers that others may keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from trio_gateway.core.window import Summary

__all__ = ["PoolStatistics", "WorkerState", "WorkerStatistics"]

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
    """Frames given up: backlog full, stream closed."""
    late: int
    """Frames finished after their deadline."""
    deaths: int
    """Workers that ended without being asked to."""
    latency: Summary
    """Seconds from submission to result, over the window."""
    codec: Summary
    """Seconds of that inside libopus, over the window."""
    busy_s: float
    """Seconds inside libopus, all workers ever."""
    pending_frame_s: float
    """Integral of (waiting + in flight) over time: difference / elapsed is the mean."""
    waiting_frame_s: float
    """Integral of waiting over time."""
    slots: int
    slots_used: int

    @property
    def service_s(self) -> float:
        """Mean seconds inside libopus for a frame, over the window."""
        return self.codec.mean
