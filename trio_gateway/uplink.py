"""From a device's datagrams to PCM in order, with what the device said about listening in between.

Rule 1: what leaves here is in the order in which it was said. A marker (`Talk`, `TalkEnd`) stands
between the frames where the device's `listen` message stood, although audio and control come by
different ways. After `listen stop` the last frames have `tail_wait` seconds to arrive; frames that
overtake their `listen start` wait as long for it, and then begin a talk that is only implied.
Rule 2: a frame leaves as PCM, concealed if it was lost, or it is counted. The decoder finishes
frames in order; markers wait in the same line.
Rule 3: a reader that does not read loses the oldest audio, counted; never a marker.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import trio
from attrs import define, frozen
from numpy.typing import NDArray

from trio_gateway.errors import FrameDropped

if TYPE_CHECKING:
    from trio_gateway.core.control import AudioParams
    from trio_gateway.core.link import AudioLink, UplinkFrame
    from trio_gateway.interfaces import Address
    from trio_gateway.settings import AudioSettings
    from trio_gateway.workers.dispatch import Result
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Heard", "ListenMode", "Talk", "TalkEnd", "Uplink"]

ListenMode: TypeAlias = Literal["auto", "manual", "realtime"]


@frozen
class Talk:
    """The device began to listen for its user.

    Attributes:
        mode: Who decides when it ends.
        implied: There is audio and no `listen start`: old firmware, or it comes later still.
    """

    mode: ListenMode
    implied: bool = False


@frozen
class TalkEnd:
    """The device stopped listening."""


Heard: TypeAlias = NDArray[np.int16] | Talk | TalkEnd


@define(eq=False)
class _Place:
    """A place in line: filled when its frame is decoded."""

    item: Heard | None = None
    skipped: bool = False


class Uplink:
    """One session's way up.

    Args:
        link: The session's datagrams.
        pool: Decodes.
        params: What the device sends.
        settings: Rates and waits.
        backlog: Seconds of PCM that wait for the reader.
    """

    def __init__(
        self,
        link: AudioLink,
        pool: WorkerPool,
        params: AudioParams,
        settings: AudioSettings,
        *,
        backlog: float,
    ) -> None:
        self.rate = settings.uplink_rate
        self.frame_ms = params.frame_ms
        self.decoded = 0
        self.concealed = 0
        self.failed = 0
        self.dropped = 0
        self.address_known = trio.Event()
        self._link = link
        self._decoder = pool.decoder(self.rate)
        self._frame_samples = self.rate * params.frame_ms // 1000
        self._max_items = max(1, int(backlog * 1000 / params.frame_ms))
        self._tail_wait = settings.tail_wait
        self._tail_ends = math.inf
        self._talking = False
        self._gate: _Place | None = None  # holds back audio that came before its `listen start`
        self._gate_opens = math.inf
        self._line: deque[_Place] = deque()
        self._items: deque[Heard] = deque()
        self._news = trio.Event()
        self._closed = False

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram with this session's ssrc.

        Raises:
            BadPacket: It is refused.
        """
        frames = self._link.receive_datagram_untrusted(data, addr, now)
        if frames and not self._talking and self._gate is None:
            self._gate = _Place()
            self._gate_opens = now + self._tail_wait
            self._line.append(self._gate)
        self._decode(frames)
        if self._link.remote is not None:
            self.address_known.set()

    def begin_talk(self, mode: ListenMode) -> None:
        """The device said `listen start`."""
        if self._tail_ends < math.inf:  # it said stop just before
            self._end_talk()
        self._talk(Talk(mode))

    def end_talk(self, now: float) -> None:
        """The device said `listen stop`: the end is marked when the tail has arrived."""
        self._tail_ends = min(self._tail_ends, now + self._tail_wait)

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called; inf for never."""
        link = self._link.get_timer()
        ours = min(self._tail_ends, self._gate_opens)
        return ours if link is None else min(link, ours)

    def handle_timer(self, now: float) -> None:
        """Give up waiting for what is late by `now`."""
        self._decode(self._link.handle_timer(now))
        if now >= self._gate_opens:
            self._talk(Talk("auto", implied=True))
        if now >= self._tail_ends:
            self._end_talk()

    def close(self) -> None:
        """No more comes; what is decoded can still be read."""
        self._closed = True
        self._decoder.close()
        self._news.set()

    async def next(self) -> Heard:
        """Wait for the next frame or marker.

        Raises:
            trio.EndOfChannel: The session is over and everything was read.
        """
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._closed:
                raise trio.EndOfChannel
            self._news = trio.Event()
            await self._news.wait()
        return self._items.popleft()

    def unread(self, item: Heard) -> None:
        """Put back what `next` returned."""
        self._items.appendleft(item)

    def _talk(self, talk: Talk) -> None:
        self._talking = True
        if self._gate is None:
            self._place(talk)
        else:
            self._gate.item = talk
            self._gate, self._gate_opens = None, math.inf
            self._advance()

    def _end_talk(self) -> None:
        self._tail_ends = math.inf
        self._decode(self._link.flush())
        if self._gate is not None:
            self._talk(Talk("auto", implied=True))
        self._talking = False
        self._place(TalkEnd())

    def _decode(self, frames: list[UplinkFrame]) -> None:
        if self._closed:
            return
        for frame in frames:
            place = _Place()
            self._line.append(place)
            if frame.payload is None:
                done = partial(self._fill, place, lost=True)
                self._decoder.submit_conceal(self._frame_samples, done)
            else:
                done = partial(self._fill, place, lost=False)
                self._decoder.submit_decode(frame.payload, done)

    def _fill(self, place: _Place, result: Result, *, lost: bool) -> None:
        if isinstance(result, np.ndarray):
            self.concealed += lost
            self.decoded += not lost
            place.item = result
        elif isinstance(result, FrameDropped):
            self.dropped += 1
            place.skipped = True
        else:  # libopus refuses it: its time passes in silence, it is never played as noise
            self.failed += 1
            place.item = np.zeros(self._frame_samples, np.int16)
        self._advance()

    def _place(self, marker: Talk | TalkEnd) -> None:
        self._line.append(_Place(marker))
        self._advance()

    def _advance(self) -> None:
        """Let those out whose turn it is."""
        line = self._line
        while line and (line[0].item is not None or line[0].skipped):
            item = line.popleft().item
            if item is not None:
                self._items.append(item)
        if len(self._items) > self._max_items:
            self._drop_oldest()
        if self._items:
            self._news.set()

    def _drop_oldest(self) -> None:
        for index, item in enumerate(self._items):
            if isinstance(item, np.ndarray):
                del self._items[index]
                self.dropped += 1
                return
        self._items.popleft()  # nothing but markers: the device plays with its button
