"""Invariant: whatever becomes of the workers, a stream sounds like one codec on one thread.

And its frames finish in the order they came, each exactly once, and nothing of the pool is left
when it has been left. The model is opuslib in the calling thread. What happens is drawn up front
and done in one `trio.run`.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from leftovers import nothing_left
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames, packets

from trio_gateway.errors import FrameDropped, PoolClosed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.stream import Decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trio_gateway.workers.dispatch import Result
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.stream import Encoder

PACKETS = packets(16000, 12)
PCM = frames(24000, 12)
LOST = 960  # samples
LINES = 4  # the even ones decode, the odd ones encode
MAX_WORKERS = 3

Step: TypeAlias = tuple[str, int]
"""What happens, and to which line, or how many workers there shall be, or how many ticks pass."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["speak", "speak", "speak", "lose", "cancel", "close"]),
        st.integers(0, LINES - 1),
    )
    | st.tuples(st.just("resize"), st.integers(1, MAX_WORKERS))
    | st.tuples(st.just("pause"), st.integers(1, 20))
    | st.tuples(st.just("batch"), st.just(0)),
    max_size=60,
)


class Line:
    """A stream, what was said on it, and what became of that."""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        self.pool = pool
        self.stream: Decoder | Encoder = (
            pool.encoder(24000, bitrate=24000) if number % 2 else pool.decoder(16000)
        )
        self.said: list[int] = []  # lengths of lost frames are negative
        self.results: list[tuple[int, Result]] = []
        self.cancelled: dict[int, bool] = {}  # position: whether the codec has heard it

    def speak(self, *, lose: bool = False) -> None:
        """Submit the next frame, or name it lost."""
        position = len(self.said)
        done = partial(self._done, position)
        self.said.append(-LOST if lose and isinstance(self.stream, Decoder) else position % 12)
        if not isinstance(self.stream, Decoder):
            self.stream.submit_encode(PCM[position % 12], done)
        elif lose:
            self.stream.submit_conceal(LOST, done)
        else:
            self.stream.submit_decode(PACKETS[position % 12], done)

    async def speak_and_be_cancelled(self) -> None:
        """Await the next frame, but not to its end."""
        position = len(self.said)
        self.said.append(position % 12)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, position)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()  # by now it has been submitted
            before = self.pool.statistics().dropped
            nursery.cancel_scope.cancel()
            withdrawn = self.pool.statistics().dropped > before
        if position not in [each for each, _ in self.results]:
            self.cancelled[position] = not withdrawn

    async def _ask(self, position: int) -> None:
        try:
            if isinstance(self.stream, Decoder):
                self._done(position, await self.stream.decode(PACKETS[position % 12]))
            else:
                self._done(position, await self.stream.encode(PCM[position % 12]))
        except FrameDropped as error:
            self._done(position, error)

    def _done(self, position: int, result: Result) -> None:
        self.results.append((position, result))

    @property
    def complete(self) -> bool:
        """Whether every frame has its result."""
        return len(self.results) + len(self.cancelled) == len(self.said)

    def check(self) -> None:
        """Compare with the model."""
        assert self.complete
        positions = [position for position, _ in self.results]
        assert sorted(positions + list(self.cancelled)) == list(range(len(self.said)))
        heard = [each for each in self.results if not isinstance(each[1], Exception)]
        given_up = [result for _, result in self.results if isinstance(result, Exception)]
        assert {type(result) for result in given_up} <= {FrameDropped, PoolClosed}
        assert [position for position, _ in heard] == sorted(position for position, _ in heard)
        results = dict(heard)
        model = Model(isinstance(self.stream, Decoder))
        for position, what in enumerate(self.said):
            if position in results or self.cancelled.get(position):
                right = model.hear(what)
                np.testing.assert_array_equal(results.get(position, right), right)


class Model:
    """One codec, one thread."""

    def __init__(self, decodes: bool) -> None:  # noqa: FBT001
        self.decoder = ReferenceDecoder(16000)
        self.encoder = ReferenceEncoder(24000)
        self.decodes = decodes

    def hear(self, what: int) -> bytes | NDArray[np.int16]:
        """Return what comes of the next frame."""
        if what < 0:
            return self.decoder.conceal(-what)
        return (
            self.decoder.decode(PACKETS[what]) if self.decodes else self.encoder.encode(PCM[what])
        )


async def live(kind: str, steps: list[Step], *, patient: bool) -> list[Line]:
    """Do all that and return every line there was."""
    pool_settings = PoolSettings(
        kind=kind,  # type: ignore[arg-type]
        min_workers=1,
        max_workers=MAX_WORKERS,
        in_flight=2,
        slots=8,
        backlog_frames=5,
    )
    past: list[Line] = []
    with trio.fail_after(20), ExitStack() as batch:
        async with open_worker_pool(pool_settings) as pool, trio.open_nursery() as nursery:
            lines = [Line(pool, number) for number in range(LINES)]
            for name, number in steps:
                if name == "speak":
                    lines[number].speak()
                elif name == "lose":
                    lines[number].speak(lose=True)
                elif name == "batch":
                    batch.enter_context(pool.batch())
                elif name == "close":
                    lines[number].stream.close()
                    past.append(lines[number])
                    lines[number] = Line(pool, number)
                elif name == "resize":
                    nursery.start_soon(pool.resize, number)
                else:
                    batch.close()
                    if name == "cancel":
                        await lines[number].speak_and_be_cancelled()
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
            batch.close()
            lines += past
            while patient and not all(line.complete for line in lines):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        statistics = pool.statistics()
    assert statistics.slots_used == statistics.waiting == statistics.in_flight == 0
    assert statistics.frames + statistics.dropped == sum(len(line.said) for line in lines)
    assert statistics.deaths == statistics.failed == 0
    assert statistics.workers == ()
    return lines


def check(kind: str, steps: list[Step], *, patient: bool) -> None:
    with nothing_left():
        lines = trio.run(partial(live, kind, steps, patient=patient))
    for line in lines:
        line.check()


@given(steps=STEPS, patient=st.booleans())
@settings(deadline=None, max_examples=250)
def test_threads(steps: list[Step], patient: bool) -> None:  # noqa: FBT001
    check("thread", steps, patient=patient)


@pytest.mark.skipif(not interpreters_work(), reason="this Python has no interpreters")
@given(steps=STEPS, patient=st.booleans())
@settings(deadline=None, max_examples=25)  # 3.13 leaks 3 MB with every interpreter
def test_interpreters(steps: list[Step], patient: bool) -> None:  # noqa: FBT001
    check("interpreter", steps, patient=patient)
