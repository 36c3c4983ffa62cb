"""How much of libopus is left when the worker pool is around it.

    python benchmarks/pool.py [--workers 2] [--seconds 0.5] [--rounds 5] [--in-flight 4]

In one run and interleaved: `direct`, a plain loop of the same libopus calls in as many threads as
the pool has workers, and the pool with each kind of worker and 1, 8 and 64 streams per worker, a
frame of each always under way. Prints medians of frames/s and their ratio to `direct`: ratios hold
on a noisy machine, absolute numbers do not.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import trio

from trio_gateway.settings import PoolSettings
from trio_gateway.speech import load_clip
from trio_gateway.workers.codec import DECODE, ENCODE, reference
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.opus import decoder_state, encoder_state, library_path, load_codec
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trio_gateway.workers.opus import OpusState
    from trio_gateway.workers.pool import WorkerPool

CODEC = load_codec(library_path())
FRAME_MS = 60
FRAMES = 50  # 3 s of speech, over and over
STREAMS = (1, 8, 64)

Input: TypeAlias = "list[tuple[bytes, NDArray[np.int16]]]"


def encode(state: OpusState, pcm: NDArray[np.int16]) -> bytes:
    """One frame, here and now."""
    room = ctypes.create_string_buffer(1400)
    packet = reference(ctypes.addressof(room))
    sound = reference(pcm.ctypes.data)
    length = CODEC.perform(ENCODE, reference(state.address), packet, 1400, sound, len(pcm))
    return room.raw[:length]


def speech(rate: int) -> Input:
    """Packets and the PCM that they were made of."""
    samples = rate * FRAME_MS // 1000
    pcm = np.resize(load_clip(), (FRAMES, samples))
    state = encoder_state(CODEC, rate, complexity=5, bitrate=24000)
    return [(encode(state, frame), frame) for frame in pcm]


class Job:
    """What is measured: one operation at one rate."""

    def __init__(self, name: str, rate: int, complexity: int | None) -> None:
        self.name = name
        self.rate = rate
        self.complexity = complexity
        self.input = speech(rate)

    def state(self) -> OpusState:
        """A codec for the direct loop."""
        if self.complexity is None:
            return decoder_state(CODEC, self.rate)
        return encoder_state(CODEC, self.rate, complexity=self.complexity, bitrate=24000)

    def loop(self, seconds: float, counts: list[int]) -> None:
        """Call libopus for so long."""
        state = self.state()
        codec = reference(state.address)
        room = ctypes.create_string_buffer(4096)
        out = np.empty(5760, np.int16)
        packet_out, pcm_out = reference(ctypes.addressof(room)), reference(out.ctypes.data)
        inputs = [
            (reference(np.frombuffer(packet, np.uint8).ctypes.data), len(packet),
             reference(pcm.ctypes.data), len(pcm))
            for packet, pcm in self.input
        ]  # fmt: skip
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            for packet, length, pcm, samples in inputs:
                if self.complexity is None:
                    CODEC.perform(DECODE, codec, packet, length, pcm_out, 5760)
                else:
                    CODEC.perform(ENCODE, codec, packet_out, 1400, pcm, samples)
            count += len(inputs)
        counts.append(count)

    def submitter(self, pool: WorkerPool) -> Callable[[int, Callable[[object], None]], None]:
        """A stream of the pool, as a function that submits its n-th frame."""
        inputs = self.input
        if self.complexity is None:
            decoder = pool.decoder(self.rate)
            return lambda n, done: decoder.submit_decode(inputs[n % FRAMES][0], done)
        encoder = pool.encoder(self.rate, complexity=self.complexity, bitrate=24000)
        return lambda n, done: encoder.submit_encode(inputs[n % FRAMES][1], done)


def direct(job: Job, threads: int, seconds: float) -> float:
    """Frames/s of the plain loop."""
    counts: list[int] = []
    crew = [threading.Thread(target=job.loop, args=(seconds, counts)) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sum(counts) / seconds


async def through_the_pool(job: Job, settings: PoolSettings, streams: int, seconds: float) -> float:
    """Frames/s of the pool, with one frame of each stream always under way."""
    async with open_worker_pool(settings) as pool:
        over = False

        def go(submit: Callable[[int, Callable[[object], None]], None], n: int, _: object) -> None:
            if not over:
                submit(n, partial(go, submit, n + 1))

        with pool.batch():
            for _ in range(streams):
                go(job.submitter(pool), 0, None)
        await trio.sleep(seconds / 5)  # until everything is warm
        started, before = time.perf_counter(), pool.statistics().frames
        await trio.sleep(seconds)
        rate = (pool.statistics().frames - before) / (time.perf_counter() - started)
        over = True
    return rate


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=PoolSettings().in_flight)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    kinds = ["thread", *(["interpreter"] if interpreters_work() else [])]
    print(f"Python {sys.version.split()[0]}, {asked.workers} workers, {asked.in_flight} in flight")
    for job in (Job("decode 16 kHz", 16000, None), Job("encode 24 kHz, complexity 5", 24000, 5)):
        rates: dict[str, list[float]] = {}
        for _ in range(asked.rounds):
            rates.setdefault("direct", []).append(direct(job, asked.workers, asked.seconds))
            for kind in kinds:
                settings = PoolSettings(
                    kind=kind,  # type: ignore[arg-type]
                    min_workers=asked.workers,
                    in_flight=asked.in_flight,
                )
                for streams in STREAMS:
                    measure = partial(
                        through_the_pool, job, settings, streams * asked.workers, asked.seconds
                    )
                    name = f"{kind}, {streams} streams per worker"
                    rates.setdefault(name, []).append(trio.run(measure))
        base = median(rates["direct"])
        for name, values in rates.items():
            print(f"{job.name:28} {name:34} {median(values):8.0f}/s  {median(values) / base:5.2f}")


if __name__ == "__main__":
    main()
