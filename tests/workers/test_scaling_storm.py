"""Workers come and go by the thousand, under full load, and nothing is lost and nothing grows."""

from __future__ import annotations

import gc
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import psutil
import pytest
import trio
from leftovers import no_codec_state_left, nothing_left, open_descriptors
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames, packets

from trio_gateway.settings import PoolSettings
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.stream import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool

KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]

PACKETS = packets(16000, 60)
PCM = frames(24000, 60, frame_ms=20)


def decoded() -> list[bytes]:
    reference = ReferenceDecoder(16000)
    return [reference.decode(packet).tobytes() for packet in PACKETS]


def encoded() -> list[bytes]:
    reference = ReferenceEncoder(24000, complexity=0)
    return [reference.encode(pcm) for pcm in PCM]


DECODED, ENCODED = decoded(), encoded()


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left(), no_codec_state_left():
        yield


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> PoolSettings:
    return PoolSettings(kind=request.param, min_workers=1, max_workers=4)


class Talker:
    """Somebody who always has one frame under way and one waiting, stream after stream.

    Attributes:
        heard: Frames that came back right.
        wrong: What came back instead, if anything did.
    """

    def __init__(self, pool: WorkerPool, *, encodes: bool) -> None:
        self.talks = True
        self.heard = 0
        self.wrong: list[object] = []
        self._pool = pool
        self._encodes = encodes
        self._right = ENCODED if encodes else DECODED
        self._begin()

    def _begin(self) -> None:
        self._stream = (
            self._pool.encoder(24000, complexity=0, bitrate=24000)
            if self._encodes
            else self._pool.decoder(16000)
        )
        self._expected = 0
        self._numbers = count()
        self._say()
        self._say()

    def _say(self) -> None:
        number = next(self._numbers)
        if number >= len(self._right):
            return
        done = partial(self._done, number)
        if isinstance(self._stream, Decoder):
            self._stream.submit_decode(PACKETS[number], done)
        else:
            self._stream.submit_encode(PCM[number], done)

    def _done(self, number: int, result: Result) -> None:
        if isinstance(result, Exception):
            if self.talks:
                self.wrong.append(result)
            return
        if self.talks:
            self._say()
        data = result if isinstance(result, bytes) else result.tobytes()
        if number != self._expected or data != self._right[number]:
            self.wrong.append(number)
        self._expected += 1
        self.heard += 1
        if self.talks and self._expected == len(self._right):
            self._stream.close()
            self._begin()


async def up_and_down(pool: WorkerPool, sizes: Sequence[int], cycles: int) -> None:
    for _ in range(cycles):
        for workers in sizes:
            await pool.resize(workers)


async def test_a_thousand_scale_downs_under_full_load_lose_nothing(settings: PoolSettings) -> None:
    busy = 0  # scale-downs that found every worker with a frame in its hands
    with trio.fail_after(60):
        async with open_worker_pool(settings) as pool:
            talkers = [Talker(pool, encodes=number % 4 == 0) for number in range(24)]
            for _ in range(334):
                await pool.resize(4)
                for workers in (3, 2, 1):
                    busy += all(worker.in_flight for worker in pool.statistics().workers)
                    await pool.resize(workers)
            statistics = pool.statistics()
            heard = [talker.heard for talker in talkers]
            for talker in talkers:
                talker.talks = False
        assert [talker.wrong for talker in talkers] == [[]] * len(talkers)
        assert statistics.frames == sum(heard)
        assert statistics.dropped == statistics.failed == statistics.deaths == 0
        assert min(heard) > 2 * len(DECODED)
        assert busy > 100  # how many it are is the machine's affair


async def test_five_hundred_rounds_up_and_down_take_no_more_memory(settings: PoolSettings) -> None:
    """3.13 loses 3 MB with an interpreter that is destroyed, so 500 of them would be 1.5 GB.

    The limit is for the allocators: their arenas and those of idle threads settle within the first
    rounds, and then come and go with whatever else this process does.
    """
    process = psutil.Process()

    def memory() -> int:
        gc.collect()
        return int(process.memory_info().rss)

    with trio.fail_after(60):
        async with open_worker_pool(settings) as pool:
            talkers = [Talker(pool, encodes=number % 2 == 0) for number in range(2)]
            await up_and_down(pool, (2, 1), 20)
            before, descriptors = memory(), open_descriptors()
            await up_and_down(pool, (2, 1), 500)
            assert memory() - before < 4 << 20
            assert open_descriptors() == descriptors
            for talker in talkers:
                talker.talks = False


async def test_resizes_that_are_cancelled_under_full_load_lose_nothing(
    settings: PoolSettings,
) -> None:
    with trio.fail_after(60):
        async with open_worker_pool(settings) as pool:
            talkers = [Talker(pool, encodes=number % 4 == 0) for number in range(24)]
            for step in range(200):  # a resize takes up to 5 ms: from at once to hardly
                with trio.move_on_after(step % 20 * 0.00025):
                    async with trio.open_nursery() as nursery:
                        for workers in (4, 1, 3, 2):
                            nursery.start_soon(pool.resize, workers)
            await pool.resize(2)
            statistics = pool.statistics()
            for talker in talkers:
                talker.talks = False
        # Whom a resize had retired when it was cancelled may still be at its last frames.
        ready = [worker for worker in statistics.workers if worker.state != "draining"]
        assert len(ready) == 2
        assert [talker.wrong for talker in talkers] == [[]] * len(talkers)
        assert statistics.dropped == statistics.failed == statistics.deaths == 0
