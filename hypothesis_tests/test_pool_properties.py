"""Invariant: whatever becomes of the workers, a stream sounds like one codec on one thread.

And its frames finish in the order they came, each exactly once, and nothing of the pool is left
when it has been left. Only a frame that a lost worker may have begun is not what it was: it is
concealed, or encoded again, by a codec that has heard nothing, and so is what follows it. The model
is opuslib in the calling thread. What happens is drawn up front and done in one `trio.run`.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from leftovers import no_codec_state_left, nothing_left
from mortal_workers import fate
from stream_model import SPOKEN, Line

from trio_gateway.errors import CodecError
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mortal_workers import Fate

    from trio_gateway.workers.pool import WorkerPool

LINES = 6  # the even ones decode, the odd ones encode
MAX_WORKERS = 3
MIXES: list[tuple[str, ...]] = [("thread",)]
if interpreters_work():
    MIXES += [("interpreter",), ("thread", "interpreter")]

Step: TypeAlias = tuple[str, int, str]
"""What happens; a line, how many workers, ticks or calls; and what is said."""

LINE = st.integers(0, LINES - 1)
SAYING = st.sampled_from(SPOKEN)
SILENT = st.just("")
PEACEFUL = st.one_of(
    st.tuples(st.just("speak"), LINE, st.just("frame")),
    st.tuples(st.just("speak"), LINE, SAYING),
    st.tuples(st.just("cancel"), LINE, SAYING),
    st.tuples(st.just("close"), LINE, SILENT),
    st.tuples(st.just("resize"), st.integers(1, MAX_WORKERS), SILENT),
    st.tuples(st.just("pause"), st.integers(1, 20), SILENT),
    st.tuples(st.just("batch"), st.just(0), SILENT),
)
DEADLY = PEACEFUL | st.tuples(st.sampled_from(["raise", "lie"]), st.integers(0, 5), SILENT)
ENDS = st.sampled_from(["patient", "at once", "cancelled", "with an error"])


class Play:
    """One pool and what happens to it."""

    def __init__(self, here: Fate) -> None:
        self.fate = here
        self.lines: list[Line] = []
        self.past: list[Line] = []
        self._batch = ExitStack()

    async def run(self, mix: tuple[str, ...], steps: list[Step], end: str) -> None:
        """Do all that."""
        pool_settings = PoolSettings(
            kind="thread", min_workers=1, max_workers=MAX_WORKERS, slots=16, backlog_frames=5
        )
        self.fate.struck()  # what a run that failed has left
        kinds = self.fate.kinds(mix)
        with (
            trio.fail_after(20),
            trio.CancelScope() as scope,
            suppress(ZeroDivisionError),
        ):
            async with open_worker_pool(pool_settings, kinds=kinds) as pool:
                await self._act(pool, steps, patient=end == "patient")
                if end == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
                if end == "with an error":
                    raise ZeroDivisionError
        self._check(pool, end)

    async def _act(self, pool: WorkerPool, steps: list[Step], *, patient: bool) -> None:
        self.lines = [Line(pool, encodes=bool(number % 2)) for number in range(LINES)]
        with self._batch:
            async with trio.open_nursery() as nursery:
                for step in steps:
                    await self._do(step, pool, nursery)
                self._batch.close()
                while patient and not all(line.complete for line in self.lines + self.past):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

    async def _do(self, step: Step, pool: WorkerPool, nursery: trio.Nursery) -> None:
        name, number, what = step
        if name == "speak":
            self.lines[number].speak(what)
        elif name == "batch":
            self._batch.enter_context(pool.batch())
        elif name == "close":
            self.lines[number].stream.close()
            self.past.append(self.lines[number])
            self.lines[number] = Line(pool, encodes=bool(number % 2))
        elif name == "resize":
            nursery.start_soon(pool.resize, number)
        elif name in ("raise", "lie"):
            self.fate.strike(number, lie=name == "lie")
        else:
            self._batch.close()
            if name == "cancel":
                await self.lines[number].speak_and_be_cancelled(what)
            for _ in range(number):
                await trio.lowlevel.checkpoint()

    def _check(self, pool: WorkerPool, end: str) -> None:
        raised, lied = self.fate.struck()
        lines = self.lines + self.past
        for line in lines:
            line.check()
        statistics = pool.statistics()
        assert statistics.slots_used == statistics.waiting == statistics.in_flight == 0
        assert statistics.streams == len(statistics.workers) == 0
        assert statistics.frames + statistics.dropped == sum(len(line.said) for line in lines)
        refused = [r for line in lines for _, r in line.results if isinstance(r, CodecError)]
        assert statistics.failed <= len(refused)
        if end == "patient":
            assert statistics.deaths == raised + lied
        suspicions = sum(line.suspicions for line in lines)
        assert suspicions >= raised + lied
        if not lied:  # a liar may have begun all that it held
            assert suspicions == raised
        for line in lines:
            line.let_go()


@pytest.fixture(scope="module")
def here() -> Iterator[Fate]:
    with nothing_left(), fate() as made:
        yield made


def check(here: Fate, mix: tuple[str, ...], steps: list[Step], end: str) -> None:
    with nothing_left(kept=here.kept), no_codec_state_left():
        trio.run(Play(here).run, mix, steps, end)


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
@given(steps=st.lists(PEACEFUL, max_size=60), end=ENDS)
@settings(deadline=None, max_examples=200)
def test_workers_that_come_and_go(
    here: Fate, mix: tuple[str, ...], steps: list[Step], end: str
) -> None:
    check(here, mix, steps, end)


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
@given(steps=st.lists(DEADLY, max_size=60), end=ENDS)
@settings(deadline=None, max_examples=600)
def test_workers_that_die_and_lie(
    here: Fate, mix: tuple[str, ...], steps: list[Step], end: str
) -> None:
    check(here, mix, steps, end)
