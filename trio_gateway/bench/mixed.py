"""The load that tells priorities apart: encoders that saturate the workers, and calls that talk."""

from __future__ import annotations

import time
from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from trio_gateway.bench.figures import Run
from trio_gateway.bench.jobs import FRAME_MS
from trio_gateway.bench.load import WARM_UP, Line, Tally, lines
from trio_gateway.groups import sole_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_gateway.bench.jobs import Job
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["TALKERS", "mixed"]

TALKERS: Final = 100
"""Streams to decode, a frame every 60 ms each, evenly spread: as many calls as a core carries."""


async def mixed(
    pool: WorkerPool, decoding: Job, encoding: Job, encoders: int, seconds: float
) -> tuple[Run, Run]:
    """Decode for the talkers while so many encoders have a frame under way, always.

    Returns:
        Of the decoders, of the encoders. The CPU is that of both, in both.
    """
    heard, said = Tally(), Tally()
    with sole_errors():
        async with trio.open_nursery() as nursery:
            with (
                lines(pool, encoding, encoders, said) as mouths,
                lines(pool, decoding, TALKERS, heard, again=False) as ears,
            ):
                with pool.batch():
                    for mouth in mouths:
                        mouth.go()
                nursery.start_soon(_pace, pool, ears, heard)
                await trio.sleep(max(seconds * WARM_UP, FRAME_MS / 1000))
                runs = await _watch(heard, said, seconds)
            nursery.cancel_scope.cancel()
    await heard.settled()
    await said.settled()
    return runs


async def _pace(pool: WorkerPool, ears: Sequence[Line], tally: Tally) -> None:
    frame = FRAME_MS / 1000
    due = trio.current_time()
    turns = cycle(ears)
    while True:
        await trio.sleep_until(due)
        now = trio.current_time()
        due = max(due, now - frame)  # after a stall nobody says more than one frame at once
        with pool.batch():
            while tally.going and due <= now:
                next(turns).go()
                due += frame / len(ears)


async def _watch(heard: Tally, said: Tally, seconds: float) -> tuple[Run, Run]:
    heard.taken.clear()
    said.taken.clear()
    cpu, began = time.process_time(), time.perf_counter()
    await trio.sleep(seconds)
    await heard.first()
    await said.first()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return (
        Run.of(heard.taken, elapsed=elapsed, cpu=cpu),
        Run.of(said.taken, elapsed=elapsed, cpu=cpu),
    )
