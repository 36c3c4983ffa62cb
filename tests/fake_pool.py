"""A worker pool without workers: results come at once, or when the test says so.

Real pools cannot run under the autojump clock: a thread in flight does not keep it from jumping.
What is promised in workers/stream.py holds here too: order within a stream, a bounded backlog, at
most one frame of a stream in flight, and what happens to both when a stream is closed.

The codec is one that can be read: packet(n) decodes to a frame full of n, and a frame is encoded as
the packet of its first sample.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import numpy as np
import outcome
import trio
from attrs import define, field

from trio_gateway.errors import CodecError, FrameDropped, PoolClosed, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["CONCEALED", "LOST", "RECOVERED", "REFUSED", "FakePool", "packet", "value_of"]

LOST = -8  # encoding it takes two workers with it
CONCEALED = -7  # what a concealed frame is full of
RECOVERED = -6  # what a frame is full of that came from the packet after it
REFUSED = b"\x58 libopus refuses this"


def packet(value: int) -> bytes:
    """An Opus packet of 60 ms by its first byte, which is all that is looked at."""
    return b"\x58" + value.to_bytes(2, "big", signed=True)


def value_of(data: bytes) -> int:
    """What a packet says."""
    return int.from_bytes(data[1:3], "big", signed=True)


@define(eq=False)
class FakeFrame:
    """One frame that waits for its result."""

    result: Result
    done: Callable[[Result], None]


@define(eq=False)
class FakeStream:
    """A decoder and an encoder."""

    pool: FakePool
    rate: int
    application: str = ""
    cost: float | None = None
    closed: bool = False
    in_flight: FakeFrame | None = None
    backlog: deque[FakeFrame] = field(factory=deque)

    def submit_decode(self, data: bytes, done: Callable[[Result], None]) -> None:
        result: Result = CodecError(-4, "corrupted stream")
        if data != REFUSED:
            result = np.full(self.rate * 60 // 1000, value_of(data), np.int16)
        self._submit(FakeFrame(result, done))

    def submit_conceal(self, samples: int, done: Callable[[Result], None]) -> None:
        self._submit(FakeFrame(np.full(samples, CONCEALED, np.int16), done))

    def submit_recover(self, data: bytes, samples: int, done: Callable[[Result], None]) -> None:
        assert data, "a packet that carries a copy"
        self._submit(FakeFrame(np.full(samples, RECOVERED, np.int16), done))

    async def encode(self, pcm: NDArray[np.int16]) -> bytes:
        await trio.lowlevel.checkpoint()
        if pcm[0] == LOST:
            raise WorkerFailed("two workers were lost with this frame")
        if pcm[0] == CONCEALED:
            raise CodecError(-1, "invalid argument")
        if not self.pool.holds:
            if self.closed:
                raise PoolClosed("this stream or its pool is closed")
            return packet(int(pcm[0]))
        task = trio.lowlevel.current_task()

        def done(result: Result) -> None:
            trio.lowlevel.reschedule(
                task,
                outcome.Error(result) if isinstance(result, Exception) else outcome.Value(result),
            )

        frame = FakeFrame(packet(int(pcm[0])), done)
        self._submit(frame)

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            frame.done = lambda _: None
            if frame in self.backlog:
                self.backlog.remove(frame)
            return trio.lowlevel.Abort.SUCCEEDED

        return cast("bytes", await trio.lowlevel.wait_task_rescheduled(abort))

    def close(self) -> None:
        self.closed = True
        while self.backlog:
            self.backlog.popleft().done(FrameDropped("the stream was closed"))

    def _submit(self, frame: FakeFrame) -> None:
        if self.closed:
            raise PoolClosed("this stream or its pool is closed")
        self.backlog.append(frame)
        if len(self.backlog) > self.pool.backlog_frames:
            self.backlog.popleft().done(FrameDropped("the stream's backlog is full"))
        if not self.pool.holds:
            self.finish()
        elif self.in_flight is None:
            self.in_flight = self.backlog.popleft()

    def finish(self, frames: int | None = None) -> None:
        """Let the results of so many frames come, or of all."""
        while frames is None or frames > 0:
            frame, self.in_flight = self.in_flight, None
            if frame is None:
                if not self.backlog:
                    return
                frame = self.backlog.popleft()
            if self.backlog and self.pool.holds:
                self.in_flight = self.backlog.popleft()
            frame.done(frame.result)
            frames = None if frames is None else frames - 1


@define(eq=False)
class FakePool:
    """What sessions use of a pool."""

    # Results wait for `finish`.
    holds: bool = False
    backlog_frames: int = 50
    streams: list[FakeStream] = field(factory=list)

    def decoder(self, rate: int) -> FakeStream:
        return self._stream(rate)

    def encoder(
        self, rate: int, *, application: str, complexity: int, bitrate: int | None
    ) -> FakeStream:
        assert complexity >= 0
        assert bitrate is None or bitrate > 0
        return self._stream(rate, application)

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finish(self, frames: int | None = None) -> None:
        """Of every stream, let the results of so many frames come, or of all."""
        for stream in self.streams:
            stream.finish(frames)

    @property
    def as_pool(self) -> WorkerPool:
        """Itself, for those who want the real one."""
        return cast("WorkerPool", self)

    def _stream(self, rate: int, application: str = "") -> FakeStream:
        stream = FakeStream(self, rate, application)
        self.streams.append(stream)
        return stream
