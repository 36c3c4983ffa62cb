"""The loads, on real pools. Nothing here depends on how fast anything is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import trio
from attrs import evolve

from trio_gateway.bench.direct import direct
from trio_gateway.bench.jobs import DECODE_RATE, ENCODE_RATE, FRAME_MS, Job, decoding, encoding
from trio_gateway.bench.load import Tally, closed_loop, lines
from trio_gateway.bench.micro import pairs, seconds_each
from trio_gateway.bench.mixed import mixed
from trio_gateway.bench.moments import STARTS, bursts, starts
from trio_gateway.errors import CodecError
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.opus import library_path, load_codec
from trio_gateway.workers.pool import KINDS, open_worker_pool
from trio_gateway.workers.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Callable

CODEC = load_codec(library_path())
THREADS = PoolSettings(kind="thread", min_workers=2, max_workers=2)
SHORT = 0.01  # seconds


@pytest.fixture(scope="module")
def hearing() -> Job:
    return decoding(CODEC, 24000)


@pytest.fixture(scope="module")
def speaking() -> Job:
    return encoding(CODEC, 0, 24000)


def broken(job: Job) -> Job:
    """The same with a frame that libopus refuses."""
    return evolve(job, frames=[b"\xff\xff", *job.frames[1:]])


def test_the_speech_is_cut_into_frames_of_60_ms(hearing: Job, speaking: Job) -> None:
    assert FRAME_MS == 60
    assert (hearing.rate, speaking.rate) == (DECODE_RATE, ENCODE_RATE) == (16000, 24000)
    assert {np.asarray(frame).shape for frame in speaking.frames} == {(1440,)}
    assert len(hearing.frames) > 40
    assert len({bytes(packet) for packet in hearing.frames}) > 40


async def test_every_frame_of_a_closed_loop_is_counted_once(hearing: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        run = await closed_loop(pool, hearing, 6, SHORT, busy=False)
        statistics = pool.statistics()
    assert 0 < run.frames == len(run.latencies) <= statistics.frames
    assert (statistics.streams, statistics.in_flight, statistics.waiting) == (0, 0, 0)
    assert statistics.failed == 0
    assert run.busy == 0
    assert run.codec is not None
    assert run.codec > 0


async def test_a_busy_trio_thread_does_not_count_as_the_frames(speaking: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        run = await closed_loop(pool, speaking, 2, 0.1, busy=True)
    assert 0 < run.busy <= 1
    assert run.cpu > 0


async def test_streams_begin_at_different_places(hearing: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        with lines(pool, hearing, 4, Tally()) as opened:
            positions = [line.position for line in opened]
    assert positions == [len(hearing.frames) * index // 4 for index in range(4)]


@pytest.mark.parametrize("load", [closed_loop, bursts])
async def test_a_frame_that_fails_ends_the_measurement(
    hearing: Job, load: Callable[..., Any]
) -> None:
    how = {"busy": False} if load is closed_loop else {}
    async with open_worker_pool(THREADS) as pool:
        with pytest.raises(CodecError):
            await load(pool, broken(hearing), 2, 0.5, **how)
        assert pool.statistics().streams == 0


async def test_a_load_that_is_cancelled_leaves_nothing_in_the_pool(hearing: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        with trio.move_on_after(0.02) as scope:
            await closed_loop(pool, hearing, 8, 60.0, busy=True)
        assert scope.cancelled_caught
        assert pool.statistics().streams == 0
        with trio.fail_after(5):
            # What the workers had in hand; the pool announces nothing.
            while pool.statistics().in_flight:  # noqa: ASYNC110
                await trio.sleep(0.001)


async def test_a_burst_is_a_frame_of_every_stream(hearing: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        run = await bursts(pool, hearing, 20, SHORT)
        frames = pool.statistics().frames
    assert run.frames == frames
    assert frames % 20 == 0
    assert run.jitter <= float(run.latencies.max() - run.latencies.min())


@pytest.mark.parametrize("parked", [False, True])
async def test_starts(parked: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    made: list[str] = []
    runs: list[str] = []

    class Counted(ThreadRunner):
        def prepare(self) -> None:
            made.append("prepared")

        def run(self, job: Any) -> None:
            runs.append("run")
            super().run(job)

    monkeypatch.setitem(cast("dict[str, Any]", KINDS), "thread", Counted)
    run = await starts(PoolSettings(kind="thread"), parked=parked)
    assert run.frames == STARTS
    assert run.elapsed == pytest.approx(float(run.latencies.sum()))
    assert len(made) == 1 + STARTS
    # Those that are measured run in runners that have run before.
    assert len(runs) - len(made) == (STARTS if parked else 0)


async def test_the_mixed_load_is_both(hearing: Job, speaking: Job) -> None:
    async with open_worker_pool(THREADS) as pool:
        heard, said = await mixed(pool, hearing, speaking, 8, 0.05)
        statistics = pool.statistics()
    assert 0 < heard.frames <= statistics.decoded
    assert 0 < said.frames <= statistics.encoded
    assert (statistics.streams, statistics.failed) == (0, 0)


@pytest.mark.parametrize("threads", [1, 3])
async def test_direct_does_the_job_in_every_thread(hearing: Job, threads: int) -> None:
    run = await direct(hearing, threads, SHORT)
    assert run.frames == len(run.latencies) >= threads
    assert run.elapsed >= SHORT


async def test_direct_says_what_libopus_refuses(hearing: Job) -> None:
    with pytest.raises(CodecError):
        await direct(broken(hearing), 2, 5.0)


async def test_direct_ends_when_it_is_cancelled(hearing: Job) -> None:
    before = set(threading.enumerate())
    with trio.move_on_after(0.02) as scope:
        await direct(hearing, 2, 600.0)
    assert scope.cancelled_caught
    with trio.fail_after(5):
        while any("ThreadPool" in each.name for each in set(threading.enumerate()) - before):  # noqa: ASYNC110
            await trio.sleep(0.001)


def test_both_ways_of_a_pair_can_be_timed(hearing: Job, speaking: Job) -> None:
    for pair in pairs(hearing, speaking):
        assert seconds_each(pair.on, pair.frames, 0.001) > 0
        assert seconds_each(pair.off, pair.frames, 0.001) > 0
