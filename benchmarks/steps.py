"""What a frame costs on its way through the worker pool, step by step.

    python benchmarks/steps.py [--rounds 30]

Prints microseconds of CPU time (wall time where a step waits) of each step for a frame that comes
alone and for one among many. The best of the rounds: what the step takes when nobody disturbs it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import trio

from trio_gateway.settings import PoolSettings
from trio_gateway.speech import load_clip
from trio_gateway.workers import loop
from trio_gateway.workers.codec import DECODE, ENCODE, reference
from trio_gateway.workers.dispatch import Dispatcher
from trio_gateway.workers.lane import Lane
from trio_gateway.workers.opus import decoder_state, encoder_state, library_path, load_codec
from trio_gateway.workers.slab import MAX_PACKET_BYTES, SLOT_BYTES, Slab
from trio_gateway.workers.stream import Decoder
from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 64  # frames in a batch
RATE = 16000
SAMPLES = RATE * 60 // 1000
CODEC = load_codec(library_path())


def a_packet() -> bytes:
    """60 ms of speech."""
    room = ctypes.create_string_buffer(MAX_PACKET_BYTES)
    state = encoder_state(CODEC, RATE, complexity=5, bitrate=24000)
    pcm = np.ascontiguousarray(load_clip()[: 8 * SAMPLES].reshape(8, SAMPLES))
    for frame in pcm:  # the first ones are silence
        length = CODEC.perform(
            ENCODE, reference(state.address), reference(ctypes.addressof(room)), len(room),
            reference(frame.ctypes.data), SAMPLES,
        )  # fmt: skip
    return room.raw[:length]


PACKET = a_packet()


def best(rounds: int, count: int, act: Callable[[], object]) -> float:
    """Microseconds of this thread's CPU for one of `count`, in the quickest of the rounds."""
    least = float("inf")
    for _ in range(rounds):
        started = time.thread_time_ns()
        act()
        least = min(least, time.thread_time_ns() - started)
    return least / count / 1000


class TrioSide:
    """A dispatcher whose workers are played: what they report is made up."""

    def __init__(self, streams: int) -> None:
        self.dispatcher = Dispatcher(
            Slab(1024), PoolSettings(), window=10.0, clock=time.perf_counter
        )
        self.lane = Lane("nobody", len)
        self.dispatcher.lanes.append(self.lane)
        self.dispatcher.completed_untrusted(self.lane, COMPLETION.pack(READY, 0, 0))
        with self.dispatcher:
            for _ in range(streams):
                decoder = Decoder(
                    self.dispatcher, partial(decoder_state, CODEC, RATE), RATE,
                    max_backlog=50, max_packet_bytes=0, on_close=lambda _: None,
                )  # fmt: skip
                self.next(decoder, None)

    def next(self, decoder: Decoder, _: object) -> None:
        """Submit a frame, and when it is done the next one."""
        decoder.submit_decode(PACKET, partial(self.next, decoder))

    def cost(self, rounds: int) -> float:
        """Microseconds for a frame: taken back, its caller told, the next submitted, handed out."""
        least = float("inf")
        for _ in range(rounds):
            numbers = [frame.number for frame in self.lane.held]
            reports = b"".join(COMPLETION.pack(number, SAMPLES, 25_000) for number in numbers)
            turn = partial(self.dispatcher.completed_untrusted, self.lane, reports)
            least = min(least, best(1, len(numbers), turn))
        return least


class WorkerSide:
    """A worker's batch, called here."""

    def __init__(self) -> None:
        self.slab = Slab(MANY)
        self.states = [decoder_state(CODEC, RATE) for _ in range(MANY)]
        self.reply_read, self.reply_write = os.pipe()
        self.tickets = b""
        for slot, state in enumerate(self.states):
            self.slab.put_packet(slot, PACKET)
            self.tickets += TICKET.pack(
                state.address, slot, slot, len(PACKET), RATE * 120 // 1000, DECODE
            )

    def cost(self, rounds: int, perform: loop.Perform) -> float:
        """Microseconds for a ticket."""
        batch = loop.Batch(
            perform, self.reply_write, self.slab.address, SLOT_BYTES, MAX_PACKET_BYTES
        )

        def act() -> None:
            batch.work_off(self.tickets)
            os.read(self.reply_read, 65536)

        return best(rounds, MANY, act)

    def direct(self, rounds: int) -> float:
        """Microseconds for the codec call alone, as a plain loop makes it."""
        slots = [self.slab.address + slot * SLOT_BYTES for slot in range(MANY)]
        calls = [
            (DECODE, reference(state.address), reference(slot), len(PACKET),
             reference(slot + MAX_PACKET_BYTES), RATE * 120 // 1000)
            for state, slot in zip(self.states, slots, strict=True)
        ]  # fmt: skip

        def act() -> None:
            for call in calls:
                CODEC.perform(*call)

        return best(rounds, MANY, act)


def nothing(*_: object) -> int:
    """Stand in for libopus."""
    return SAMPLES


def foreign_call(rounds: int) -> float:
    """Microseconds for a call through ctypes that does nearly nothing."""
    state = reference(decoder_state(CODEC, RATE).address)
    value = ctypes.c_int32()
    answer = ctypes.byref(value)
    get_sample_rate = 4029

    def act() -> None:
        for _ in range(MANY):
            CODEC.decoder_ctl(state, get_sample_rate, answer)

    return best(rounds, MANY, act)


def pipe_there_and_back(rounds: int) -> float:
    """Microseconds of waiting until a thread that sleeps in `read` has answered."""
    there, back = os.pipe(), os.pipe()

    def answer() -> None:
        while data := os.read(there[0], 4096):
            os.write(back[1], data)

    thread = threading.Thread(target=answer)
    thread.start()
    took = []
    for _ in range(rounds * 20):
        started = time.perf_counter_ns()
        os.write(there[1], PACKET[:24])
        os.read(back[0], 4096)
        took.append(time.perf_counter_ns() - started)
    os.close(there[1])
    thread.join()
    return float(np.median(took)) / 1000


async def trio_wakeup(rounds: int) -> float:
    """Microseconds of CPU for a task that waits for a pipe, is woken, reads and waits again."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    took = []
    for _ in range(rounds * 20):
        os.write(write, b"x")
        started = time.thread_time_ns()
        await trio.lowlevel.wait_readable(read)
        os.read(read, 65536)
        took.append(time.thread_time_ns() - started)
    os.close(read)
    os.close(write)
    return float(np.median(took)) / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    worker = WorkerSide()
    codec = worker.direct(rounds)
    call = foreign_call(rounds)
    empty_loop = worker.cost(rounds, nothing)
    steps = [
        ("libopus: decode 60 ms at 16 kHz", codec - call),
        ("ctypes: a call and back, GIL released", call),
        ("worker: read its ticket, find its memory, report", empty_loop),
        (f"Trio side, a frame of {MANY}: take back, submit, hand out", TrioSide(MANY).cost(rounds)),
        ("Trio side, a frame alone", TrioSide(1).cost(rounds)),
        ("Trio: be woken by a pipe, read, wait again", trio.run(trio_wakeup, rounds)),
        ("kernel: wake a thread by a pipe and be woken (waiting)", pipe_there_and_back(rounds)),
    ]
    print(f"Python {sys.version.split()[0]}")
    for name, cost in steps:
        print(f"{name:62} {cost:6.2f} us")


if __name__ == "__main__":
    main()
