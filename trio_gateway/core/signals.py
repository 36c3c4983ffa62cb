"""What the scaling policy is told, and what it says: records, and nothing that decides."""

from __future__ import annotations

from math import inf
from typing import Literal

from attrs import frozen

__all__ = ["Decision", "ScalingEvent", "Signals"]


@frozen(kw_only=True)
class Signals:
    """What was measured over some span of time.

    Attributes:
        workers: That there should be now (PoolStatistics.target).
        load: %; mean frames pending per worker / `frames_per_worker`.
        cpu: % of the cores that this process may use.
        latency: Seconds; the slowest frame's way through the pool.
        queue: Frames that no worker is at work on; mean, rounded.
        offered: Load in workers: arrival rate x service time.
        at: Seconds; when the span ended. inf = now.
    """

    workers: int
    load: float
    cpu: float
    latency: float
    queue: int
    offered: float
    at: float = inf


@frozen(kw_only=True)
class Decision:
    """An answer and why.

    Attributes:
        kind: "refused" = the signals ask for a change that a rule forbids.
        before: Workers.
        after: Workers that there should be.
        reason: For people: "load 85 % > 70 %".
        signals: What it was decided on.
        refused: What was asked for and what forbids it, without a number: the same as long as a
            refusal stays the same. "" if nothing was refused.
    """

    kind: Literal["up", "down", "hold", "refused"]
    before: int
    after: int
    reason: str
    signals: Signals
    refused: str = ""


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
