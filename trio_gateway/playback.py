"""From PCM of any shape to paced datagrams, with the `tts` messages that make a device play them.

Rule 1: the device drops audio outside of `tts start` ... `tts stop`, and these overtake audio. So
    start goes out a guard before the first frame, and stop a guard after the last one has been
    played out, or its tail is cut.
Rule 2: an abort flushes what plays and what waits for its turn: nothing more is sent, `tts stop`
    goes out at once.
Rule 3: frames leave on an absolute clock (core/pacing.py), encoded ahead by a bounded number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import trio

from trio_gateway.core.fates import DownlinkStatistics
from trio_gateway.core.pacing import Pacer
from trio_gateway.core.pcm import FrameCutter
from trio_gateway.errors import CodecError, FrameDropped, SessionClosed, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from numpy.typing import NDArray

    from trio_gateway.core.link import AudioLink
    from trio_gateway.interfaces import DatagramSender
    from trio_gateway.settings import AudioSettings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Playback", "Source"]

Source: TypeAlias = "NDArray[Any] | AsyncIterable[NDArray[Any]]"
_Fate: TypeAlias = Literal["sent", "unsent", "failed", "dropped", "flushed"]


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

    Attributes:
        rate: Of the frames, Hz.
        frame_ms: Milliseconds in a frame.
        sent_at: When the last frame was sent (trio.current_time); -inf before.
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
        self.sent_at = -math.inf
        self._link = link
        self._sender = sender
        self._encoder = pool.encoder(
            self.rate,
            application=settings.application,
            complexity=settings.complexity,
            bitrate=settings.bitrate,
        )
        self._lead_frames = settings.lead_frames
        self._guard = settings.guard
        self._lookahead = lookahead
        self._address_known = address_known
        self._tts = tts
        self._closed = False
        self._turn = trio.Lock()
        self._plays: set[trio.CancelScope] = set()
        self._framed = 0
        self._became: Counter[_Fate] = Counter()

    @property
    def cost(self) -> float | None:
        """Seconds that encoding a frame took lately; None before any."""
        return self._encoder.cost

    @property
    def playing(self) -> bool:
        """Whether something is being played, or waits for its turn."""
        return bool(self._plays)

    def abort(self) -> None:
        """Stop what is playing, now, and forget what waits for its turn."""
        for scope in self._plays:
            scope.cancel()

    def close(self) -> None:
        """Nothing more will be played."""
        self._closed = True
        self.abort()
        self._encoder.close()

    def statistics(self) -> DownlinkStatistics:
        """What became of every frame."""
        queued = 0 if self._closed else self._queued
        flushed = self._became["flushed"] + self._queued - queued
        became = dict(self._became) | {"flushed": flushed}
        return DownlinkStatistics(framed=self._framed, queued=queued, **became)

    @property
    def _queued(self) -> int:
        return self._framed - self._became.total()

    async def play(self, source: Source, rate: int) -> bool:
        """Play to the end, after whatever is playing already.

        Args:
            source: PCM (see `core.pcm.to_int16`), or an async iterable of it. A generator is
                closed when the device has heard enough.
            rate: Of the source, Hz.

        Returns:
            True when the device has played all of it, False when that was aborted.

        Raises:
            TypeError, ValueError: The samples have another type or shape.
            KeystreamExhausted: The session has to be renewed (by a new hello).
            SessionClosed: The session ended before or meanwhile.
        """
        cutter = FrameCutter(rate, self.rate, self.rate * self.frame_ms // 1000)
        with trio.CancelScope() as scope:
            self._plays.add(scope)
            try:
                async with self._turn:
                    if not self._closed:
                        await self._address_known.wait()
                        await self._stream(source, cutter)
            finally:
                self._plays.remove(scope)
        if self._closed:
            raise SessionClosed("the session has ended")
        return not scope.cancelled_caught

    async def _stream(self, source: Source, cutter: FrameCutter) -> None:
        send, receive = trio.open_memory_channel[bytes](self._lookahead)
        failures: list[Exception] = []  # a group around the first would help nobody
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._encode, source, cutter, send, failures)
                try:
                    await self._pace(receive)
                except Exception as error:  # noqa: BLE001  raised again, see above
                    failures.append(error)
                    nursery.cancel_scope.cancel()
        finally:
            self._became["flushed"] += self._queued  # one play at a time: all of it was this one's
        if failures:
            raise failures[0]

    async def _encode(
        self,
        source: Source,
        cutter: FrameCutter,
        send: trio.MemorySendChannel[bytes],
        failures: list[Exception],
    ) -> None:
        async with send:
            try:
                if isinstance(source, np.ndarray):
                    await self._encode_frames(cutter.push(source), send)
                else:
                    async with _closing(source):
                        async for chunk in source:
                            await self._encode_frames(cutter.push(chunk), send)
                await self._encode_frames(cutter.finish(), send)
            except Exception as error:  # noqa: BLE001  raised again when all before it was played
                failures.append(error)

    async def _encode_frames(
        self, frames: Iterable[NDArray[np.int16]], send: trio.MemorySendChannel[bytes]
    ) -> None:
        for frame in frames:
            self._framed += 1
            try:
                packet = await self._encoder.encode(frame)
            except (CodecError, WorkerFailed):
                self._became["failed"] += 1
            except FrameDropped:
                self._became["dropped"] += 1
            else:
                await send.send(packet)

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
                await trio.sleep_until(pacer.played_out_at() + self._guard)
        finally:
            if started:
                self._tts("stop")

    def _send(self, packet: bytes, pacer: Pacer) -> None:
        now = trio.current_time()
        pacer.sent(now)
        self.sent_at = now
        remote = self._link.remote
        assert remote is not None  # noqa: S101  address_known was set by it
        taken = self._sender.send(self._link.seal(packet, now), remote)
        self._became["sent" if taken else "unsent"] += 1


def _closing(source: AsyncIterable[NDArray[Any]]) -> AbstractAsyncContextManager[object]:
    """Else a generator that is not read to its end is closed when the garbage collector comes."""
    return aclosing(source) if isinstance(source, AsyncGenerator) else nullcontext()
