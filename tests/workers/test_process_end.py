"""The end of a process that had a pool: whatever way it ends, nothing of a worker is left by then.

An interpreter that still runs when the process ends crashes 3.14 and is warned of by others. And
while one lives: other processes may be started, and a fork does no harm to who forks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import leftovers
import pytest
from opus_reference import packets

import trio_gateway
from trio_gateway.workers.interpreter import interpreters_work

PACKAGE = Path(trio_gateway.__file__).parent
KIND = "interpreter" if interpreters_work() else "thread"
(PACKET,) = packets(16000, 1)

PROGRAM = """
import faulthandler, multiprocessing, os, signal, subprocess, sys, trio, warnings
from leftovers import interpreters, worker_threads
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.pool import open_worker_pool

PACKET = {packet!r}
way, kind = sys.argv[1:]
closing = False

def say_again(decoder):
    # One frame is always in a worker's hands and one waits, which cannot be done any more when the
    # pool is left. That is the moment to wait in for whatever comes, until told to go on.
    def done(result):
        global closing
        if not isinstance(result, Exception):
            if not closing:
                decoder.submit_decode(PACKET, done)
        elif not closing:
            closing = True
            print("closing", flush=True)
            sys.stdin.readline()
    decoder.submit_decode(PACKET, done)
    decoder.submit_decode(PACKET, done)

async def start_others():
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=os.getpid)
        process.start()
        await trio.to_thread.run_sync(process.join)
        assert process.exitcode == 0

async def fork():
    # Nothing can be done for the child of a process with interpreters: CPython aborts it, with
    # words of its own, before anything of ours runs in it, or it hangs at that. To this process
    # nothing may happen.
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    if not (child := os.fork()):
        os._exit(0)
    os.dup2(stderr, 2)
    os.kill(child, signal.SIGKILL)
    await trio.to_thread.run_sync(os.waitpid, child, 0)

async def leave(pool, scope):
    if way == "others":
        await start_others()
        await fork()
        await pool.decoder(16000).decode(PACKET)
    if way == "cancelled":
        scope.cancel()
    if way == "error":
        raise ZeroDivisionError
    if way == "exit":
        sys.exit(3)
    if way == "interrupted":
        print("open", flush=True)
    if way != "others":
        await trio.sleep_forever()

async def main():
    settings = PoolSettings(kind=kind, min_workers=2)
    with trio.CancelScope() as scope:
        async with open_worker_pool(settings) as pool:
            for _ in range(4):
                say_again(pool.decoder(16000))
            await pool.resize(3)
            await pool.resize(2)
            await leave(pool, scope)

if __name__ == "__main__":
    faulthandler.dump_traceback_later(15, exit=True)
    try:
        trio.run(main)
    finally:
        print(interpreters() - 1, "interpreters,", len(worker_threads()), "threads")
"""


class Program:
    """A Python with a pool, which it leaves in one of the ways that it knows."""

    def __init__(self, way: str) -> None:
        script = PROGRAM.format(packet=PACKET)
        paths = [str(PACKAGE.parent), str(Path(leftovers.__file__).parent)]
        self._process = subprocess.Popen(  # noqa: S603  our own Python
            [sys.executable, "-c", script, way, KIND],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, list[str], str]:
        """Let it go on. Returns exit code, the rest of what it said, last line of its errors."""
        out, err = self._process.communicate("\n")
        for bad in ("Fatal", "Warning", "Timeout", "interpreter", "Exception ignored"):
            assert bad not in err, err
        return self._process.returncode, out.splitlines(), err.strip().rpartition("\n")[2]


NOTHING = "0 interpreters, 0 threads"


@pytest.mark.parametrize(
    ("way", "code", "last"),
    [("others", 0, ""), ("cancelled", 0, ""), ("error", 1, "ZeroDivisionError"), ("exit", 3, "")],
)
def test_the_process_ends_as_any_other(way: str, code: int, last: str) -> None:
    with Program(way) as program:
        assert program.end() == (code, ["closing", NOTHING], last)


@pytest.mark.parametrize("again", [False, True])
def test_interrupted_at_work_and_while_it_closes(again: bool) -> None:  # noqa: FBT001
    with Program("interrupted") as program:
        assert program.hear() == "open"
        program.interrupt()
        assert program.hear() == "closing"
        if again:
            program.interrupt()
        assert program.end() == (-signal.SIGINT, [NOTHING], "KeyboardInterrupt")
