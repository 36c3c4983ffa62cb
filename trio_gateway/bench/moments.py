"""What is not a steady load: many frames at one moment, and one more worker."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
import trio
from attrs import evolve

from trio_gateway.bench.figures import Run
from trio_gateway.bench.load import Tally, lines
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from trio_gateway.bench.jobs import Job
    from trio_gateway.settings import PoolSettings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["STARTS", "bursts", "starts"]

_PAUSE: Final = 0.005
"""Seconds between bursts: the workers sleep by then, as between the frames of a call."""

STARTS: Final = 3
"""Workers started in a round. Each interpreter leaves 3 MB behind on Python 3.13."""


async def bursts(pool: WorkerPool, job: Job, streams: int, seconds: float) -> Run:
    """Submit a frame of each of so many streams at once, wait for all, and again, for `seconds`.

    The time between bursts does not count. The jitter is that within a burst, the median of all.
    """
    tally = Tally()
    sigmas: list[float] = []
    elapsed = cpu = 0.0
    with lines(pool, job, streams, tally, again=False) as opened:
        end = trio.current_time() + seconds
        while not sigmas or trio.current_time() < end:
            await trio.sleep(_PAUSE)
            used, began = time.process_time(), time.perf_counter()
            with pool.batch():
                for line in opened:
                    line.go()
            await tally.settled()
            elapsed += time.perf_counter() - began
            cpu += time.process_time() - used
            sigmas.append(float(np.std(tally.taken[-streams:])))
    return evolve(Run.of(tally.taken, elapsed=elapsed, cpu=cpu), jitter=median(sigmas))


async def starts(settings: PoolSettings, *, parked: bool) -> Run:
    """Ask a pool for one more worker, and one more, and wait each time until it is ready.

    Args:
        settings: The pool's; the numbers of workers are this function's.
        parked: Ask for workers whose runners are parked because there were as many before.
    """
    taken: list[float] = []
    cpu = 0.0
    async with open_worker_pool(evolve(settings, min_workers=1, max_workers=1 + STARTS)) as pool:
        if parked:
            await pool.resize(1 + STARTS)
            await pool.resize(1)
        for workers in range(2, 2 + STARTS):
            used, began = time.process_time(), time.perf_counter()
            await pool.resize(workers)
            taken.append(time.perf_counter() - began)
            cpu += time.process_time() - used
    return Run.of(taken, elapsed=sum(taken), cpu=cpu)
