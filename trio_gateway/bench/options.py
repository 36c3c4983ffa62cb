"""The options of the pool, each measured on and off.

Rule 1: both sides of an option are measured in each round, one right after the other, and which is
first alternates. What is shown is the median of the rounds' ratios, as in figures.py.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from trio_gateway.bench.figures import figures
from trio_gateway.bench.load import closed_loop
from trio_gateway.bench.measure import interval_for, jobs, pool_settings
from trio_gateway.bench.micro import pairs, seconds_each
from trio_gateway.bench.mixed import mixed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.thread import switching_every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trio_gateway.bench.jobs import Job
    from trio_gateway.bench.measure import Progress
    from trio_gateway.bench.micro import Pair
    from trio_gateway.bench.plan import Kind, Plan
    from trio_gateway.settings import Settings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["OPTIONS", "Comparison", "Option", "Seen", "compare", "measure_options"]

Load: TypeAlias = Literal["mixed", "decode", "encode"]
Side: TypeAlias = Literal["on", "off"]

_SIDES: Final[tuple[Side, ...]] = ("on", "off")

STREAMS: Final = 64  # per worker, where throughput is asked for
ENCODERS: Final = 400  # per worker, in the mixed load: four times what a worker holds
COMPLEXITY: Final = 5

DECODE_P50: Final = "decode p50, ms"
DECODE_P99: Final = "decode p99, ms"
P99: Final = "p99, ms"
RATE: Final = "frames/s"
ENCODE_RATE: Final = "encode frames/s"
EACH: Final = "us a frame"
MORE_IS_BETTER: Final = frozenset({RATE, ENCODE_RATE})


@frozen
class Option:
    """A setting of the pool.

    Attributes:
        name: In `PoolSettings`.
        on: Its value when on.
        off: Its value when off.
        loads: That tell the two apart.
    """

    name: str
    on: int
    off: int
    loads: tuple[Load, ...]


OPTIONS: Final = (
    Option("decode_first", on=True, off=False, loads=("mixed",)),
    Option("decode_workers", on=1, off=0, loads=("mixed",)),
    *(
        [Option("pin_workers", on=True, off=False, loads=("decode", "encode", "mixed"))]
        if sys.platform == "linux"
        else []
    ),
)
# Of the options that are not measured just now, whatever the command line has.
DEFAULTS: Final = {option.name: getattr(PoolSettings(), option.name) for option in OPTIONS}


@frozen
class Comparison:
    """An option on and off: medians over the rounds.

    Attributes:
        option: Its name.
        kind: Of the workers; None where there is no pool.
        load: What there was to do.
        what: The figure and its unit.
        on: With the option.
        off: Without.
        ratio: on / off, the median of the rounds'.
        wins: Rounds in which it was better on than off.
        rounds: Of these.
    """

    option: str
    kind: Kind | None
    load: str
    what: str
    on: float
    off: float
    ratio: float
    wins: int
    rounds: int


Seen: TypeAlias = "dict[Side, list[dict[str, float]]]"
"""Figures by what they are, of each round."""


@frozen(eq=False)
class _Trial:
    option: str
    kind: Kind | None
    load: str
    run: Callable[[Side], Awaitable[dict[str, float]]]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.option, self.kind, self.load)))


async def measure_options(
    plan: Plan, settings: Settings, *, progress: Progress
) -> list[Comparison]:
    """Measure every option.

    Args:
        plan: Its workers, kinds, rounds and seconds.
        settings: Of the pools, but for the options; and the bit rate of the encoders.
        progress: Told before each measurement.
    """
    async with AsyncExitStack() as stack:
        trials = [*_micro_trials(plan, settings), *await _pool_trials(plan, settings, stack)]
        seen: list[Seen] = [{"on": [], "off": []} for _ in trials]
        for number in range(plan.rounds):
            sides = _SIDES[::-1] if number % 2 else _SIDES
            for index, trial in enumerate(trials):
                progress((number + index / len(trials)) / plan.rounds, trial)
                for side in sides:
                    seen[index][side].append(await trial.run(side))
    return [
        comparison
        for trial, each in zip(trials, seen, strict=True)
        for comparison in compare(trial.option, trial.kind, trial.load, each)
    ]


def compare(option: str, kind: Kind | None, load: str, seen: Seen) -> list[Comparison]:
    """Summarise one trial, figure by figure."""
    found = []
    for what in seen["on"][0]:
        on = [each[what] for each in seen["on"]]
        off = [each[what] for each in seen["off"]]
        ratios = [a / b for a, b in zip(on, off, strict=True)]
        wins = sum(ratio > 1 if what in MORE_IS_BETTER else ratio < 1 for ratio in ratios)
        numbers = (median(on), median(off), median(ratios), wins, len(ratios))
        found.append(Comparison(option, kind, load, what, *numbers))
    return found


def _micro_trials(plan: Plan, settings: Settings) -> list[_Trial]:
    every = jobs(settings)

    async def run(pair: Pair, side: Side) -> dict[str, float]:
        work = pair.on if side == "on" else pair.off
        return {EACH: seconds_each(work, pair.frames, plan.seconds / 2) * 1e6}

    return [
        _Trial(pair.option, None, pair.what, partial(run, pair))
        for pair in pairs(every["decode", None], every["encode", COMPLEXITY])
    ]


async def _pool_trials(plan: Plan, settings: Settings, stack: AsyncExitStack) -> list[_Trial]:
    """Trials of `OPTIONS`, with their pools: two for each option and kind of worker."""
    every = jobs(settings)
    trials = []
    for option in OPTIONS:
        for kind in plan.kinds:
            pools: dict[Side, WorkerPool] = {}
            for side in _SIDES:
                value: Any = option.on if side == "on" else option.off
                base = pool_settings(settings, kind, plan.workers)
                opened = open_worker_pool(evolve(base, **DEFAULTS | {option.name: value}))
                pools[side] = await stack.enter_async_context(opened)
            for load in option.loads:
                run = partial(_run, plan, settings, every, kind, pools, load)
                trials.append(_Trial(option.name, kind, load, run))
    return trials


async def _run(
    plan: Plan,
    settings: Settings,
    every: Mapping[tuple[str, int | None], Job],
    kind: Kind,
    pools: Mapping[Side, WorkerPool],
    load: Load,
    side: Side,
) -> dict[str, float]:
    pool, seconds = pools[side], plan.seconds
    decoding, encoding = every["decode", None], every["encode", COMPLEXITY]
    with switching_every(interval_for(kind, settings)):
        if load == "mixed":
            encoders = ENCODERS * plan.workers
            heard, said = await mixed(pool, decoding, encoding, encoders, seconds)
            latency = figures(heard)
            return {
                DECODE_P50: latency.p50_ms,
                DECODE_P99: latency.p99_ms,
                ENCODE_RATE: figures(said).fps,
            }
        job = decoding if load == "decode" else encoding
        run = figures(await closed_loop(pool, job, STREAMS * plan.workers, seconds, busy=False))
        return {RATE: run.fps, P99: run.p99_ms}
