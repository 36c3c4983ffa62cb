"""What crashes CPython, or makes it leak, when interpreters are used; and what holds it off here.

1. `argtypes`, while another interpreter imports ctypes: here.
2. Destroying interpreters: here, and test_scaling_storm.py.
3. Exceptions that leave an interpreter as they are: test_worker_kinds.py.
4. fork: test_process_end.py, and of threads test_worker_loss.py.
5. An interpreter that still runs when the process ends: test_process_end.py and test_leaving.py;
   one that was given up for no reason: here.
"""

from __future__ import annotations

import ast
import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
import trio
from leftovers import interpreters, no_codec_state_left, nothing_left
from odd_workers import read_tickets, report
from opus_reference import ReferenceDecoder, frames, packets

import trio_gateway
from trio_gateway.errors import WorkerFailed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.base import Job, Runner
from trio_gateway.workers.codec import Codec
from trio_gateway.workers.interpreter import InterpreterRunner, interpreters_work
from trio_gateway.workers.opus import library_path
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trio_gateway.workers.pool import WorkerPool

PACKAGE = Path(trio_gateway.__file__).parent
KIND: Final[Literal["interpreter", "thread"]] = "interpreter" if interpreters_work() else "thread"
PACKETS = packets(16000, 3)

needs_interpreters = pytest.mark.skipif(
    not interpreters_work(), reason="this Python has no interpreters"
)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left(), no_codec_state_left():
        yield


# 1: argtypes


def uses_of(attribute: str) -> set[tuple[Path, int]]:
    """Files and lines of the package where something has that attribute."""
    return {
        (path, node.lineno)
        for path in PACKAGE.rglob("*.py")
        if attribute in (source := path.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr == attribute
    }


def macos_only(path: Path) -> range:
    """The lines of its `if sys.platform == "darwin":`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "darwin" in ast.unparse(node.test):
            assert node.end_lineno is not None
            return range(node.lineno, node.end_lineno + 1)
    raise AssertionError(path)


def test_nobody_declares_argtypes() -> None:
    """3.14.10 and 3.15.2 die of a call with them, while an interpreter imports ctypes."""
    codec = PACKAGE / "workers" / "codec.py"
    assert uses_of("argtypes") <= {(codec, line) for line in macos_only(codec)}


@pytest.mark.skipif(sys.platform == "darwin", reason="variadic functions need them there")
def test_what_is_called_has_none() -> None:
    functions = [f for f in vars(Codec(library_path())).values() if hasattr(f, "argtypes")]
    assert len(functions) >= 8
    assert {f.argtypes for f in functions} == {None}
    assert {f.restype for f in functions} == {ctypes.c_int}


def test_nobody_asks_for_the_frames_of_all_threads() -> None:
    """It aborts 3.13.0 when the process ends, if there were interpreters."""
    assert uses_of("_current_frames") == set()


def watched(**watch: Callable[[], None]) -> Mapping[str, type[Runner]]:
    """A table with the kind that there is, whose methods of these names call that first."""
    original = InterpreterRunner if KIND == "interpreter" else ThreadRunner

    def first(name: str, see: Callable[[], None]) -> Callable[..., None]:
        def method(self: Runner, *arguments: Job) -> None:
            see()
            getattr(original, name)(self, *arguments)

        return method

    methods = {name: first(name, see) for name, see in watch.items()}
    return {KIND: type("Watched", (original,), methods)}


async def test_no_worker_is_begun_before_the_last_one_is_ready() -> None:
    """Also when three die at once, and the pool is to grow besides."""
    begun: list[int] = []
    doomed = 3
    pools: list[WorkerPool] = []

    def prepare() -> None:
        begun.append(trio.from_thread.run_sync(starting))

    def starting() -> int:
        workers = pools[0].statistics().workers if pools else ()
        return [worker.state for worker in workers].count("starting")

    def die(runner: Runner, job: Job) -> None:
        nonlocal doomed
        begun.append(trio.from_thread.run_sync(starting) - 1)  # this one is
        if doomed:
            doomed -= 1
            report(job)
            read_tickets(job)
            raise WorkerFailed("it was doomed")
        run(runner, job)

    kinds = watched(prepare=prepare)
    run = kinds[KIND].run
    kinds[KIND].run = die  # type: ignore[method-assign,assignment]
    settings = PoolSettings(kind=KIND, min_workers=doomed, max_workers=8)
    with trio.fail_after(20):
        async with open_worker_pool(settings, kinds=kinds) as pool:
            begun.clear()
            pools.append(pool)
            for _ in range(settings.min_workers):
                pool.decoder(16000).submit_decode(PACKETS[0], lambda _: None)
            async with trio.open_nursery() as nursery:
                for workers in (8, 4, 8):
                    nursery.start_soon(pool.resize, workers)
            while pool.statistics().deaths < settings.min_workers:  # noqa: ASYNC110
                await trio.sleep(0.001)
            await pool.resize(8)
    assert len(begun) > 8
    assert set(begun) == {0}


async def test_starting_while_codecs_are_made_and_used() -> None:
    right = [ReferenceDecoder(16000).decode(PACKETS[0]).tobytes()]
    settings = PoolSettings(kind=KIND, min_workers=1, max_workers=8)

    async def call(pool: Any) -> None:
        while True:
            with pool.encoder(24000), pool.decoder(16000) as decoder:
                assert (await decoder.decode(PACKETS[0])).tobytes() in right

    with trio.fail_after(20):
        async with open_worker_pool(settings) as pool, trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(call, pool)
            await pool.resize(8)
            nursery.cancel_scope.cancel()


# 2: destroying


async def test_as_many_are_made_as_were_ever_needed_and_none_is_destroyed_before_the_end() -> None:
    made: list[int] = []
    closed: list[int] = []
    kinds = watched(prepare=lambda: made.append(0), close=lambda: closed.append(0))
    settings = PoolSettings(kind=KIND, min_workers=1, max_workers=5)
    async with open_worker_pool(settings, kinds=kinds) as pool:
        for workers in (2, 1, 3, 1, 5, 2, 4, 1, 5):
            await pool.resize(workers)
        assert (len(made), len(closed)) == (5, 0)
    assert (len(made), len(closed)) == (5, 5)


@needs_interpreters
def test_nothing_of_an_interpreter_stays_behind_in_a_thread_that_lives_on() -> None:
    """Trio uses threads again. `destroy` would crash if one still had a state in there."""
    library = library_path()
    request_read, requests = os.pipe()
    replies, reply_write = os.pipe()
    os.close(requests)
    ran, leave = threading.Event(), threading.Event()
    runners = [InterpreterRunner(), InterpreterRunner()]

    def use_both() -> None:
        for runner in runners:
            runner.prepare()
            runner.run(Job(request_read, reply_write, 0, 0, 0, library))
        ran.set()
        leave.wait()

    thread = threading.Thread(target=use_both)
    thread.start()
    try:
        assert ran.wait(10)
        for runner in runners:
            runner.close()
        assert interpreters() == 1
        assert thread.is_alive()
    finally:
        leave.set()
        thread.join()
        for descriptor in (request_read, replies, reply_write):
            os.close(descriptor)


async def test_a_worker_is_not_given_up_because_the_trio_thread_stood_still() -> None:
    """Given up, it would leave an interpreter that nobody may destroy any more."""
    settings = PoolSettings(kind=KIND, min_workers=2, drain_timeout=0.1)
    (pcm,) = frames(48000, 1, frame_ms=120)  # a worker has some milliseconds to do
    async with open_worker_pool(settings) as pool:
        for _ in range(4):
            pool.encoder(48000, complexity=10).submit_encode(pcm, lambda _: None)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.resize, 1)
                while "draining" not in [worker.state for worker in pool.statistics().workers]:
                    await trio.lowlevel.checkpoint()
                time.sleep(0.3)  # noqa: ASYNC251  three times as long as a worker has
        assert pool.statistics().deaths == 0
