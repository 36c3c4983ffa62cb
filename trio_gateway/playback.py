"""From PCM of any shape to paced datagrams, with the `tts` messages that make a device play them.

Rule 1: the device drops audio outside of `tts start` ... `tts stop`. Start goes out before the
first frame, by a guard; stop only when the last frame has been played out, or its tail is cut.
Rule 2: an abort flushes: nothing more is sent, `tts stop` goes out at once.
Rule 3: frames leave on an absolute clock (core/pacing.py), encoded ahead by a bounded number.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import trio

from trio_gateway.core.pacing import Pacer
from trio_gateway.core.pcm import FrameCutter
from trio_gateway.errors import CodecError, FrameDropped, SessionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable

    from numpy.typing import NDArray

    from trio_gateway.core.link import AudioLink
    from trio_gateway.interfaces import DatagramSender
    from trio_gateway.settings import AudioSettings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Playback", "Source"]

Source: TypeAlias = "NDArray[Any] | AsyncIterable[NDArray[Any]]"


class Playback:
    """One session's way down.

    Args:
        link: Seals.
        sender: Sends.
        pool: Encodes.
        settings: Rates, pacing, guard.
        lookahead: Frames encoded ahead of pacing.
        address_known: Set when the device has spoken: before, nobody knows where to send.
        tts: Sends a `tts` message with this state.
    """

    def __init__(
        self,
        link: AudioLink,
        sender: DatagramSender,
        pool: WorkerPool,
        settings: AudioSettings,
        *,
        lookahead: int,
        address_known: trio.Event,
        tts: Callable[[str], None],
    ) -> None:
        self.rate = settings.downlink_rate
        self.frame_ms = settings.downlink_frame_ms
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._link = link
        self._sender = sender
        self._encoder = pool.encoder(
            self.rate, complexity=settings.complexity, bitrate=settings.bitrate
        )
        self._lead_frames = settings.lead_frames
        self._guard = settings.guard
        self._lookahead = lookahead
        self._address_known = address_known
        self._tts = tts
        self._closed = False
        self._turn = trio.Lock()
        self._playing: trio.CancelScope | None = None

    @property
    def playing(self) -> bool:
        """Whether something is being played, or waits for its turn."""
        return self._turn.locked()

    def abort(self) -> None:
        """Stop what is playing, now. What waits for its turn is played."""
        if self._playing is not None:
            self._playing.cancel()

    def close(self) -> None:
        """Nothing more will be played."""
        self._closed = True
        self.abort()
        self._encoder.close()

    async def play(self, source: Source, rate: int) -> bool:
        """Play to the end, after whatever is playing already.

        Args:
            source: PCM (see `core.pcm.to_int16`), or an async iterable of it.
            rate: Of the source, Hz.

        Returns:
            True when the device has played all of it, False when that was aborted.

        Raises:
            ValueError: The samples have another type or shape.
            SessionClosed: The session ended before or meanwhile.
        """
        cutter = FrameCutter(rate, self.rate, self.rate * self.frame_ms // 1000)
        async with self._turn:
            with trio.CancelScope() as self._playing:
                if not self._closed:
                    await self._address_known.wait()
                    await self._stream(_frames(source, rate, cutter))
            aborted = self._playing.cancelled_caught
            self._playing = None
        if self._closed:
            raise SessionClosed("the session has ended")
        return not aborted

    async def _stream(self, frames: AsyncGenerator[NDArray[np.int16]]) -> None:
        send, receive = trio.open_memory_channel[bytes](self._lookahead)
        failures: list[Exception] = []  # the source's own; a group around it would help nobody
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._encode, frames, send, failures)
            await self._pace(receive)
        if failures:
            raise failures[0]

    async def _encode(
        self,
        frames: AsyncGenerator[NDArray[np.int16]],
        send: trio.MemorySendChannel[bytes],
        failures: list[Exception],
    ) -> None:
        try:
            async with send, aclosing(frames):
                async for frame in frames:
                    packet = await self._encode_one(frame)
                    if packet is not None:
                        await send.send(packet)
        except Exception as error:  # noqa: BLE001  raised again by _stream
            failures.append(error)

    async def _encode_one(self, frame: NDArray[np.int16]) -> bytes | None:
        try:
            return await self._encoder.encode(frame)
        except CodecError:
            self.failed += 1
        except FrameDropped:
            self.dropped += 1
        return None

    async def _pace(self, packets: trio.MemoryReceiveChannel[bytes]) -> None:
        pacer = Pacer(self.frame_ms / 1000, max(1, self._lead_frames))
        started = False
        try:
            async for packet in packets:
                if not started:
                    self._tts("start")
                    started = True
                    await trio.sleep(self._guard)
                await trio.sleep_until(pacer.next_due(trio.current_time()))
                self._send(packet, pacer)
            if started:
                await trio.sleep_until(pacer.played_out_at())
        finally:
            if started:
                self._tts("stop")

    def _send(self, packet: bytes, pacer: Pacer) -> None:
        now = trio.current_time()
        pacer.sent(now)
        remote = self._link.remote
        assert remote is not None  # noqa: S101  address_known was set by it
        if self._sender.send(self._link.seal(packet, now), remote):
            self.sent += 1
        else:
            self.dropped += 1


async def _frames(
    source: Source, rate: int, cutter: FrameCutter
) -> AsyncGenerator[NDArray[np.int16]]:
    if isinstance(source, np.ndarray):
        for start in range(0, len(source), rate):  # a second at a time: resampling holds the loop
            for frame in cutter.push(source[start : start + rate]):
                yield frame
    else:
        async for chunk in source:
            for frame in cutter.push(chunk):
                yield frame
    for frame in cutter.finish():
        yield frame
