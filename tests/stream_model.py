"""A stream of a pool, what was said on it, and what one codec on one thread makes of the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import opuslib_next
import trio
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames
from opuslib_next.api import ctl
from opuslib_next.api import encoder as encoder_api

from trio_gateway.errors import CodecError, FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.workers.codec import RECOVER
from trio_gateway.workers.stream import Decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trio_gateway.workers.frame import Frame, Result
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.stream import Encoder

__all__ = ["SPOKEN", "Line", "Said"]

Said: TypeAlias = str
"""One of SPOKEN. An encoder is told nothing but frames."""

SPOKEN = ("frame", "lost", "recover", "nonsense")

CYCLE = 12  # frames, then the same again
SAMPLES = 960  # 60 ms at 16 kHz
NONSENSE = b"\xff\xff\xff"  # says that it has 63 frames
PCM = frames(24000, CYCLE, frame_ms=20)


def _packets() -> list[bytes]:
    """Speech in which each packet has a copy of the frame before it."""
    encoder = opuslib_next.Encoder(16000, 1, opuslib_next.APPLICATION_VOIP)
    for request, value in (
        (ctl.set_bitrate, 32000),
        (ctl.set_inband_fec, 1),
        (ctl.set_packet_loss_perc, 30),
    ):
        encoder_api.encoder_ctl(encoder.encoder_state, request, value)
    return [encoder.encode(pcm.tobytes(), len(pcm)) for pcm in frames(16000, CYCLE)]


PACKETS = _packets()


class Line:
    """A stream, what was said on it, and what became of that.

    Attributes:
        said: All of it, in order.
        results: Position and result, as they came.
        withdrawn: Positions of frames whose caller was cancelled before a worker had them.
    """

    def __init__(self, pool: WorkerPool, *, encodes: bool) -> None:
        self.stream: Decoder | Encoder = (
            pool.encoder(24000, bitrate=24000) if encodes else pool.decoder(16000)
        )
        self.said: list[Said] = []
        self.results: list[tuple[int, Result]] = []
        self.withdrawn: set[int] = set()
        self._pool = pool
        self._frames: list[Frame] = []
        self._keep_frames()

    def _keep_frames(self) -> None:
        """Nobody but the frame itself knows whether a lost worker may have had it in hand."""
        submit = self.stream._submit

        def keep(*arguments: object, **keywords: object) -> Frame:
            frame = submit(*arguments, **keywords)  # type: ignore[arg-type]
            self._frames.append(frame)
            return frame

        self.stream._submit = keep  # type: ignore[method-assign]

    def speak(self, what: Said) -> None:
        """Say the next thing."""
        position = self._position(what)
        done = partial(self._done, position)
        if not isinstance(self.stream, Decoder):
            self.stream.submit_encode(PCM[position % CYCLE], done)
        elif what == "frame":
            self.stream.submit_decode(PACKETS[position % CYCLE], done)
        elif what == "nonsense":
            self.stream.submit_decode(NONSENSE, done)
        elif what == "lost":
            self.stream.submit_conceal(SAMPLES, done)
        else:  # there is no call for it that does not wait
            packet = PACKETS[position % CYCLE]
            self.stream._submit(RECOVER, SAMPLES, done, packet=packet)

    async def speak_and_be_cancelled(self, what: Said) -> None:
        """Await the next thing, but not to its end."""
        position = self._position(what)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, position)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()  # by now it has been submitted
            before = self._pool.statistics().dropped
            nursery.cancel_scope.cancel()
            if self._pool.statistics().dropped > before:
                self.withdrawn.add(position)
            else:  # Nobody waits for it any more, but the stream has to hear it all the same.
                self._frames[position].done = partial(self._done, position)

    def _position(self, what: Said) -> int:
        self.said.append(what if isinstance(self.stream, Decoder) else "frame")
        return len(self.said) - 1

    async def _ask(self, position: int) -> None:
        try:
            if not isinstance(self.stream, Decoder):
                result: Result = await self.stream.encode(PCM[position % CYCLE])
            elif self.said[position] == "frame":
                result = await self.stream.decode(PACKETS[position % CYCLE])
            elif self.said[position] == "nonsense":
                result = await self.stream.decode(NONSENSE)
            elif self.said[position] == "lost":
                result = await self.stream.conceal(SAMPLES)
            else:
                result = await self.stream.recover(PACKETS[position % CYCLE], SAMPLES)
        except (CodecError, FrameDropped, PoolClosed, WorkerFailed) as error:
            result = error.with_traceback(None)  # which would hold this frame, and that the error
        self._done(position, result)

    def _done(self, position: int, result: Result) -> None:
        self.results.append((position, result))

    @property
    def complete(self) -> bool:
        """Whether every frame has its result."""
        return len(self.results) + len(self.withdrawn) == len(self.said)

    @property
    def suspicions(self) -> int:
        """How often a worker was lost that may have had a frame of this stream in hand."""
        return sum(frame.lost_workers for frame in self._frames)

    def let_go(self) -> None:
        """Refer to nothing any more that refers to this."""
        del self.stream._submit
        self._frames.clear()

    def check(self) -> None:
        """Compare with the model."""
        positions = [position for position, _ in self.results]
        assert sorted([*positions, *self.withdrawn]) == list(range(len(self.said)))
        heard = [position for position, result in self.results if was_heard(result)]
        assert heard == sorted(heard)
        results = dict(self.results)
        model = Model(encodes=not isinstance(self.stream, Decoder))
        for position, frame in enumerate(self._frames):
            result = results.get(position)
            what = self.said[position]
            suspect = frame.lost_workers > 0
            if suspect:
                model.forget()
            if isinstance(result, CodecError):
                assert what == "nonsense"
                assert result.code == -4
                continue
            if isinstance(result, WorkerFailed) or frame.lost_workers > 1:
                assert frame.lost_workers == 2
                assert isinstance(result, WorkerFailed | PoolClosed)  # closed in between
            if was_heard(result):
                right = model.hear(what, position, suspect=suspect)
                np.testing.assert_array_equal(result, right)


def was_heard(result: Result | None) -> bool:
    """Whether the codec has heard the frame that this became of."""
    return result is not None and not isinstance(result, Exception)


class Model:
    """One codec, one thread."""

    def __init__(self, *, encodes: bool) -> None:
        self._encodes = encodes
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._decoder = ReferenceDecoder(16000)
        self._encoder = ReferenceEncoder(24000)

    def hear(self, what: Said, position: int, *, suspect: bool) -> bytes | NDArray[np.int16]:
        """Return what comes of the next thing; of a suspect, what replaces it."""
        if self._encodes:
            return self._encoder.encode(PCM[position % CYCLE])
        if suspect or what == "lost":
            return self._decoder.conceal(SAMPLES)
        if what == "recover":
            return self._decoder.recover(PACKETS[position % CYCLE], SAMPLES)
        return self._decoder.decode(PACKETS[position % CYCLE])
