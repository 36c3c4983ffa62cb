"""What everything is compared with: a plain loop around the same libopus calls."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any

import numpy as np
import trio
from attrs import frozen

from trio_gateway.bench.figures import Run
from trio_gateway.bench.jobs import PACKET_BYTES
from trio_gateway.workers.codec import reference
from trio_gateway.workers.opus import MAX_FRAME_MS, codec_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.bench.jobs import Job

__all__ = ["direct"]


async def direct(job: Job, threads: int, seconds: float) -> Run:
    """Do the job in `threads` threads, one stream each, for `seconds`.

    The latency of a frame is the time of the call, and 0.2 us of loop around it.
    """
    stop = Event()
    try:
        return await trio.to_thread.run_sync(
            _loops, job, threads, seconds, stop, abandon_on_cancel=True
        )
    finally:
        stop.set()  # so that abandoned threads end, too


def _loops(job: Job, threads: int, seconds: float, stop: Event) -> Run:
    # What can fail does so before anybody waits at the barrier.
    loops = [_Loop.of(job, len(job.frames) * index // threads) for index in range(threads)]
    start = Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as executor:
        try:
            ends = [executor.submit(loop.run, start, seconds, stop) for loop in loops]
        except BaseException:
            start.abort()  # those that there are wait for the others
            raise
        start.wait()
        cpu, began = time.process_time(), time.perf_counter()
        taken = list(chain.from_iterable(each.result() for each in ends))
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Run.of(taken, elapsed=elapsed, cpu=cpu)


@frozen(eq=False)
class _Loop:
    """One thread's.

    Attributes:
        call: The function of libopus.
        arguments: Of a call for each frame, in order.
        keep: The memory that they point to.
    """

    call: Callable[..., int]
    arguments: list[tuple[Any, ...]]
    keep: list[Any]

    @classmethod
    def of(cls, job: Job, first: int) -> _Loop:
        state = job.state()
        packet_out = ctypes.create_string_buffer(PACKET_BYTES)
        pcm_out = np.empty(job.rate * MAX_FRAME_MS // 1000, np.int16)
        codec = reference(state.address)
        room = reference(ctypes.addressof(packet_out))
        sound = reference(pcm_out.ctypes.data)
        keep: list[Any] = [state, packet_out, pcm_out]
        arguments: list[tuple[Any, ...]] = []
        for frame in [*job.frames[first:], *job.frames[:first]]:
            data = np.frombuffer(frame, np.uint8) if isinstance(frame, bytes) else frame
            keep.append(data)
            given = reference(data.ctypes.data)
            if job.op == "decode":
                arguments.append((codec, given, len(data), sound, len(pcm_out), 0))
            else:
                arguments.append((codec, given, len(data), room, PACKET_BYTES))
        call = job.codec.decode if job.op == "decode" else job.codec.encode
        return cls(call, arguments, keep)

    def run(self, start: Barrier, seconds: float, stop: Event) -> list[float]:
        """Return how long each call took."""
        call, taken = self.call, list[float]()
        clock = time.perf_counter
        start.wait()
        last = clock()
        end = last + seconds
        while not stop.is_set():  # asked once a pass: every few milliseconds, at no cost
            for arguments in self.arguments:
                result = call(*arguments)
                now = clock()
                taken.append(now - last)
                last = now
                if result < 0:
                    raise codec_error(result)
                if now >= end:
                    return taken
        return taken
