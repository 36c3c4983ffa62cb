"""Carries out a plan: all configurations in one run, round after round.

The pools are opened once and wait while they are not measured: a worker that waits costs nothing,
and an interpreter that is destroyed leaves 3 MB behind on Python 3.13.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, evolve

from trio_gateway.bench.direct import direct
from trio_gateway.bench.figures import merged
from trio_gateway.bench.jobs import decoding, encoding
from trio_gateway.bench.load import closed_loop
from trio_gateway.bench.moments import bursts, starts
from trio_gateway.bench.plan import JOBS
from trio_gateway.workers.opus import library_path, load_codec
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.thread import switching_every

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_gateway.bench.figures import Run
    from trio_gateway.bench.jobs import Job
    from trio_gateway.bench.plan import Case, Kind, Plan
    from trio_gateway.settings import PoolSettings, Settings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Progress", "Runs", "interval_for", "jobs", "measure", "pool_settings"]

Runs: TypeAlias = "dict[Case, list[Run]]"
Progress: TypeAlias = "Callable[[float, object], None]"
"""Told which share of all is done, 0 to 1, and what comes now."""


async def measure(plan: Plan, settings: Settings, *, progress: Progress) -> Runs:
    """Measure everything.

    Args:
        plan: What and how often.
        settings: Of the pools, and the bit rate of the encoders.
        progress: Told before each measurement.

    Returns:
        A run for each round, of each configuration in the plan's order.
    """
    runs: Runs = {case: [] for case in plan.round(0)}
    async with AsyncExitStack() as stack:
        pools: dict[Kind, WorkerPool] = {}
        for kind in plan.kinds:
            with switching_every(interval_for(kind, settings)):
                opened = open_worker_pool(pool_settings(settings, kind, plan.workers))
                pools[kind] = await stack.enter_async_context(opened)
        bench = _Bench(plan, settings, pools, jobs(settings))
        for number in range(plan.rounds):
            seen: Runs = {}
            cases = plan.round(number)
            for index, case in enumerate(cases):
                progress((number + index / len(cases)) / plan.rounds, case)
                seen.setdefault(case, []).append(await bench.run(case))
            for case, once in seen.items():
                runs[case].append(once[0] if len(once) == 1 else merged(once))
    return runs


def jobs(settings: Settings) -> Mapping[tuple[str, int | None], Job]:
    """The jobs by operation and complexity."""
    codec = load_codec(library_path(settings.pool.libopus))
    bitrate = settings.audio.bitrate
    return {
        (op, complexity): decoding(codec, bitrate)
        if complexity is None
        else encoding(codec, complexity, bitrate)
        for op, complexity in JOBS
    }


def pool_settings(settings: Settings, kind: Kind, workers: int) -> PoolSettings:
    """Those of the command line, with exactly so many workers of that kind.

    Pools of both kinds are open at once, so none of them may set the switch interval.
    """
    return evolve(
        settings.pool,
        kind=kind,
        min_workers=workers,
        max_workers=workers,
        switch_interval=None,
    )


def interval_for(kind: Kind | None, settings: Settings) -> float | None:
    """The switch interval that a pool of that kind has; None for the interpreter's own."""
    return settings.pool.switch_interval if kind == "thread" else None


@define
class _Bench:
    plan: Plan
    settings: Settings
    pools: dict[Kind, WorkerPool]
    jobs: Mapping[tuple[str, int | None], Job]

    async def run(self, case: Case) -> Run:
        with switching_every(interval_for(case.kind, self.settings)):
            return await self._run(case)

    async def _run(self, case: Case) -> Run:
        seconds = self.plan.seconds
        if case.kind is None:
            job = self.jobs[case.op, case.complexity]
            return await direct(job, case.workers, seconds)
        if case.mode == "start":
            settings = evolve(self.settings.pool, kind=case.kind)
            return await starts(settings, parked=case.op == "parked")
        job = self.jobs[case.op, case.complexity]
        pool, streams = self.pools[case.kind], case.streams * case.workers
        if case.mode == "burst":
            return await bursts(pool, job, streams, seconds)
        return await closed_loop(pool, job, streams, seconds, busy=case.mode == "pool-busy")
