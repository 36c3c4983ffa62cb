"""Every way out of a pool: nothing stays behind, every frame gets its result, nothing hangs."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
import trio.testing
from leftovers import nothing_left
from odd_workers import Trap, kinds_of
from opus_reference import packets

from trio_gateway.errors import FrameDropped, PoolClosed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.stream import Decoder

KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]
PACKETS = packets(16000, 3)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> PoolSettings:
    return PoolSettings(kind=request.param, min_workers=2, max_workers=4)


async def use(pool: WorkerPool) -> None:
    """Keep it busy in every way."""

    async def talk() -> None:
        while True:
            with pool.decoder(16000) as decoder:
                for packet in PACKETS:
                    await decoder.decode(packet)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(talk)
        while True:
            for number in (4, 1, 3):
                await pool.resize(number)


async def test_what_is_in_flight_is_finished_and_what_waits_is_not(settings: PoolSettings) -> None:
    results: list[Result] = []
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        for packet in PACKETS:
            decoder.submit_decode(packet, results.append)
        assert (pool.statistics().in_flight, pool.statistics().waiting) == (1, 2)
    assert sorted(type(result).__name__ for result in results) == [
        "PoolClosed",
        "PoolClosed",
        "ndarray",
    ]
    assert pool.statistics().slots_used == 0


async def test_a_stream_that_closes_gets_what_is_in_flight(settings: PoolSettings) -> None:
    results: list[Result] = []
    async with open_worker_pool(settings) as pool:
        with pool.decoder(16000) as decoder:
            for packet in PACKETS:
                decoder.submit_decode(packet, results.append)
        assert [type(result) for result in results] == [FrameDropped, FrameDropped]
        with trio.fail_after(5):
            while len(results) < 3:
                await trio.lowlevel.checkpoint()
        assert isinstance(results[-1], np.ndarray)
        assert pool.statistics().streams == 0


async def test_those_who_wait_are_told_at_once() -> None:
    release = threading.Event()
    told: list[str] = []

    def wait_for_release() -> int:
        release.wait(5)
        return -1

    async def listen(decoder: Decoder) -> None:
        with pytest.raises(PoolClosed):
            await decoder.decode(PACKETS[1])
        told.append("closed")
        release.set()  # only now can the worker drain

    kinds = kinds_of(Trap(len(PACKETS[0]), wait_for_release))
    settings = PoolSettings(kind="thread", min_workers=1, in_flight=1e-9)
    async with trio.open_nursery() as nursery:
        async with open_worker_pool(settings, kinds=kinds) as pool:
            pool.decoder(16000).submit_decode(PACKETS[0], lambda _: told.append("in flight"))
            for _ in range(3):
                nursery.start_soon(listen, pool.decoder(16000))
            await trio.testing.wait_all_tasks_blocked()
        assert told == ["closed"] * 3 + ["in flight"]
        with pytest.raises(PoolClosed):
            pool.decoder(16000)
        with pytest.raises(PoolClosed):
            await pool.resize(1)


async def test_an_error_in_the_body_comes_out_as_it_is(settings: PoolSettings) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_worker_pool(settings):
            raise ZeroDivisionError


async def test_cancelled_at_any_time(settings: PoolSettings) -> None:
    """While it opens, while it is used and resized, and while it closes."""
    for step in range(24):
        with trio.fail_after(5), trio.move_on_after(step * 0.0005):
            async with open_worker_pool(settings) as pool:
                with trio.move_on_after(0.004):
                    await use(pool)


async def test_cancelled_before_it_is_opened(settings: PoolSettings) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_worker_pool(settings):
            raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_the_workers_outlive_the_body(settings: PoolSettings) -> None:
    """A body that was cancelled may say its last words."""
    with trio.CancelScope() as scope:
        async with open_worker_pool(settings) as pool:
            decoder = pool.decoder(16000)
            try:
                scope.cancel()
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True), trio.fail_after(5):
                    for packet in PACKETS:
                        assert len(await decoder.decode(packet)) == 960
    assert scope.cancelled_caught


def test_ctrl_c_at_any_time(settings: PoolSettings) -> None:
    """Real ones, from another thread, while frames and workers come and go."""

    async def main(delay: float) -> None:
        timer = threading.Timer(delay, signal.raise_signal, [signal.SIGINT])
        # Protected, or the interrupt may hit threading's own lock inside start().
        trio.lowlevel.enable_ki_protection(timer.start)()
        async with open_worker_pool(settings) as pool:
            await use(pool)

    for step in range(12):
        with pytest.raises(BaseException) as raised:  # noqa: PT011  a KeyboardInterrupt, or a group
            trio.run(main, step * 0.003)
        assert only_interrupts(raised.value)


def only_interrupts(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(only_interrupts(each) for each in error.exceptions)
    return isinstance(error, KeyboardInterrupt)
