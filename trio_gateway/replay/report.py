"""What came of a replay: lines for people, numbers for programs, and a table of all scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from trio_gateway.metrics.units import milliseconds
from trio_gateway.replay.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trio_gateway.replay.run import Replay
    from trio_gateway.replay.scenarios import Scenario

__all__ = ["Summary", "as_json", "as_lines", "clock", "comparison", "scenario_names", "summary"]


@frozen(kw_only=True)
class Summary:
    """A replay in numbers.

    Attributes:
        seconds: The trace's length.
        changes: Of the number of workers.
        ups: Of those, added some.
        refused: Looks at which a rule forbade what the signals asked for.
        workers: Fewest, most.
        workers_mean: Over time: what the policy costs.
        workers_end: When the trace ended.
        offered_max: The highest load, in workers.
        cpu: %, lowest, highest; without the overloaded seconds unless there are no others. Those
            show how fast a backlog is worked off, not what the load costs.
        latency_mean: Seconds in the pool, over all frames: those pending / their rate (Little).
        latency_worst: Seconds.
        overloaded: Seconds in which more came than the workers could do, or some of it was left.
        dropped: Frames; the model's guess.
    """

    seconds: float
    changes: int
    ups: int
    refused: int
    workers: tuple[int, int]
    workers_mean: float
    workers_end: int
    offered_max: float
    cpu: tuple[float, float]
    latency_mean: float
    latency_worst: float
    overloaded: float
    dropped: int


def summary(replay: Replay) -> Summary:
    """Return what came of it."""
    steps = replay.steps
    seconds = steps[-1].span.time
    frames = sum(step.span.rate * step.span.elapsed for step in steps)
    pending_s = sum(step.moment.pending * step.span.elapsed for step in steps)
    changes = [step.change for step in steps if step.change is not None]
    workers = [steps[0].workers, *(change.after for change in changes)]
    calm = [step for step in steps if not step.moment.overloaded]
    cpu = [step.moment.cpu for step in calm or steps]
    return Summary(
        seconds=seconds,
        changes=len(changes),
        ups=sum(change.kind == "up" for change in changes),
        refused=sum(step.decision.kind == "refused" for step in steps if step.decision),
        workers=(min(workers), max(workers)),
        workers_mean=sum(step.workers * step.span.elapsed for step in steps) / seconds,
        workers_end=workers[-1],
        offered_max=max(step.span.row.offered for step in steps),
        cpu=(min(cpu), max(cpu)),
        latency_mean=pending_s / frames if frames else 0.0,
        latency_worst=max(step.moment.latency for step in steps),
        overloaded=sum(step.span.elapsed for step in steps if step.moment.overloaded),
        dropped=round(sum(step.moment.dropped for step in steps)),
    )


def as_json(replay: Replay) -> dict[str, Any]:
    """Return all of it but the steps; times are seconds, percents are %."""
    return {
        "trace": replay.trace.name,
        "cores": replay.policy.cores,
        "bounds": [replay.policy.min_workers, replay.policy.max_workers],
        "settings": asdict(replay.policy.settings),
        "summary": asdict(summary(replay)),
        "changes": [
            {"time": step.span.time, **asdict(step.change)}
            for step in replay.steps
            if step.change is not None
        ],
    }


def as_lines(replay: Replay) -> Iterator[str]:
    """Yield the changes with their reasons, and the summary."""
    policy, total = replay.policy, summary(replay)
    yield f"{replay.trace.name}: {clock(total.seconds)}, a look every {replay.tick:g} s"
    yield (
        f"{policy.min_workers} to {policy.max_workers} workers on {policy.cores:g} cores, "
        f"offered load at most {total.offered_max:.2f} workers"
    )
    yield ""
    changes = [
        (clock(step.span.time), f"{step.change.before} -> {step.change.after}", step.change.reason)
        for step in replay.steps
        if step.change is not None
    ]
    if changes:
        yield from _columns([("time", "workers", "reason"), *changes])
        yield ""
    yield from _columns(_rows(total))


def _rows(total: Summary) -> list[tuple[str, str]]:
    downs = total.changes - total.ups
    mean = f"{total.workers_mean:.1f} on average"
    latency = milliseconds(total.latency_mean)
    return [
        ("changes", f"{total.changes} ({total.ups} up, {downs} down), {total.refused} refused"),
        ("workers", f"{_range(*total.workers)}, {mean}, {total.workers_end} in the end"),
        ("CPU", f"{_range(*total.cpu)} % of the cores"),
        ("latency", f"{latency} on average, {milliseconds(total.latency_worst)} at worst"),
        ("overloaded", f"{total.overloaded:g} s, {total.dropped} frames dropped"),
    ]


def scenario_names() -> Iterable[str]:
    """Yield a line for each scenario."""
    return _columns([(scenario.name, scenario.about) for scenario in SCENARIOS.values()])


def comparison(replays: Sequence[tuple[Scenario, Replay]]) -> Iterable[str]:
    """Yield a table with a line for each scenario.

    In brackets stands what was said of the earlier gateway, with a tenth of the devices; what kind
    of latency its latency was, it did not say.
    """
    rows = [("scenario", "workers", "CPU %", "latency: mean", "worst", "overloaded")]
    for scenario, replay in replays:
        total = summary(replay)
        earlier = scenario.earlier
        rows.append(
            (
                scenario.name,
                _beside(_path(replay), earlier.workers),
                _beside(_range(*total.cpu), earlier.cpu),
                _beside(milliseconds(total.latency_mean), earlier.latency),
                milliseconds(total.latency_worst),
                f"{total.overloaded:g} s",
            )
        )
    return _columns(rows)


def _path(replay: Replay) -> str:
    """Return the numbers of workers, one after the other: "2 6 5 4"."""
    changes = (step.change for step in replay.steps)
    after = (change.after for change in changes if change is not None)
    return " ".join(map(str, (replay.steps[0].workers, *after)))


def _beside(ours: str, earlier: str) -> str:
    return f"{ours} [{earlier}]" if earlier else ours


def _range(low: float, high: float) -> str:
    ends = f"{low:.0f}", f"{high:.0f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675.5 -> "1:01:15.5": minutes and seconds, and hours if there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest % 10}" if rest % 10 else ""
    start = f"{hours}:{minutes:02}" if hours else str(minutes)
    return f"{start}:{rest // 10:02}{fraction}"
