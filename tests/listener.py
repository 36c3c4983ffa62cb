"""A stream to listen to while workers are lost, and what should be heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames, packets

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.stream import Decoder

__all__ = ["PACKETS", "TRAP", "Listener", "decoded", "poll"]

PACKETS = packets(16000, 8)
TRAP = ReferenceEncoder(16000, bitrate=12000).encode(frames(16000, 1)[0])
"""A packet that is shorter than the others: what a worker that is made for a test knows it by."""

assert len(TRAP) not in {len(packet) for packet in PACKETS}


def decoded(sent: list[bytes | None]) -> list[list[int]]:
    """What one decoder on one thread makes of it; None is a lost frame."""
    reference = ReferenceDecoder(16000)
    return [
        (reference.conceal(960) if packet is None else reference.decode(packet)).tolist()
        for packet in sent
    ]


class Listener:
    """A stream and what came out of it, in order."""

    def __init__(self, pool: WorkerPool) -> None:
        self.decoder: Decoder = pool.decoder(16000)
        self.results: list[Result] = []
        self._expected = 0
        self._everything = trio.Event()

    def submit(self, *sent: bytes) -> None:
        self._expected += len(sent)
        self._everything = trio.Event()
        for packet in sent:
            self.decoder.submit_decode(packet, self._done)

    def _done(self, result: Result) -> None:
        self.results.append(result)
        if len(self.results) == self._expected:
            self._everything.set()

    async def pcm(self) -> list[list[int]]:
        with trio.fail_after(5):
            await self._everything.wait()
        return [cast("NDArray[np.int16]", result).tolist() for result in self.results]


async def poll(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110  another thread changes it
            await trio.sleep(0.001)
