"""The arithmetic: what one measurement comes to, and what several of them do.

Rule 1: a ratio is taken inside a round, between measurements a few seconds apart, and the median of
the rounds' ratios is what is shown. On a machine that others use too, the ratio of two medians is
worth less: the one may come from quiet rounds and the other from noisy ones.
"""

from __future__ import annotations

from math import ceil
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from attrs import asdict, fields, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Figures", "Run", "figures", "medians", "merged", "percentile", "quotients"]

_LEAST = 1e-9
"""Divisors are at least this: below what any clock shows, in any of the units."""


@frozen(kw_only=True, eq=False)
class Run:
    """What was seen of one configuration in one round.

    Attributes:
        frames: Finished.
        elapsed: Seconds that took.
        cpu: CPU seconds of the whole process in that time, without those burnt to look busy.
        latencies: Seconds of each, shape (frames,).
        jitter: Their standard deviation, seconds.
        codec: Mean seconds inside libopus as the workers measured them; None where none did.
        busy: Share of the Trio thread that was burnt; 0 to 1.
    """

    frames: int
    elapsed: float
    cpu: float
    latencies: NDArray[np.float64]
    jitter: float
    codec: float | None = None
    busy: float = 0.0

    @classmethod
    def of(cls, seconds: ArrayLike, *, elapsed: float, cpu: float, busy: float = 0.0) -> Run:
        """The run in which frames took these seconds each."""
        latencies = np.asarray(seconds, np.float64)
        return cls(
            frames=len(latencies),
            elapsed=elapsed,
            cpu=cpu,
            latencies=latencies,
            jitter=float(latencies.std()),
            busy=busy,
        )


@frozen(kw_only=True)
class Figures:
    """A run in numbers; or what they are divided by others, which has no unit."""

    fps: float
    """Frames a second."""
    cpu_us: float
    """Microseconds of CPU for a frame, all threads."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    jitter_ms: float
    """Standard deviation of the latency."""


def figures(run: Run) -> Figures:
    """Return what a run comes to."""
    ordered = np.sort(run.latencies)
    return Figures(
        fps=run.frames / run.elapsed,
        cpu_us=run.cpu / run.frames * 1e6,
        p50_ms=percentile(ordered, 50) * 1e3,
        p99_ms=percentile(ordered, 99) * 1e3,
        max_ms=float(ordered[-1]) * 1e3,
        jitter_ms=run.jitter * 1e3,
    )


def percentile(ordered: NDArray[np.float64], percent: float) -> float:
    """The value that `percent` % of the values do not exceed, by nearest rank.

    Args:
        ordered: Ascending, not empty.
        percent: Above 0, at most 100.
    """
    return float(ordered[ceil(len(ordered) * percent / 100) - 1])


def quotients(values: Figures, bases: Figures) -> Figures:
    """Divide each figure by its counterpart."""
    base = asdict(bases)
    return Figures(**{k: value / max(base[k], _LEAST) for k, value in asdict(values).items()})


def medians(rounds: Iterable[Figures]) -> Figures:
    """The median of each figure, for itself."""
    every = list(rounds)
    names = (field.name for field in fields(Figures))
    return Figures(**{name: median(getattr(each, name) for each in every) for name in names})


def merged(runs: Sequence[Run]) -> Run:
    """Several runs as one, for what happens too seldom to be judged round by round."""
    return Run.of(
        np.concatenate([run.latencies for run in runs]),
        elapsed=sum(run.elapsed for run in runs),
        cpu=sum(run.cpu for run in runs),
    )
