"""What every kind of worker keeps to, seen from the other end of its pipes."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from leftovers import interpreters, nothing_left
from opus_reference import ReferenceDecoder, frames, packets

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers import loop
from trio_gateway.workers.base import Job
from trio_gateway.workers.codec import DECODE, ENCODE, STOP
from trio_gateway.workers.interpreter import InterpreterRunner, interpreters_work
from trio_gateway.workers.opus import (
    OpusState,
    decoder_state,
    encoder_state,
    library_path,
    load_codec,
)
from trio_gateway.workers.pool import KINDS
from trio_gateway.workers.slab import MAX_PACKET_BYTES, SLOT_BYTES, Slab
from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_gateway.workers.base import Runner

LIBRARY = library_path()
PACKETS = packets(16000, 6)
AVAILABLE = [name for name in KINDS if name != "interpreter" or interpreters_work()]


@pytest.fixture(params=AVAILABLE)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with nothing_left():
        runner = KINDS[request.param]()
        runner.prepare()
        yield runner
        runner.close()


class Run:
    """One run of a runner, with the test in the place of the Trio thread."""

    def __init__(self, runner: Runner, library: str = LIBRARY) -> None:
        self.slab = Slab(8)
        self.failure: str | None = None
        self.lent: list[OpusState] = []
        self.request_read, self.requests = os.pipe()
        self.replies, self.reply_write = os.pipe()
        job = Job(
            self.request_read, self.reply_write, self.slab.address, SLOT_BYTES,
            MAX_PACKET_BYTES, library,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, args=(runner, job))
        self._thread.start()

    def _run(self, runner: Runner, job: Job) -> None:
        try:
            runner.run(job)
        except WorkerFailed as error:
            self.failure = str(error)
        os.close(self.reply_write)

    def ticket(self, number: int, state: OpusState, packet: bytes = PACKETS[0]) -> bytes:
        self.lent.append(state)  # alive as long as the worker
        slot = number % 8
        self.slab.put_packet(slot, packet)
        return TICKET.pack(state.address, number, slot, len(packet), 1920, DECODE)

    def write(self, data: bytes) -> None:
        assert os.write(self.requests, data) == len(data)

    def read(self) -> tuple[int, int]:
        """Wait for a completion; return number and result."""
        data = os.read(self.replies, COMPLETION.size)
        number, result, _ = COMPLETION.unpack(data)
        return number, result

    def end_of_replies(self) -> bool:
        """Wait for the end of the run. False when it reports something instead."""
        return os.read(self.replies, COMPLETION.size) == b""

    def close(self) -> None:
        os.close(self.requests)
        self._thread.join(5)
        assert not self._thread.is_alive()
        os.close(self.replies)
        os.close(self.request_read)


@contextmanager
def running(runner: Runner, library: str = LIBRARY) -> Iterator[Run]:
    run = Run(runner, library)
    try:
        yield run
    finally:
        run.close()


def new_state() -> OpusState:
    return decoder_state(load_codec(LIBRARY), 16000)


def replant(runner: Runner, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Define another `loop.run` in the place where the runner runs it."""
    if isinstance(runner, InterpreterRunner):
        runner._exec(source + "\nloop.run = run")
    else:
        names: dict[str, object] = {}
        exec(source, names)  # noqa: S102  the same source for every kind
        monkeypatch.setattr(loop, "run", names["run"])


def test_ready_comes_first_and_end_of_file_ends_it(runner: Runner) -> None:
    with running(runner) as run:
        assert run.read() == (READY, 0)
    assert run.failure is None


def test_stop_ends_it_while_the_pipe_is_open(runner: Runner) -> None:
    state = new_state()
    with running(runner) as run:
        run.write(run.ticket(0, state) + TICKET.pack(0, 0, 0, 0, 0, STOP) + run.ticket(1, state))
        assert [run.read(), run.read()] == [(READY, 0), (0, 960)]
        assert run.end_of_replies(), "what stands behind STOP is not done"
        assert run.failure is None


def test_what_was_given_before_the_end_is_finished(runner: Runner) -> None:
    states = [new_state() for _ in range(4)]
    with running(runner) as run:
        run.write(b"".join(run.ticket(number, state) for number, state in enumerate(states)))
    assert run.failure is None
    expected = ReferenceDecoder(16000).decode(PACKETS[0]).tolist()
    assert all(run.slab.pcm(slot, 960).tolist() == expected for slot in range(4))


def test_the_pcm_is_that_of_one_decoder_on_one_thread(runner: Runner) -> None:
    state, reference = new_state(), ReferenceDecoder(16000)
    with running(runner) as run:
        run.write(b"".join(run.ticket(n, state, packet) for n, packet in enumerate(PACKETS)))
        assert run.read() == (READY, 0)
        for number, packet in enumerate(PACKETS):
            assert run.read() == (number, 960)
            assert run.slab.pcm(number, 960).tolist() == reference.decode(packet).tolist()


def test_tickets_may_come_in_pieces(runner: Runner) -> None:
    state = new_state()
    with running(runner) as run:
        assert run.read() == (READY, 0)
        data = b"".join(run.ticket(number, state) for number in range(3))
        for start in range(0, len(data), 7):
            run.write(data[start : start + 7])
        assert [run.read() for _ in range(3)] == [(0, 960), (1, 960), (2, 960)]


def test_half_a_ticket_before_the_end_is_not_done(runner: Runner) -> None:
    with running(runner) as run:
        run.write(run.ticket(0, new_state())[:-1])
    assert run.failure is None
    assert not run.slab.pcm(0, 960).any()


def test_an_error_of_libopus_is_a_result(runner: Runner) -> None:
    state = new_state()
    with running(runner) as run:
        assert run.read() == (READY, 0)
        run.write(run.ticket(0, state, b"\xff\xff\xff") + run.ticket(1, state))
        assert [run.read(), run.read()] == [(0, -4), (1, 960)]


def test_results_of_a_long_batch_come_while_it_lasts(runner: Runner) -> None:
    states = [encoder_state(load_codec(LIBRARY), 24000, complexity=10, bitrate=None)] * 40
    with running(runner) as run:
        assert run.read() == (READY, 0)
        run.lent += states
        run.slab.put_pcm(0, frames(24000, 20)[-1])
        run.write(
            b"".join(
                TICKET.pack(state.address, number, 0, 1400, 1440, ENCODE)
                for number, state in enumerate(states)
            )
        )
        reads = 0
        left = len(states) * COMPLETION.size
        while left:
            left -= len(os.read(run.replies, 4096))
            reads += 1
        assert reads > 2, "40 encodes take 10 ms and more, and results wait 1 ms"


def test_without_libopus_it_fails_before_it_is_ready(runner: Runner) -> None:
    with running(runner, "/nonexistent/libopus.so") as run:
        assert run.end_of_replies()
    assert run.failure is not None
    assert "nonexistent" in run.failure


@pytest.mark.parametrize(
    "library", ["/nonexistent/\0", "/nonexistent/\udc80", "/nonexistent/\N{SNOWMAN}"]
)
def test_a_path_that_cannot_be_printed_is_reported_in_ascii(runner: Runner, library: str) -> None:
    with running(runner, library) as run:
        assert run.end_of_replies()
    assert run.failure is not None
    assert run.failure.isascii()
    assert "\0" not in run.failure


HOSTILE = {
    "NUL": "def run(*_): raise ValueError('a\\0b')",
    "lone surrogate": "def run(*_): raise ValueError('\\udc80')",
    "no text": "def run(*_): raise Mute\nclass Mute(Exception):\n def __str__(self): raise Mute",
    "nothing to show": (
        "def run(*_): raise Mute\n"
        "class Mute(BaseException):\n"
        " def __str__(self): raise Mute\n"
        " def __repr__(self): raise KeyboardInterrupt"
    ),
    "a name in no alphabet": "def run(*_): raise type('\\u2603', (Exception,), {})",
    "out of memory": "def run(*_): raise MemoryError",
    "exit": "def run(*_): raise SystemExit(3)",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_whatever_is_raised_inside_comes_out_as_ascii(
    runner: Runner, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replant(runner, source, monkeypatch)
    with running(runner) as run:
        assert run.end_of_replies()
    assert run.failure
    assert run.failure.isascii()
    assert "\0" not in run.failure


def test_a_runner_is_used_again_also_after_a_failure(runner: Runner) -> None:
    reference, state = ReferenceDecoder(16000), new_state()
    before = interpreters()
    for number, packet in enumerate(PACKETS[:3]):
        with running(runner, "/nonexistent") as run:
            assert run.end_of_replies()
        with running(runner) as run:
            assert run.read() == (READY, 0)
            run.write(run.ticket(number, state, packet))
            assert run.read() == (number, 960)
            assert run.slab.pcm(number, 960).tolist() == reference.decode(packet).tolist()
    assert interpreters() == before


def test_what_was_finished_before_the_trio_side_went_away_is_no_crash(runner: Runner) -> None:
    run = Run(runner)
    assert run.read() == (READY, 0)
    os.close(run.replies)
    run.write(run.ticket(0, new_state()))
    run.replies = os.dup(run.requests)  # something to close
    run.close()
    assert run.failure is not None
    assert "BrokenPipe" in run.failure


@pytest.mark.skipif(not interpreters_work(), reason="this Python has no interpreters")
def test_an_interpreter_that_cannot_load_the_loop_is_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "\N{SNOWMAN}" / "trio_gateway"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('broken \\0 \\udc80')")
    here = str(package / "workers" / "interpreter.py")
    monkeypatch.setattr("trio_gateway.workers.interpreter.__file__", here)
    with nothing_left(), pytest.raises(WorkerFailed, match=r"ImportError.*broken"):
        InterpreterRunner().prepare()


@pytest.mark.skipif(interpreters_work(), reason="this Python has interpreters")
def test_without_interpreters_the_error_says_so() -> None:
    with pytest.raises(WorkerFailed, match="no interpreters"):
        InterpreterRunner().prepare()
