"""Who keeps a pool busy, and what keeps its event loop from it.

Rule 1: the streams of a load begin at different places of the speech. It is cheap to code where it
is silent, and 64 streams in step would take turns at being all silent.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import define, evolve, field

from trio_gateway.bench.figures import Run
from trio_gateway.groups import sole_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_gateway.bench.jobs import Job, Submit
    from trio_gateway.workers.pool import WorkerPool

__all__ = [
    "BUSY_PERIOD",
    "BUSY_SLICE",
    "WARM_UP",
    "Burner",
    "Line",
    "Tally",
    "closed_loop",
    "lines",
]

BUSY_SLICE: Final = 0.001
BUSY_PERIOD: Final = 0.002
"""Seconds: of CPU that a half busy Trio thread gives to something else, and how often. In a gateway
that is ciphers, sequences and handlers. How finely it is sliced there is a guess."""

WARM_UP: Final = 0.2
"""Of the time that is measured, before it: the first frames of a stream touch cold memory."""

_PATIENCE: Final = 10.0  # seconds for a result; a frame takes milliseconds
_SHORT: Final = 0.001


@define(eq=False)
class Tally:
    """What the streams of a load write down.

    Attributes:
        taken: Seconds in the pool, for each frame finished; whoever measures empties it before.
        going: Whether streams are to go on.
        under_way: Frames that are.
        error: The last that a frame ended with while it should not.
        idle: Set when none is any more.
    """

    taken: list[float] = field(factory=list)
    going: bool = True
    under_way: int = 0
    error: Exception | None = None
    idle: trio.Event = field(factory=trio.Event)

    def check(self) -> None:
        """Raise what a frame ended with."""
        if self.error is not None:
            raise self.error

    async def first(self) -> None:
        """Wait until something is written down; needed only where the time was very short."""
        with trio.fail_after(_PATIENCE):
            while not self.taken:
                self.check()
                await trio.sleep(_SHORT)
        self.check()

    async def settled(self) -> None:
        """Wait until no frame is under way."""
        if self.under_way:
            self.idle = trio.Event()
            with trio.fail_after(_PATIENCE):
                await self.idle.wait()
        self.check()


@define(eq=False)
class Line:
    """A stream of the pool. Its frames finish in the order in which they were submitted.

    Attributes:
        submit: Takes a frame for the pool.
        frames: What to submit, over and over.
        tally: Shared with the other lines of the load.
        position: Of the next frame.
        again: Submit the next one when one is done: a closed loop.
    """

    submit: Submit
    frames: Sequence[Any]
    tally: Tally
    position: int
    again: bool = True
    _began: deque[float] = field(factory=deque, init=False)

    def go(self) -> None:
        """Submit the next frame."""
        self.tally.under_way += 1
        frame = self.frames[self.position]
        self.position = (self.position + 1) % len(self.frames)
        self._began.append(time.perf_counter())
        self.submit(frame, self._done)

    def _done(self, result: object) -> None:
        tally = self.tally
        tally.taken.append(time.perf_counter() - self._began.popleft())
        tally.under_way -= 1
        if isinstance(result, Exception) and tally.going:
            tally.error = result
            tally.going = False
        if self.again and tally.going:
            self.go()
        elif not tally.under_way:
            tally.idle.set()


@contextmanager
def lines(pool: WorkerPool, job: Job, count: int, tally: Tally, **how: Any) -> Iterator[list[Line]]:
    """Open `count` streams; they are closed in the end, and nothing more is submitted then."""
    streams = []
    try:
        opened = []
        for index in range(count):
            stream, submit = job.stream(pool)
            streams.append(stream)
            position = len(job.frames) * index // count
            opened.append(Line(submit, job.frames, tally, position, **how))
        yield opened
    finally:
        tally.going = False
        for stream in streams:
            stream.close()


@define(eq=False)
class Burner:
    """Keeps the Trio thread half busy.

    Attributes:
        burnt: CPU seconds, until now.
    """

    burnt: float = 0.0

    async def run(self) -> None:
        """Burn a slice in each period, or what the pool leaves of it: never more than that."""
        due = trio.current_time()
        while True:
            await trio.sleep_until(due)
            began = time.thread_time()
            while (burnt := time.thread_time() - began) < BUSY_SLICE:
                for _ in range(100):
                    pass
            self.burnt += burnt
            # Late by a period or more, the time is the pool's: it has needed all of it.
            due += BUSY_PERIOD
            if trio.current_time() - due >= BUSY_PERIOD:
                due = trio.current_time()


async def closed_loop(
    pool: WorkerPool, job: Job, streams: int, seconds: float, *, busy: bool
) -> Run:
    """Have one frame of each of so many streams under way, always, and watch for `seconds`."""
    tally, burner = Tally(), Burner()
    with sole_errors():
        async with trio.open_nursery() as nursery:
            if busy:
                nursery.start_soon(burner.run)
            with lines(pool, job, streams, tally) as opened:
                with pool.batch():
                    for line in opened:
                        line.go()
                await trio.sleep(seconds * WARM_UP)
                run = await _watch(pool, tally, burner, seconds)
            nursery.cancel_scope.cancel()
    await tally.settled()
    return run


async def _watch(pool: WorkerPool, tally: Tally, burner: Burner, seconds: float) -> Run:
    before = pool.statistics()
    tally.taken.clear()
    burnt, cpu, began = burner.burnt, time.process_time(), time.perf_counter()
    await trio.sleep(seconds)
    await tally.first()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    burnt = burner.burnt - burnt
    taken, tally.taken = tally.taken, []
    after = pool.statistics()
    run = Run.of(taken, elapsed=elapsed, cpu=cpu - burnt, busy=burnt / elapsed)
    return evolve(run, codec=(after.busy_s - before.busy_s) / (after.frames - before.frames))
