"""Options that need no pool: the slab and numpy, each against what one would do without it.

Both ways of a pair do the same work on the same frames, once for each of them.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import frozen

from trio_gateway.core.pcm import FULL_SCALE, to_float32, to_int16
from trio_gateway.workers.codec import reference
from trio_gateway.workers.opus import MAX_FRAME_MS
from trio_gateway.workers.slab import MAX_PACKET_BYTES, SLOT_BYTES, Slab

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from trio_gateway.bench.jobs import Job

__all__ = ["Pair", "pairs", "seconds_each"]

_SLOTS: Final = 64
_KEPT: Final = 64  # results that somebody still holds, as a listener's jitter buffer does


@frozen(eq=False)
class Pair:
    """An option, on and off.

    Attributes:
        option: Its name.
        what: What is timed.
        on: Does it for `frames` frames.
        off: Does the same without the option.
        frames: That a call of either does.
    """

    option: str
    what: str
    on: Callable[[], None]
    off: Callable[[], None]
    frames: int


def seconds_each(work: Callable[[], None], frames: int, seconds: float) -> float:
    """Seconds for a frame: the mean of calls that go on for about `seconds`."""
    work()  # into the caches
    began = now = time.perf_counter()
    calls = 0
    while not calls or now < began + seconds:
        work()
        calls += 1
        now = time.perf_counter()
    return (now - began) / calls / frames


def pairs(decoding: Job, encoding: Job) -> list[Pair]:
    """All of them, for 60 ms frames of that speech."""
    sound: list[NDArray[np.int16]] = [np.asarray(frame) for frame in encoding.frames]
    floats = [to_float32(pcm) for pcm in sound]
    plain_sound = [array("h", pcm.tobytes()) for pcm in sound]
    plain_floats = [array("f", pcm.tobytes()) for pcm in floats]
    count = len(sound)
    return [
        Pair(
            "slab",
            "decode a frame",
            _with_slab(decoding),
            _with_fresh_buffers(decoding),
            len(decoding.frames),
        ),
        Pair(
            "numpy",
            "int16 to float32",
            _each(to_float32, sound),
            _each(_plain_float32, plain_sound),
            count,
        ),
        Pair(
            "numpy",
            "float32 to int16",
            _each(to_int16, floats),
            _each(_plain_int16, plain_floats),
            count,
        ),
    ]


def _each(convert: Callable[[Any], object], frames: Sequence[Any]) -> Callable[[], None]:
    def work() -> None:
        for frame in frames:
            convert(frame)

    return work


def _plain_float32(pcm: array[int]) -> array[float]:
    return array("f", [sample / FULL_SCALE for sample in pcm])


def _plain_int16(pcm: array[float]) -> array[int]:
    scaled = (round(sample * FULL_SCALE) for sample in pcm)
    return array("h", [max(-32768, min(32767, sample)) for sample in scaled])


def _with_slab(job: Job) -> Callable[[], None]:
    """Copy in, decode, copy out: as the pool and its workers do between them."""
    slab, state, samples = Slab(_SLOTS), job.state(), _room(job)
    places = [slab.address + slot * SLOT_BYTES for slot in range(_SLOTS)]
    slots = [(reference(place), reference(place + MAX_PACKET_BYTES)) for place in places]
    kept: deque[object] = deque(maxlen=_KEPT)

    def work() -> None:
        codec = reference(state.address)
        for frame in job.frames:
            slot = slab.acquire()
            assert slot is not None  # noqa: S101  each is released below
            slab.put_packet(slot, bytes(frame))
            packet, pcm = slots[slot]
            made = job.codec.decode(codec, packet, len(frame), pcm, samples, 0)
            kept.append(slab.pcm(slot, made))
            slab.release(slot)

    return work


def _with_fresh_buffers(job: Job) -> Callable[[], None]:
    """Decode the packet where it lies into memory got for the purpose; nothing is copied."""
    state, samples = job.state(), _room(job)
    kept: deque[object] = deque(maxlen=_KEPT)

    def work() -> None:
        codec = reference(state.address)
        for frame in job.frames:
            packet = np.frombuffer(frame, np.uint8)
            pcm = np.empty(samples, np.int16)
            given, room = reference(packet.ctypes.data), reference(pcm.ctypes.data)
            made = job.codec.decode(codec, given, len(frame), room, samples, 0)
            kept.append(pcm[:made])

    return work


def _room(job: Job) -> int:
    return job.rate * MAX_FRAME_MS // 1000
