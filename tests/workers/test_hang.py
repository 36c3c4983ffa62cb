"""Workers that hang: libopus does not return, or returns when nobody waits for it any more."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
import trio.testing
from attrs import evolve
from leftovers import interpreters, nothing_left, worker_threads
from listener import PACKETS, TRAP, Listener, decoded, poll
from odd_workers import Trap, kinds_of, report, work
from opus_reference import ReferenceEncoder, frames

from trio_gateway.errors import PoolClosed, WorkerFailed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers import runners, supervisor
from trio_gateway.workers.interpreter import InterpreterRunner, interpreters_work
from trio_gateway.workers.pool import KINDS, open_worker_pool
from trio_gateway.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from trio_gateway.workers.base import Job, Runner
    from trio_gateway.workers.pool import WorkerPool

SETTINGS = PoolSettings(
    kind="thread",
    min_workers=1,
    max_workers=4,
    in_flight=600.0,
    drain_timeout=0.1,
    hang_timeout=0.2,
)
SLACK = 4.0  # for a machine with other things to do; what is not bounded takes for ever
PATIENT = evolve(SETTINGS, drain_timeout=30.0)  # whatever is bounded here is not by that


class Hang:
    """What a worker does instead of returning from libopus."""

    def __init__(self) -> None:
        self.blocked, self._release = os.pipe()

    def __call__(self) -> int:
        os.read(self.blocked, 1)
        return 960

    def release(self) -> None:
        """Let them all return."""
        if self._release >= 0:
            os.close(self._release)
            self._release = -1

    def close(self) -> None:
        """Release, and wait for the threads: the pool did not."""
        self.release()
        deadline = time.monotonic() + 5
        while worker_threads():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.close(self.blocked)


@pytest.fixture(autouse=True)
def _no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "RETRY", 600.0)  # who is replaced is replaced at once
    with nothing_left():
        yield


@pytest.fixture
def hang(_no_leftovers: None) -> Iterator[Hang]:
    hang = Hang()
    yield hang
    hang.close()


async def spring(pool: WorkerPool, *more: bytes) -> Listener:
    """Return a stream whose frame a worker hangs with."""
    victim = Listener(pool)
    victim.submit(TRAP, *more)
    await poll(lambda: pool.statistics().in_flight == 1)
    return victim


async def test_a_worker_that_hangs_with_a_decoders_frame_is_replaced(hang: Hang) -> None:
    async with open_worker_pool(PATIENT, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool, PACKETS[1])
        assert await victim.pcm() == decoded([None, PACKETS[1]])
        statistics = pool.statistics()
        assert (statistics.deaths, statistics.concealed, statistics.decoded) == (1, 1, 1)
        assert [worker.name for worker in statistics.workers] == ["thread-2"]
        assert statistics.slots_used == 1, "the thread that hangs may still write there"
        hang.release()
        await poll(lambda: not pool.statistics().hanging)
        assert pool.statistics().slots_used == 0, "now it does not"


async def test_a_worker_that_hangs_with_an_encoders_frame_is_replaced(hang: Hang) -> None:
    pcm = frames(24000, 3)
    kinds = kinds_of(Trap(len(pcm[0]), hang))
    async with open_worker_pool(SETTINGS, kinds=kinds) as pool:
        encoder, reference = pool.encoder(24000, bitrate=24000), ReferenceEncoder(24000)
        with trio.fail_after(5):
            for frame in pcm:
                assert await encoder.encode(frame) == reference.encode(frame)
        statistics = pool.statistics()
        assert (statistics.deaths, statistics.encoded, statistics.dropped) == (1, 3, 0)


async def test_no_other_stream_hears_it(hang: Hang) -> None:
    settings = evolve(SETTINGS, min_workers=2)
    async with open_worker_pool(settings, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool)
        sent = PACKETS * 3
        streams = [(pool.decoder(16000), decoded([*sent])) for _ in range(3)]
        with trio.fail_after(5):
            position = 0
            while position < len(sent) or not pool.statistics().deaths:
                for decoder, right in streams:
                    if position < len(sent):
                        pcm = await decoder.decode(sent[position])
                        assert pcm.tolist() == right[position]
                position += 1
                await trio.sleep(settings.hang_timeout / len(sent))  # before, during and after
        assert await victim.pcm() == decoded([None])
        assert (pool.statistics().deaths, pool.statistics().concealed) == (1, 1)


async def test_the_worker_that_takes_its_place_may_hang_as_well(hang: Hang) -> None:
    pcm = frames(24000, 1)[0]
    async with open_worker_pool(SETTINGS, kinds=kinds_of(Trap(len(pcm), hang, times=2))) as pool:
        with trio.fail_after(5), pytest.raises(WorkerFailed, match="two workers"):
            await pool.encoder(24000).encode(pcm)
        assert len(await pool.decoder(16000).decode(PACKETS[0])) == 960
        assert pool.statistics().deaths == pool.statistics().hanging == 2


async def test_all_may_hang_and_all_are_replaced(hang: Hang) -> None:
    settings = evolve(SETTINGS, min_workers=3)
    async with open_worker_pool(settings, kinds=kinds_of(Trap(len(TRAP), hang, times=3))) as pool:
        victims = [Listener(pool) for _ in range(3)]
        for victim in victims:
            victim.submit(TRAP)
        assert [len(worker.lane.held) for worker in pool._supervisor.workers] == [1] * 3
        bystander = Listener(pool)
        bystander.submit(*PACKETS)  # in the hands of one of them, the first of these
        for victim in victims:
            assert await victim.pcm() == decoded([None])
        assert await bystander.pcm() == decoded([None, *PACKETS[1:]])
        await poll(lambda: len(pool.statistics().workers) == 3)
        names = [worker.name for worker in pool.statistics().workers]
        assert names == ["thread-4", "thread-5", "thread-6"]


async def test_a_worker_that_hangs_while_it_drains_is_not_waited_for(hang: Hang) -> None:
    async with open_worker_pool(PATIENT, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool)
        await pool.resize(2)
        worker = pool._supervisor.workers[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.resize, 1)  # the idle one goes
            worker.retire()
        with trio.fail_after(5):
            await worker.gone.wait()
        assert await victim.pcm() == decoded([None])
        assert pool.statistics().deaths == 1
        hang.release()


async def test_a_worker_that_hangs_is_given_up_after_the_drain_timeout_as_well(hang: Hang) -> None:
    settings = evolve(SETTINGS, hang_timeout=60.0)
    async with open_worker_pool(settings, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool, PACKETS[1])
        pool._supervisor.workers[0].retire()
        assert await victim.pcm() == decoded([None, PACKETS[1]])
        assert pool.statistics().deaths == 1


async def test_frames_that_did_not_reach_it_are_done_as_if_nothing_had_happened(hang: Hang) -> None:
    async with open_worker_pool(SETTINGS, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool)
        (worker,) = pool._supervisor.workers
        worker.lane._write = lambda _: 0  # a full pipe
        other = Listener(pool)
        other.submit(*PACKETS[:3])
        assert await other.pcm() == decoded([*PACKETS[:3]])
        assert await victim.pcm() == decoded([None])


async def test_what_a_worker_says_after_it_was_given_up_hurts_nobody(hang: Hang) -> None:
    async with open_worker_pool(SETTINGS, kinds=kinds_of(Trap(len(TRAP), hang))) as pool:
        victim = await spring(pool)
        bystander = Listener(pool)
        bystander.submit(*PACKETS[:2])  # the first is in its hands
        await poll(lambda: pool.statistics().deaths == 1)
        for listener in (victim, bystander):
            listener.submit(*PACKETS[2:5])
        hang.release()  # it goes on with what it was given, in memory that nobody reads
        for listener in (victim, bystander):
            listener.submit(*PACKETS[5:])
        assert await victim.pcm() == decoded([None, *PACKETS[2:]])
        assert await bystander.pcm() == decoded([None, *PACKETS[1:]])
        await poll(lambda: not pool.statistics().hanging)
        assert pool.statistics().slots_used == 0


async def test_a_worker_that_has_long_done_its_work_does_not_hang_because_we_did() -> None:
    async with open_worker_pool(SETTINGS) as pool:
        listener = Listener(pool)
        for packet in PACKETS:
            listener.submit(packet)
            time.sleep(0.4 * SETTINGS.hang_timeout)  # noqa: ASYNC251  the stall
            await trio.lowlevel.checkpoint()
        time.sleep(3 * SETTINGS.hang_timeout)  # noqa: ASYNC251  and a long one
        assert await listener.pcm() == decoded([*PACKETS])
        await trio.sleep(SETTINGS.hang_timeout)
        assert pool.statistics().deaths == 0


async def test_what_it_has_reported_is_read_before_it_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hear_until_ready(worker: Worker, task_status: trio.TaskStatus[None]) -> None:
        while not worker.lane.ready:
            await trio.lowlevel.wait_readable(worker._reply_read)
            worker._take_replies(task_status)
        await trio.sleep_forever()

    monkeypatch.setattr(Worker, "_hear", hear_until_ready)
    async with open_worker_pool(SETTINGS) as pool:
        listener = Listener(pool)
        listener.submit(PACKETS[0])
        assert await listener.pcm() == decoded([PACKETS[0]])
        assert [worker.state for worker in pool.statistics().workers] == ["ready"]


async def test_a_lie_may_be_read_while_another_task_waits_for_the_pipe() -> None:
    may_lie = threading.Event()

    def lie(job: Job) -> None:
        report(job)
        may_lie.wait()
        report(job, number=7)

    async with open_worker_pool(SETTINGS, kinds=kinds_of(lie, work)) as pool:
        (worker,) = pool._supervisor.workers
        await trio.testing.wait_all_tasks_blocked()
        may_lie.set()
        select.select([worker._reply_read], [], [])  # and no task but this one has run
        number = worker._reply_read
        worker._take_replies(trio.TASK_STATUS_IGNORED)
        others: list[int] = []
        while number not in others:  # as soon as can be, it is something else
            others += os.pipe()
        with trio.move_on_after(0):
            await trio.lowlevel.wait_readable(number)
        for fd in others:
            os.close(fd)
        with trio.fail_after(5):
            await worker.gone.wait()
        assert worker.failure is not None
        assert "not its next one" in worker.failure
    assert pool.statistics().deaths == 1


class InterpreterThatHangs(InterpreterRunner):
    """It hangs with the packet that is a trap."""

    blocked: ClassVar[int]

    def prepare(self) -> None:
        super().prepare()
        self._exec(f"""
import os
class Trapped(loop.Codec):
    def perform(self, operation, state, packet, length, pcm, samples):
        if length == {len(TRAP)}:
            os.read({self.blocked}, 1)
        return super().perform(operation, state, packet, length, pcm, samples)
loop.Codec = Trapped
""")


def hanging_kinds(kind: str, hang: Hang) -> Mapping[str, type[Runner]]:
    """Workers of that kind that hang with TRAP."""
    if kind == "thread":
        return kinds_of(Trap(len(TRAP), hang, times=1000))
    InterpreterThatHangs.blocked = hang.blocked
    return {"interpreter": InterpreterThatHangs}


@pytest.fixture(params=[kind for kind in KINDS if kind != "interpreter" or interpreters_work()])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_runner_that_comes_back_is_used_again(kind: str, hang: Hang) -> None:
    settings = evolve(SETTINGS, kind=kind)  # type: ignore[arg-type]
    before = interpreters()
    async with open_worker_pool(settings, kinds=hanging_kinds(kind, hang)) as pool:
        victim = await spring(pool, PACKETS[1])
        assert await victim.pcm() == decoded([None, PACKETS[1]])
        hang.release()
        await poll(lambda: not pool.statistics().hanging)
        (parked,) = pool._supervisor._runners.parked
        await pool.resize(2)
        assert parked in [worker.runner for worker in pool._supervisor.workers]
        assert interpreters() - before == (2 if kind == "interpreter" else 0)


async def test_those_that_hang_when_the_pool_closes_get_another_chance(
    kind: str, hang: Hang
) -> None:
    """What is left of an interpreter is looked for by nothing_left()."""
    settings = evolve(PATIENT, kind=kind)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        async with open_worker_pool(settings, kinds=hanging_kinds(kind, hang)) as pool:
            victim = await spring(pool)
            assert await victim.pcm() == decoded([None])
            nursery.start_soon(release_when_alone, pool, hang)
        assert not pool._supervisor.hanging
        assert not pool._supervisor._runners.parked


async def release_when_alone(pool: WorkerPool, hang: Hang) -> None:
    await poll(lambda: pool._supervisor.closing and not pool._supervisor.workers)
    hang.release()


@pytest.mark.parametrize("hang_timeout", [0.2, 60.0])
async def test_however_many_hang_the_end_is_bounded(hang: Hang, hang_timeout: float) -> None:
    """Some noticed, some draining, some neither."""
    settings = evolve(SETTINGS, min_workers=4, hang_timeout=hang_timeout)
    trap = Trap(len(TRAP), hang, times=1000)
    async with open_worker_pool(settings, kinds=kinds_of(trap)) as pool:
        victims = [Listener(pool) for _ in range(8)]
        for victim in victims[:4]:
            victim.submit(TRAP, PACKETS[1])
        if hang_timeout < 1:
            await poll(lambda: pool.statistics().deaths == 4)
            await poll(lambda: len(pool.statistics().workers) == 4)
        for victim in victims[4:]:
            victim.submit(TRAP, PACKETS[1])
        pool._supervisor.workers[-1].retire()
        started = trio.current_time()
    assert trio.current_time() - started < 2 * settings.drain_timeout + SLACK
    for victim in victims:
        assert len(victim.results) == 2, "each frame has its result, whatever it is"
    assert isinstance(victims[-1].results[-1], PoolClosed)


PROGRAM = """
import os, sys, trio
sys.path[:0] = {paths!r}
from test_hang import *

async def main():
    hang = Hang()
    settings = evolve(SETTINGS, kind="interpreter")
    async with open_worker_pool(settings, kinds=hanging_kinds("interpreter", hang)) as pool:
        victim = await spring(pool)
        assert await victim.pcm() == decoded([None])
    assert pool._supervisor.hanging

trio.run(main)
sys.exit(7)
"""


@pytest.mark.skipif(not interpreters_work(), reason="this Python has no interpreters")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="which crash there at the end")
def test_a_program_ends_though_an_interpreter_hangs() -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = [sys.executable, "-c", PROGRAM.format(paths=paths)]
    assert subprocess.run(program, timeout=10, check=False).returncode == 7  # noqa: S603


async def test_a_runner_that_is_not_made_in_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, hang: Hang
) -> None:
    monkeypatch.setattr(runners, "MAKE_TIMEOUT", 0.05)
    done: list[str] = []

    class Slow(kinds_of(work)["thread"]):  # type: ignore[misc]
        def prepare(self) -> None:
            if done:
                hang()
            done.append("made")

        def close(self) -> None:
            done.append("taken down")

    async with open_worker_pool(SETTINGS, kinds={"thread": Slow}) as pool:
        with trio.fail_after(5), pytest.raises(WorkerFailed, match="not made in"):
            await pool.resize(2)
        assert len(await pool.decoder(16000).decode(PACKETS[0])) == 960
        hang.release()
        await poll(lambda: done == ["made", "made", "taken down"])
    assert done == ["made", "made", "taken down", "taken down"]


async def test_a_runner_that_is_never_made_does_not_hold_up_the_end(hang: Hang) -> None:
    made: list[str] = []

    class Never(kinds_of(work)["thread"]):  # type: ignore[misc]
        def prepare(self) -> None:
            if made:
                hang()
            made.append("made")

    kinds = {"thread": Never}
    async with trio.open_nursery() as nursery, open_worker_pool(SETTINGS, kinds=kinds) as pool:
        nursery.start_soon(expect_failure, partial(pool.resize, 2))
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
    # And whoever asked for it has been told: MAKE_TIMEOUT is for those who have the time.
    assert trio.current_time() - started < 2 * SETTINGS.drain_timeout + SLACK
    hang.release()
    await poll(lambda: len(made) == 2)


async def expect_failure(resize: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(WorkerFailed, match="not made"):
        await resize()


async def test_who_left_while_the_trio_thread_stood_still_is_not_given_up() -> None:
    left = threading.Event()

    def leave(job: Job) -> None:
        work(job)
        left.set()

    settings = PoolSettings(kind="thread", min_workers=2, drain_timeout=0.05)
    async with open_worker_pool(settings, kinds=kinds_of(leave)) as pool:
        worker = pool._supervisor.workers[0]
        pool._supervisor.target = 1
        worker.retire()
        deadline = trio.current_time() + 2 * settings.drain_timeout
        assert left.wait(5)
        while trio.current_time() < deadline:
            pass  # and Trio learns of both at once
        await worker.gone.wait()
        assert not worker.abandoned
        assert pool.statistics().deaths == 0
