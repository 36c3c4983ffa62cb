"""What a soak's numbers mean: did anything grow that must not, did all frames have a fate?

What can be counted is compared exactly, at rest: the gateway without devices, before and after.
Resident memory cannot: it has a slope, after Theil and Sen (P. K. Sen, "Estimates of the regression
coefficient based on Kendall's tau", J. Am. Stat. Assoc. 63, 1968): the median of the slopes between
any two points, with an interval that assumes no distribution. Points are medians of neighbouring
samples, so that steps and single peaks weigh little.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from samples import Rest, Sample

__all__ = [
    "GROWTH_BYTES",
    "MIB",
    "Outcome",
    "Slope",
    "describe",
    "failures",
    "memory_slope",
    "slope_of",
    "table",
]

MIB: Final = 1 << 20

GROWTH_BYTES: Final = 8 * MIB
"""Growth of resident memory over the second half of a soak that is nothing yet. Measured with 60
devices: 8 MiB in a soak of 30 s, whose process is still young, and 2 to 3 in one of 5 minutes. The
longer the soak, the smaller the leak that it finds: 3.2 MiB/min in 5 minutes, 0.27 in an hour."""

_POINTS: Final = 60  # medians; 1,770 slopes
_CONFIDENCE: Final = 0.999  # that it grows so much at least; one soak in a thousand may be wrong

_OBJECTS_PER_CALL: Final = 0.1
"""Objects left for each call: whoever leaks one leaks at least one for each, if he leaks often."""

_FEW_OBJECTS: Final = 5000
"""Objects more at rest that are nothing: Trio's heap of deadlines and that of timers.py keep up to
1,000 stale entries each, of two or three objects. 60 devices make 1,600 calls a minute."""

_BOUNDED: Final = frozenset({"TokenBucket"})  # one for each recent peer, at most 4,096 for a limit

EXPECTED_ERRORS: Final = frozenset({"handler failed", "worker died"})
"""Lines of level error in the log that a soak makes happen."""


@frozen
class Slope:
    """Of memory over time, bytes a second: the estimate, and what it is at least."""

    estimate: float
    at_least: float


@frozen(kw_only=True)
class Outcome:
    """All that a soak has seen.

    Attributes:
        kind: Of the workers.
        samples: While devices came and went.
        before: At rest, after the warm-up.
        after: At rest, at the end.
        surprises: What devices saw that must not be, and how often.
        errors: Lines of level error in the gateway's log, by event.
        left: What the gateway's process had left over when it ended, by name; zeros are good.
        exit_code: Of that process.
    """

    kind: str
    samples: Sequence[Sample] = field(repr=False)
    before: Rest
    after: Rest
    surprises: Mapping[str, int]
    errors: Mapping[str, int]
    left: Mapping[str, int]
    exit_code: int


def failures(outcome: Outcome) -> list[str]:
    """Say what is wrong, a line for each thing; nothing is good."""
    return [
        *_happened(outcome),
        *_balance(outcome),
        *_not_back(outcome),
        *_memory(outcome.samples),
        *_objects(outcome),
        *(f"surprise: {what} ({count} times)" for what, count in outcome.surprises.items()),
        *(
            f"the gateway logged an error: {what} ({count} times)"
            for what, count in outcome.errors.items()
            if what not in EXPECTED_ERRORS
        ),
        *(f"left when the gateway had closed: {count} {w}" for w, count in _left(outcome)),
    ]


def slope_of(points: Sequence[tuple[float, float]]) -> Slope:
    """Fit a line through (x, y), x ascending and distinct, two at least."""
    slopes = sorted((d - b) / (c - a) for (a, b), (c, d) in combinations(points, 2))
    count, pairs = len(points), len(slopes)
    # Kendall's S is nearly normal, with this variance (Sen, 1968, section 2, without ties).
    deviation = (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    lowest = (pairs - NormalDist().inv_cdf(_CONFIDENCE) * deviation) / 2
    at_least = slopes[round(lowest)] if lowest >= 0 else float("-inf")
    return Slope(median(slopes), at_least)


def table(outcome: Outcome) -> str:
    """Return the numbers as a Markdown table."""
    lines = ["| | before | min | median | max | after |", "|---|---|---|---|---|---|"]
    for name, values in _columns(outcome.samples).items():
        before, after = (_columns([r.sample])[name][0] for r in (outcome.before, outcome.after))
        spread = (min(values), median(values), max(values))
        cells = (f"{value:g}" for value in (before, *spread, after))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    def inside(name: str) -> list[float]:
        return [getattr(sample.inside, name) for sample in samples]

    return {
        "RSS, MiB": [round(sample.rss_bytes / MIB, 1) for sample in samples],
        "descriptors": [sample.descriptors for sample in samples],
        "threads": [sample.threads for sample in samples],
        "tasks": inside("tasks"),
        "interpreters": inside("interpreters"),
        "connections": inside("connections"),
        "sessions": inside("sessions"),
        "timers": inside("timers"),
        "codec streams": inside("streams"),
        "pool slots": inside("slots"),
        "frames in the pool": inside("in_pool"),
        "frames under way": inside("under_way"),
        "unaccounted": [sum(map(abs, sample.inside.unaccounted.values())) for sample in samples],
    }


def _happened(outcome: Outcome) -> Iterable[str]:
    before, after = outcome.before.sample.inside, outcome.after.sample.inside
    for name in ("opened", "frames", "datagrams"):
        if getattr(after, name) <= getattr(before, name):
            yield f"nothing happened: {name} {getattr(after, name)}"


def _balance(outcome: Outcome) -> Iterable[str]:
    wrong = [each for each in _every(outcome) if each.inside.unaccounted]
    if wrong:
        first, last = wrong[0], wrong[-1]
        yield (
            f"frames do not add up from {first.at:.0f} s on: {dict(first.inside.unaccounted)}, "
            f"in the end {dict(last.inside.unaccounted)}"
        )


def _not_back(outcome: Outcome) -> Iterable[str]:
    before, after = outcome.before.sample, outcome.after.sample
    for name, count in after.inside.busy.items():
        yield f"{name}: {count} at the end, when no device is left"
    pairs = {
        "descriptors": (before.descriptors, after.descriptors),
        "threads": (before.threads, after.threads),
        "tasks": (before.inside.tasks, after.inside.tasks),
        "interpreters": (before.inside.interpreters, after.inside.interpreters),
    }
    for name, (was, now) in pairs.items():
        if now > was:
            yield f"{name}: {was} before, {now} at the end"


def _memory(samples: Sequence[Sample]) -> Iterable[str]:
    half = samples[len(samples) // 2 :]
    slope = memory_slope(samples)
    seconds = half[-1].at - half[0].at
    if slope.at_least * seconds > GROWTH_BYTES:
        yield (
            f"memory: grows by {slope.estimate * 60 / MIB:.2f} MiB a minute, "
            f"{slope.at_least * 60 / MIB:.2f} at least"
        )


def memory_slope(samples: Sequence[Sample]) -> Slope:
    """Return the slope over the second half, when everything has been done a few times."""
    half = samples[len(samples) // 2 :]
    size = -(-len(half) // _POINTS)
    blocks = [half[start : start + size] for start in range(0, len(half), size)]
    return slope_of(
        [
            (median(each.at for each in block), median(each.rss_bytes for each in block))
            for block in blocks
        ]
    )


def _objects(outcome: Outcome) -> Iterable[str]:
    was, now = outcome.before, outcome.after
    grown = Counter({name: n - was.objects.get(name, 0) for name, n in now.objects.items()})
    for name in _BOUNDED:
        del grown[name]
    calls = now.sample.inside.opened - was.sample.inside.opened
    if grown.total() > _FEW_OBJECTS + _OBJECTS_PER_CALL * calls:
        most = ", ".join(f"{count} {name}" for name, count in grown.most_common(6))
        yield f"objects: {grown.total()} more at the end, after {calls} calls; the most: {most}"


def _left(outcome: Outcome) -> Iterable[tuple[str, int]]:
    left = {**outcome.left, "exit code": outcome.exit_code}
    return [(name, count) for name, count in left.items() if count]


def _every(outcome: Outcome) -> list[Sample]:
    return [outcome.before.sample, *outcome.samples, outcome.after.sample]


def describe(now: Sample) -> str:
    """Return a line for a person."""
    inside = now.inside
    return (
        f"{now.at:6.0f} s  {now.rss_bytes / MIB:6.1f} MiB  {now.descriptors:4d} descriptors  "
        f"{now.threads:2d} threads  {inside.tasks:4d} tasks  {inside.sessions:3d} calls of "
        f"{inside.opened}  {inside.frames} frames  {inside.deaths} deaths"
    )
