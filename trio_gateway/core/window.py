"""What a duration was lately: mean, percentiles and maximum over a window that slides.

Rule 1: a value counts for at least `span` seconds and is forgotten after `span + span / slices`.
A window that never forgets its maximum keeps adding workers for one slow frame of an hour ago.

Rule 2: a percentile is within 2 % of the exact one, or about 1 us where that is shorter; count,
mean and maximum are exact.

How: the span is cut into slices that expire whole. A slice counts values in geometric bins, as
DDSketch does (Masson, Rim and Lee, VLDB 2019): bin i holds (FLOOR * g**i, FLOOR * g**(i + 1)]
with g = (1 + e) / (1 - e), so the point 2 * FLOOR * g**(i + 1) / (1 + g) is within the relative
error e of everything in the bin. 1 us to 10 s makes 403 bins. Values are put into their bins by
the thousand: a logarithm for each as it comes would be the dearest step of a frame's accounting.
"""

from __future__ import annotations

from collections import deque
from math import log
from typing import TYPE_CHECKING

import numpy as np
from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["RELATIVE_ERROR", "Summary", "Window"]

RELATIVE_ERROR = 0.02
"""Of a percentile. Finer than anyone reads a latency, and one bin more costs little."""

FLOOR = 1e-6
"""Seconds. A shorter time counts as this one; the pool's cheapest step costs more."""

GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
BINS_PER_E = 1 / log(GROWTH)

UNSORTED = 1024
"""Values that a slice keeps before they go into bins: 20 us of numpy, 32 KiB of floats."""


@frozen
class Summary:
    """The values of a window. Everything is 0 when there are none.

    Attributes:
        count: Values.
        mean: Seconds.
        p50: Seconds; half of the values were at most this (nearest rank).
        p95: Seconds.
        p99: Seconds.
        max: Seconds.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def _no_bins() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@define
class _Slice:
    """What came within one slice of the span."""

    end: float
    """The first moment that belongs to the next slice."""
    unsorted: list[float] = field(factory=list)
    bins: NDArray[np.int64] = field(factory=_no_bins)
    total: float = 0.0
    maximum: float = 0.0

    def sort(self) -> None:
        """Put the values into their bins."""
        if not self.unsorted:
            return
        values = np.maximum(self.unsorted, 0.0)
        self.unsorted.clear()
        self.total += float(values.sum())
        self.maximum = max(self.maximum, float(values.max()))
        # No bin below the first: truncation would mix those on both sides of FLOOR.
        exponents = np.log(np.maximum(values, FLOOR) / FLOOR) * BINS_PER_E
        self.bins = _sum([self.bins, np.bincount(exponents.astype(np.int64))])


class Window:
    """A sliding window over durations. Memory is bounded.

    Args:
        span: Seconds that a value counts.
        slices: Parts of the span. More of them forget more exactly and cost memory; 10 forget
            within a tenth of the span.

    `now` is any clock in seconds that does not run backwards, the same in every call.
    """

    def __init__(self, span: float, slices: int = 10) -> None:
        if not (span > 0 and slices > 0):
            raise ValueError(f"a window needs a span and slices above 0, not {span} and {slices}")
        self._span = span
        self._width = span / slices
        self._slices: deque[_Slice] = deque()
        self._current = _Slice(end=float("-inf"))  # expired: the first record opens a real one

    @property
    def span(self) -> float:
        """Seconds that a value counts."""
        return self._span

    def record(self, value: float, now: float) -> None:
        """Count one duration.

        Args:
            value: Seconds, finite. Below 0 counts as 0.
            now: Seconds.
        """
        self.extend((value,), now)

    def extend(self, values: Iterable[float], now: float) -> None:
        """Count some that came at once. For one of many it costs a tenth of `record`."""
        current = self._current
        if now >= current.end:
            current = self._open(now)
        current.unsorted.extend(values)
        if len(current.unsorted) >= UNSORTED:
            current.sort()

    def summary(self, now: float) -> Summary:
        """Return what the values of the last `span` seconds come to.

        Args:
            now: Seconds.
        """
        self._expire(now)
        for part in self._slices:
            part.sort()
        bins = _sum([part.bins for part in self._slices])
        count = int(bins.sum())
        if not count:
            return Summary()
        maximum = max(part.maximum for part in self._slices)
        # The middle of the topmost bin may lie above the greatest value in it.
        p50, p95, p99 = (min(value, maximum) for value in _percentiles(bins, (50, 95, 99)))
        return Summary(
            count=count,
            mean=sum(part.total for part in self._slices) / count,
            p50=p50,
            p95=p95,
            p99=p99,
            max=maximum,
        )

    def _open(self, now: float) -> _Slice:
        """Begin a slice. It is counted from its first value: a grid would need rounding."""
        self._expire(now)
        self._current.sort()
        self._current = _Slice(end=now + self._width)
        self._slices.append(self._current)
        return self._current

    def _expire(self, now: float) -> None:
        slices = self._slices
        while slices and slices[0].end <= now - self._span:
            slices.popleft()


def _sum(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add counts by bin; they end at different bins."""
    total = np.zeros(max((len(each) for each in counts), default=0), np.int64)
    for each in counts:
        total[: len(each)] += each
    return total


def _percentiles(bins: NDArray[np.int64], percents: tuple[int, ...]) -> list[float]:
    """Return the middle of the bin that holds the value of rank ceil(count * percent / 100).

    Args:
        bins: Count by bin; not all 0.
        percents: What share of the values.
    """
    upto = np.cumsum(bins)
    ranks = [-(-int(upto[-1]) * percent // 100) for percent in percents]
    found = np.searchsorted(upto, ranks)
    return [float(2 * FLOOR * GROWTH ** (index + 1) / (1 + GROWTH)) for index in found]
