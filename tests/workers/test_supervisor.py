"""Workers that come and go: the right number of them, started and parked as they should be."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from leftovers import interpreters, nothing_left, worker_threads
from odd_workers import kinds_of, read_tickets, report, work
from opus_reference import packets

from trio_gateway.errors import PoolClosed, WorkerFailed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers import supervisor, worker
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.runners import Runners
from trio_gateway.workers.thread import ThreadRunner
from trio_gateway.workers.wire import TICKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.workers.base import Job
    from trio_gateway.workers.pool import WorkerPool

KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]
PACKET = packets(16000, 1)[0]


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> PoolSettings:
    return PoolSettings(kind=request.param, min_workers=2, max_workers=4)


def one_thread(**more: float) -> PoolSettings:
    return PoolSettings(kind="thread", min_workers=1, max_workers=4, **more)  # type: ignore[arg-type]


@contextmanager
def free_descriptors(number: int) -> Iterator[None]:
    """Let this process open that many more."""
    lowest = [os.dup(0) for _ in range(number + 1)]
    for fd in lowest:
        os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(lowest), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_as_many_as_asked_for_each_in_a_thread_of_its_name(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        for number in (2, 4, 1, 3):
            await pool.resize(number)
            workers = pool.statistics().workers
            assert [worker.state for worker in workers] == ["ready"] * number
            assert pool.statistics().target == number
            assert sorted(worker_threads()) == sorted(worker.name for worker in workers)
            assert {worker.kind for worker in workers} == {settings.kind}
        for wrong in (0, 5):
            with pytest.raises(ValueError, match="1 to 4"):
                await pool.resize(wrong)


async def test_the_least_busy_goes_first() -> None:
    release = threading.Event()

    def busy(job: Job) -> None:
        report(job)
        release.wait()

    kinds = kinds_of(busy, work)
    async with open_worker_pool(one_thread(), kinds=kinds) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.decoder(16000).decode, PACKET)
        await trio.testing.wait_all_tasks_blocked()
        await pool.resize(3)
        await pool.resize(1)
        (left,) = pool.statistics().workers
        assert (left.name, left.in_flight) == ("thread-1", 1)
        release.set()


@pytest.mark.skipif(not interpreters_work(), reason="this Python has no interpreters")
async def test_drained_interpreters_are_parked_and_used_again() -> None:
    before = interpreters()
    async with open_worker_pool(PoolSettings(kind="interpreter", max_workers=3)) as pool:
        for _ in range(5):
            await pool.resize(3)
            assert interpreters() == before + 3
            await pool.resize(1)
            assert interpreters() == before + 3
        assert len(await pool.decoder(16000).decode(PACKET)) == 960
    assert interpreters() == before


async def test_many_ask_at_once_and_the_last_one_is_right(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        async with trio.open_nursery() as nursery:
            for number in (4, 1, 3, 2, 4, 3):
                nursery.start_soon(pool.resize, number)
                await trio.lowlevel.checkpoint()
        assert len(pool.statistics().workers) == pool.statistics().target == 3


async def test_a_start_that_fails_leaves_what_there_is() -> None:
    def fail(_: Job) -> None:
        raise OSError("no libopus today")

    async with open_worker_pool(one_thread(), kinds=kinds_of(work, work, fail)) as pool:
        with pytest.raises(WorkerFailed, match=r"thread-3 did not start: .*no libopus today"):
            await pool.resize(4)
        statistics = pool.statistics()
        assert len(statistics.workers) == statistics.target == 2
        assert statistics.deaths == 0
        assert len(await pool.decoder(16000).decode(PACKET)) == 960


async def test_a_worker_that_says_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "START_TIMEOUT", 0.05)
    release = threading.Event()

    def say_nothing(_: Job) -> None:
        release.wait()

    kinds = kinds_of(say_nothing)
    try:
        with pytest.raises(WorkerFailed, match=r"not ready in 0\.05 s"):
            async with open_worker_pool(one_thread(drain_timeout=0.05), kinds=kinds):
                raise AssertionError("not reached")
    finally:
        release.set()
    with trio.fail_after(5):
        while worker_threads():  # noqa: ASYNC110  they are no tasks
            await trio.sleep(0.001)


async def test_without_descriptors_there_is_no_worker_and_no_harm(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        await pool.resize(4)
        await pool.resize(2)  # the runners of the next two are there
        for free in (0, 1, 2, 3):
            with free_descriptors(free), pytest.raises(WorkerFailed, match="Too many open files"):
                await pool.resize(4)
            assert pool.statistics().target == 2
            assert len(await pool.decoder(16000).decode(PACKET)) == 960
        await pool.resize(4)


async def test_without_threads_there_is_no_worker_and_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    async with open_worker_pool(one_thread()) as pool:
        await pool.resize(2)
        await pool.resize(1)
        for number in (2, 3):  # one runner is there, the next would have to be made
            with monkeypatch.context() as patched:
                patched.setattr("trio._threads.start_thread_soon", refuse)
                with pytest.raises(WorkerFailed, match="can't start new thread"):
                    await pool.resize(number)
            await pool.resize(number)


async def test_where_interpreters_do_not_start_auto_takes_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []

    class Broken(ThreadRunner):
        kind = "interpreter"

        def run(self, _: Job) -> None:
            raise WorkerFailed("it does not load here")

        def close(self) -> None:
            closed.append(self.kind)

    monkeypatch.setattr(supervisor, "interpreters_work", lambda: True)
    kinds = {"interpreter": Broken, "thread": ThreadRunner}
    async with open_worker_pool(PoolSettings(kind="auto", min_workers=2), kinds=kinds) as pool:
        assert closed == ["interpreter"]
        assert pool.kind == pool.statistics().kind == "thread"
        assert [worker.kind for worker in pool.statistics().workers] == ["thread"] * 2
    assert closed == ["interpreter"]
    with pytest.raises(WorkerFailed, match="does not load"):
        async with open_worker_pool(settings_for("interpreter"), kinds=kinds):
            raise AssertionError("not reached")


def settings_for(kind: str) -> PoolSettings:
    """Settings that name a kind which this Python may not have."""
    settings = PoolSettings(kind="thread")
    object.__setattr__(settings, "kind", kind)
    return settings


async def test_a_runner_that_cannot_be_made_or_taken_down_is_an_error_not_a_crash() -> None:
    class Stubborn(ThreadRunner):
        made = 0

        def prepare(self) -> None:
            Stubborn.made += 1
            if Stubborn.made == 3:
                raise MemoryError("no room for a third")

        def close(self) -> None:
            raise WorkerFailed("it stays")

    async with open_worker_pool(one_thread(), kinds={"thread": Stubborn}) as pool:
        with pytest.raises(WorkerFailed, match="no room"):
            await pool.resize(3)
        assert len(pool.statistics().workers) == pool.statistics().target == 2


async def test_a_cancelled_resize_says_how_many_there_are(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        for milliseconds in range(20):
            for number in (4, 1):
                with trio.move_on_after(milliseconds / 4000):
                    await pool.resize(number)
                statistics = pool.statistics()
                left = [one for one in statistics.workers if one.state != "draining"]
                assert 1 <= len(left) == statistics.target <= 4
            assert len(await pool.decoder(16000).decode(PACKET)) == 960


async def test_a_draining_worker_is_not_one_of_those_asked_for() -> None:
    leave = threading.Event()

    def drain_slowly(job: Job) -> None:
        report(job)
        leave.wait()

    kinds = kinds_of(drain_slowly, work)
    async with open_worker_pool(one_thread(), kinds=kinds) as pool:
        await pool.resize(2)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.resize, 1)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await pool.resize(3)
        states = [worker.state for worker in pool.statistics().workers]
        assert states == ["draining", "ready", "ready", "ready"]
        leave.set()


async def test_a_start_that_is_under_way_when_the_pool_is_left_comes_to_its_end() -> None:
    go_on = threading.Event()
    runners: list[str] = []

    class Slow(ThreadRunner):
        def prepare(self) -> None:
            if runners:
                go_on.wait()
            runners.append("made")

        def close(self) -> None:
            runners.append("closed")

    kinds = {"thread": Slow}
    async with trio.open_nursery() as nursery, open_worker_pool(one_thread(), kinds=kinds) as pool:
        nursery.start_soon(expect_pool_closed, pool)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(when_closing, pool, go_on)
    assert runners == ["made", "made", "closed", "closed"]


async def test_who_waits_for_a_start_of_others_when_the_pool_is_left_is_told() -> None:
    """It would be told that there are as many workers as it asked for, and there are none."""

    def die(job: Job) -> None:
        report(job)
        read_tickets(job)
        raise ZeroDivisionError

    def start_for_ever(job: Job) -> None:
        read_tickets(job)  # STOP

    kinds = kinds_of(die, start_for_ever)
    async with trio.open_nursery() as nursery, open_worker_pool(one_thread(), kinds=kinds) as pool:
        pool.decoder(16000).submit_decode(PACKET, lambda _: None)
        with trio.fail_after(5):
            while [worker.state for worker in pool.statistics().workers] != ["starting"]:
                await trio.lowlevel.checkpoint()
        nursery.start_soon(expect_pool_closed, pool)
        await trio.testing.wait_all_tasks_blocked()


async def expect_pool_closed(pool: WorkerPool) -> None:
    with pytest.raises(PoolClosed):
        await pool.resize(4)


async def when_closing(pool: WorkerPool, event: threading.Event) -> None:
    while pool._supervisor.workers:
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    event.set()


async def test_nobody_waits_for_the_next_try_when_the_pool_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "RETRY", 600.0)
    with trio.fail_after(5):
        async with open_worker_pool(one_thread(), kinds=kinds_of(report)) as pool:
            while not pool.statistics().deaths:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("torn", [False, True])
async def test_stop_is_written_unless_half_a_ticket_is_before_it(torn: bool) -> None:  # noqa: FBT001
    got: list[bytes] = []

    def record(job: Job) -> None:
        report(job)
        while data := os.read(job.request_fd, 4096):
            got.append(data)

    async with open_worker_pool(one_thread(), kinds=kinds_of(record)) as pool:
        (only,) = pool._supervisor.workers
        assert only._scope.deadline == inf, "the time to start in is over"
        if torn:
            write = only.lane._write
            only.lane._write = lambda data: write(data[:5])
            pool.decoder(16000).submit_decode(PACKET, lambda _: None)
    # 5 bytes when the frame was submitted, 5 more at the last attempt; or STOP.
    assert len(b"".join(got)) == (10 if torn else TICKET.size)


async def resize_until_closed(pool: WorkerPool) -> None:
    try:
        while True:
            await pool.resize(4)
            await pool.resize(1)
    except PoolClosed:
        pass


async def test_resizing_and_closing_at_once(settings: PoolSettings) -> None:
    """A task outside of the pool may be at it while the pool is left."""
    for milliseconds in range(10):
        async with trio.open_nursery() as nursery, open_worker_pool(settings) as pool:
            nursery.start_soon(resize_until_closed, pool)
            await trio.sleep(milliseconds / 2000)
        assert pool.statistics().workers == ()


async def test_who_is_ready_when_nobody_waits_any_more_is_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "START_TIMEOUT", 0.05)
    given_up = threading.Event()

    def be_late(job: Job) -> None:
        read_tickets(job)  # STOP
        report(job)
        given_up.set()

    with pytest.raises(WorkerFailed, match="not ready in 0"):
        async with open_worker_pool(one_thread(), kinds=kinds_of(be_late)):
            pytest.fail("it is not open")
    assert given_up.is_set()


async def test_a_worker_that_dies_while_the_body_unwinds_is_replaced() -> None:
    def die(job: Job) -> None:
        report(job)
        read_tickets(job)
        raise ZeroDivisionError

    with trio.CancelScope() as around:
        async with open_worker_pool(one_thread(), kinds=kinds_of(die, work)) as pool:
            around.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                decoder = pool.decoder(16000)
                await decoder.decode(PACKET)  # concealed, and the next one
                await decoder.decode(PACKET)
                assert pool.statistics().deaths == 1


async def test_a_parked_runner_of_another_kind_is_left_where_it_is() -> None:
    class Other(ThreadRunner):
        kind = "other"

    runners = Runners({"thread": ThreadRunner, "other": Other})
    runners.parked += [ThreadRunner(), Other()]
    assert (await runners.take("thread")).kind == "thread"
    assert (await runners.take("thread")).kind == "thread"
    assert [runner.kind for runner in runners.parked] == ["other"]
