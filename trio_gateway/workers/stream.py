"""Streams: one codec state each, for as long as somebody speaks or listens."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import outcome
import trio

from trio_gateway.errors import FrameDropped
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE, RECOVER
from trio_gateway.workers.frame import Frame, StreamQueue
from trio_gateway.workers.opus import GET_LOOKAHEAD, MAX_FRAME_MS, SAMPLE_RATES
from trio_gateway.workers.slab import MAX_PACKET_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trio_gateway.workers.dispatch import Dispatcher
    from trio_gateway.workers.frame import DecodeDone, EncodeDone, Result
    from trio_gateway.workers.opus import OpusState

__all__ = ["Decoder", "Encoder", "Stream"]

_INT16 = np.dtype(np.int16)

# Frame lengths that opus_encode takes, in units of 1/400 s (2.5 ms): opus_encoder.h.
_FRAME_UNITS = (1, 2, 4, 8, 16, 24, 32, 40, 48)


class Stream:
    """What decoders and encoders have in common."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        make_state: Callable[[], OpusState],
        rate: int,
        *,
        max_backlog: int,
        max_packet_bytes: int,
        on_close: Callable[[Stream], None],
    ) -> None:
        if rate not in SAMPLE_RATES:
            raise ValueError(f"sample rate {rate}: Opus takes {SAMPLE_RATES}")
        self.rate = rate
        self._room = rate * MAX_FRAME_MS // 1000  # samples of the longest frame
        self._dispatcher = dispatcher
        self._on_close = on_close
        self._queue = StreamQueue(make_state, rate, max_backlog, max_packet_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def cost(self) -> float | None:
        """Seconds that libopus took for a frame lately (an exponential mean); None before any."""
        return self._queue.cost if self._queue.measured else None

    def close(self) -> None:
        """Take no more frames and drop those that no worker has yet. May be called twice."""
        self.shut(lambda: FrameDropped("the stream was closed"))

    def shut(self, why: Callable[[], Exception]) -> None:
        """`close`, for another reason. Every frame that is dropped gets an exception of its own."""
        if not self._queue.closed:
            self._dispatcher.close_stream(self._queue, why)
            self._on_close(self)

    def _submit(
        self,
        operation: int,
        samples: int,
        done: Callable[[Any], None],
        *,
        packet: bytes = b"",
        pcm: NDArray[np.int16] | None = None,
    ) -> Frame:
        frame = Frame(self._queue, operation, samples, done, packet, pcm)
        self._dispatcher.submit(frame)
        return frame

    # A Ctrl-C between submitting and waiting would leave a callback that wakes a task which does
    # not sleep. Protected, it reaches the wait instead.
    @trio.lowlevel.enable_ki_protection
    async def _perform(
        self,
        operation: int,
        samples: int,
        *,
        packet: bytes = b"",
        pcm: NDArray[np.int16] | None = None,
    ) -> Result:
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()

        def done(result: Result) -> None:
            if isinstance(result, Exception):
                trio.lowlevel.reschedule(task, outcome.Error(result))
            else:
                trio.lowlevel.reschedule(task, outcome.Value(result))

        frame = self._submit(operation, samples, done, packet=packet, pcm=pcm)

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            self._dispatcher.withdraw(frame)
            return trio.lowlevel.Abort.SUCCEEDED

        return cast("Result", await trio.lowlevel.wait_task_rescheduled(abort))


class Decoder(Stream):
    """One Opus decoder, mono. Frames are decoded in the order of the calls.

    Methods exist twice: to be awaited, and with a callback `done(result)`, which is called in the
    Trio thread with the samples or with the exception. It must be short and must not raise; what it
    submits after a FrameDropped displaces the next frame, and may do so for ever.
    """

    async def decode(self, packet: bytes) -> NDArray[np.int16]:
        """Decode one packet.

        Returns:
            int16 samples at `rate`, as many as the packet holds (2.5 to 120 ms).

        Raises:
            CodecError: libopus refuses the packet.
            FrameDropped: More frames came after it than the backlog holds, or the stream closed.
            PoolClosed: The stream or the pool was closed before.
            WorkerFailed: Two workers were lost over this packet.
            ValueError: It is empty, or longer than MAX_PACKET_BYTES.
        """
        _check_packet(packet)
        return cast("NDArray[np.int16]", await self._perform(DECODE, self._room, packet=packet))

    async def conceal(self, samples: int) -> NDArray[np.int16]:
        """Fill in a lost frame of `samples` samples (packet-loss concealment)."""
        self._check_samples(samples)
        return cast("NDArray[np.int16]", await self._perform(CONCEAL, samples))

    async def recover(self, packet: bytes, samples: int) -> NDArray[np.int16]:
        """Decode the lost frame before `packet` from its in-band FEC, or conceal it without."""
        _check_packet(packet)
        self._check_samples(samples)
        return cast("NDArray[np.int16]", await self._perform(RECOVER, samples, packet=packet))

    def submit_decode(self, packet: bytes, done: DecodeDone) -> None:
        """`decode` with a callback."""
        _check_packet(packet)
        self._submit(DECODE, self._room, done, packet=packet)

    def submit_conceal(self, samples: int, done: DecodeDone) -> None:
        """`conceal` with a callback."""
        self._check_samples(samples)
        self._submit(CONCEAL, samples, done)

    def submit_recover(self, packet: bytes, samples: int, done: DecodeDone) -> None:
        """`recover` with a callback."""
        _check_packet(packet)
        self._check_samples(samples)
        self._submit(RECOVER, samples, done, packet=packet)

    def _check_samples(self, samples: int) -> None:
        if samples <= 0 or samples * 400 % self.rate or samples > self._room:
            raise ValueError(f"{samples} samples are no multiple of 2.5 ms up to 120 ms")


class Encoder(Stream):
    """One Opus encoder, mono. Frames are encoded in the order of the calls."""

    @cached_property
    def lookahead(self) -> int:
        """Samples at `rate` by which what is decoded lags behind what was encoded.

        In a file it is the pre-skip (RFC 7845 section 5.1, counted at 48 kHz there).
        """
        # Of a state of its own: a worker may be at work on the stream's.
        return self._queue.make_state().ask(GET_LOOKAHEAD)

    async def encode(self, pcm: NDArray[np.int16]) -> bytes:
        """Encode one frame.

        Args:
            pcm: int16 samples at `rate`, shape (n,), 2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms.

        Raises:
            CodecError, FrameDropped, PoolClosed, WorkerFailed: As for `Decoder.decode`.
            ValueError: That is no PCM, or not as long as an Opus frame.
        """
        self._check_pcm(pcm)
        return cast("bytes", await self._perform(ENCODE, len(pcm), pcm=pcm))

    def submit_encode(self, pcm: NDArray[np.int16], done: EncodeDone) -> None:
        """`encode` with a callback `done(packet_or_exception)`; `pcm` must not change meanwhile."""
        self._check_pcm(pcm)
        self._submit(ENCODE, len(pcm), done, pcm=pcm)

    def _check_pcm(self, pcm: NDArray[np.int16]) -> None:
        if not (pcm.dtype is _INT16 or pcm.dtype == _INT16) or pcm.ndim != 1:  # == takes 10 times
            raise ValueError(
                f"PCM is {pcm.dtype} of shape {pcm.shape}; int16 of shape (n,) is needed"
            )
        if len(pcm) not in _frame_lengths(self.rate):
            raise ValueError(f"{len(pcm)} samples at {self.rate} Hz are no Opus frame length")


@cache
def _frame_lengths(rate: int) -> frozenset[int]:
    """Samples, at `rate` Hz."""
    return frozenset(rate * units // 400 for units in _FRAME_UNITS)


def _check_packet(packet: object) -> None:
    if not isinstance(packet, bytes):
        text = f"a packet is bytes, and this is {type(packet).__name__}"
        raise ValueError(text)  # noqa: TRY004  as for whatever else is wrong with an argument
    if not 0 < len(packet) <= MAX_PACKET_BYTES:
        raise ValueError(f"a packet of {len(packet)} bytes; 1 to {MAX_PACKET_BYTES} are possible")
