"""Workers that die and lie, and the calls around them."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from leftovers import nothing_left
from listener import PACKETS, TRAP, Listener, decoded, poll
from odd_workers import Trap, kinds_of, read_tickets, report, work
from opus_reference import ReferenceEncoder, frames

from trio_gateway.errors import WorkerFailed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers import dispatch, supervisor
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.workers.base import Job

SETTINGS = PoolSettings(
    kind="thread", min_workers=1, max_workers=4, in_flight=600.0, drain_timeout=0.1
)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left():
        yield


def divide_by_zero() -> int:
    return 1 // 0


async def test_a_worker_that_dies_in_the_middle_of_a_batch_costs_one_stream_one_frame() -> None:
    trap = Trap(len(TRAP), divide_by_zero)
    async with open_worker_pool(SETTINGS, kinds=kinds_of(trap)) as pool:
        listeners = [Listener(pool) for _ in range(6)]
        with pool.batch():  # one write: all six are in the worker's hands when it dies
            for number, listener in enumerate(listeners):
                listener.submit(TRAP if number == 2 else PACKETS[0])
        with pool.batch():
            for listener in listeners:
                listener.submit(*PACKETS[1:3])
        for number, listener in enumerate(listeners):
            if number == 2:  # its decoder has heard nothing but a loss
                assert await listener.pcm() == decoded([None, *PACKETS[1:3]])
            else:
                assert await listener.pcm() == decoded([*PACKETS[:3]])
        await poll(lambda: len(pool.statistics().workers) == 1)
        statistics = pool.statistics()
        assert (statistics.deaths, statistics.concealed, statistics.decoded) == (1, 1, 17)
        assert statistics.slots_used == statistics.waiting == statistics.in_flight == 0


async def test_an_encoders_frame_is_done_again() -> None:
    pcm = frames(24000, 3)
    trap = Trap(len(pcm[0]), divide_by_zero)
    async with open_worker_pool(SETTINGS, kinds=kinds_of(trap)) as pool:
        encoder, reference = pool.encoder(24000, bitrate=24000), ReferenceEncoder(24000)
        for frame in pcm:
            assert await encoder.encode(frame) == reference.encode(frame)
        statistics = pool.statistics()
        assert (statistics.deaths, statistics.encoded, statistics.dropped) == (1, 3, 0)


async def test_a_frame_that_kills_does_not_get_a_third_worker() -> None:
    pcm = frames(24000, 1)[0]
    trap = Trap(len(pcm), divide_by_zero, times=99)
    async with open_worker_pool(SETTINGS, kinds=kinds_of(trap)) as pool:
        with pytest.raises(WorkerFailed, match="two workers"):
            await pool.encoder(24000).encode(pcm)
        assert len(await pool.decoder(16000).decode(PACKETS[0])) == 960
        assert pool.statistics().deaths == 2


@pytest.mark.parametrize(("number", "result"), [(1, 960), (0, 100_000), (0, 0)])
async def test_a_worker_that_lies_is_replaced(number: int, result: int) -> None:
    def lie(job: Job) -> None:
        report(job)
        read_tickets(job)
        report(job, number, result)
        while read_tickets(job):
            pass

    async with open_worker_pool(SETTINGS, kinds=kinds_of(lie, work)) as pool:
        first, second = Listener(pool), Listener(pool)
        with pool.batch():
            first.submit(PACKETS[0])
            second.submit(PACKETS[0])
        for listener in (first, second):  # it may have begun either
            listener.submit(PACKETS[1])
            assert await listener.pcm() == decoded([None, PACKETS[1]])
        statistics = pool.statistics()
        assert (statistics.deaths, statistics.concealed, statistics.decoded) == (1, 2, 2)


async def test_a_liar_that_floods_its_pipe_cannot_hang() -> None:
    def flood(job: Job) -> None:
        report(job)
        while True:
            os.write(job.reply_fd, bytes(4096))

    settings = PoolSettings(kind="thread", min_workers=1, drain_timeout=60)
    with trio.fail_after(5):
        async with open_worker_pool(settings, kinds=kinds_of(flood, work)) as pool:
            await poll(lambda: pool.statistics().deaths == 1)


async def test_whoever_dies_while_the_pool_shrinks_there_is_a_worker_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "RETRY", 0.01)
    settings = PoolSettings(kind="thread", min_workers=1, max_workers=4)
    leave = [threading.Event() for _ in range(4)]

    def one_of(number: int, job: Job) -> None:
        report(job)
        leave[number].wait()  # a slow drain: the others' turn comes later
        raise ZeroDivisionError

    behaviours = [partial(one_of, number) for number in range(4)]
    async with open_worker_pool(settings, kinds=kinds_of(*behaviours, work)) as pool:
        await pool.resize(4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.resize, 1)
            await poll(lambda: "draining" in {w.state for w in pool.statistics().workers})
            first = [worker.state for worker in pool.statistics().workers].index("draining")
            for number in range(4):
                if number != first:
                    leave[number].set()
            await poll(lambda: pool.statistics().deaths == 3)
            leave[first].set()
        with trio.fail_after(5):
            assert len(await pool.decoder(16000).decode(PACKETS[0])) == 960
        assert pool.statistics().target == 1


async def test_workers_that_die_together_are_replaced_once_each() -> None:
    die = threading.Event()

    def mortal(job: Job) -> None:
        report(job)
        read_tickets(job)
        die.wait()
        raise ZeroDivisionError

    settings = PoolSettings(kind="thread", min_workers=3, max_workers=3)
    kinds = kinds_of(mortal, mortal, mortal, work)
    async with open_worker_pool(settings, kinds=kinds) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pool.decoder(16000).decode, PACKETS[0])
        await poll(lambda: pool.statistics().in_flight == 3)
        die.set()
        await poll(lambda: pool.statistics().deaths == 3)
        await pool.resize(3)  # asks for what is on its way already
        names = [worker.name for worker in pool.statistics().workers]
        assert names == ["thread-4", "thread-5", "thread-6"]


async def test_a_worker_that_cannot_be_replaced_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "RETRY", 0.01)

    def fail(_: Job) -> None:
        raise OSError("no libopus today")

    trap = Trap(len(TRAP), divide_by_zero)
    async with open_worker_pool(SETTINGS, kinds=kinds_of(trap, fail, fail, work)) as pool:
        listener = Listener(pool)
        listener.submit(PACKETS[0], TRAP, PACKETS[1])
        assert (await listener.pcm())[0] == decoded([PACKETS[0]])[0]
        assert pool.statistics().deaths == 1, "what never started did not die"


async def test_workers_that_die_idle_are_not_replaced_in_a_frenzy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "RETRY", 0.05)
    async with open_worker_pool(SETTINGS, kinds=kinds_of(report)) as pool:
        started = trio.current_time()
        await poll(lambda: pool.statistics().deaths >= 3)
        assert trio.current_time() - started >= 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_death_is_noticed_while_a_forked_child_holds_the_pipes_open() -> None:
    trap = Trap(len(TRAP), divide_by_zero)
    settings = PoolSettings(kind="thread", min_workers=2)
    async with open_worker_pool(settings, kinds=kinds_of(trap)) as pool:
        blocked, unblock = os.pipe()
        with warnings.catch_warnings():
            # 3.12+ warns of a child that takes locks of other threads. This one takes none.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(unblock)
            os.read(blocked, 1)
            os._exit(0)
        try:
            with trio.fail_after(1):  # STOP tells what end-of-file cannot
                await pool.resize(1)
            listener = Listener(pool)
            listener.submit(PACKETS[0], TRAP, PACKETS[1])
            heard = await listener.pcm()
            assert heard[0] == decoded([PACKETS[0]])[0]
            assert heard[1:] == decoded([None, PACKETS[1]])
            assert pool.statistics().deaths == 1
        finally:
            os.close(blocked)
            os.close(unblock)
            await trio.to_thread.run_sync(os.waitpid, child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="how to make a pipe small")
@pytest.mark.parametrize("drained", [False, True])
async def test_tickets_that_a_full_pipe_did_not_take_are_not_lost(
    drained: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fcntl  # noqa: PLC0415

    release = threading.Event()

    def wait() -> int:
        release.wait()
        return -1

    monkeypatch.setattr(dispatch, "MAX_TICKETS", 256)  # as it is, every pipe holds them
    trap = Trap(len(TRAP), wait)
    settings = PoolSettings(kind="thread", min_workers=1, max_workers=2, in_flight=600.0)
    try:
        async with open_worker_pool(settings, kinds=kinds_of(trap, work)) as pool:
            (worker,) = pool._supervisor.workers
            fcntl.fcntl(worker._request_write, fcntl.F_SETPIPE_SZ, 4096)
            first = Listener(pool)
            first.submit(TRAP)
            await poll(lambda: trap.left == 0)  # it reads no more: 170 tickets fit
            listeners = [Listener(pool) for _ in range(255)]
            with pool.batch():
                for listener in listeners:
                    listener.submit(PACKETS[0])
            if drained:
                async with trio.open_nursery() as nursery:
                    await pool.resize(2)
                    worker.retire()
                    nursery.start_soon(worker.gone.wait)
                    expected = 255 - len(worker.lane.held) + 1
                    assert 0 < expected < 255
                    release.set()
            release.set()
            right = decoded([PACKETS[0]])
            for listener in listeners:
                assert await listener.pcm() == right
            assert pool.statistics().deaths == pool.statistics().concealed == 0
    finally:
        release.set()
