"""From a device's datagrams to PCM in order, with what the device said about listening in between.

Rule 1: what leaves here is in the order in which it was said. A marker (`Talk`, `TalkEnd`) stands
    between the frames where the device's `listen` message stood, although audio and control come by
    different ways. After `listen stop` the last frames have `tail_wait` seconds to arrive. Frames
    that overtake their `listen start` wait as long for it; then they begin a talk that is only
    implied, or, right after a stop, they were its stragglers and are dropped.
Rule 2: a frame becomes one thing: decoded, concealed, failed or dropped. The decoder finishes
    frames in order; markers wait in the same line.
Rule 3: the line is bounded, whoever it is that does not read, decode or say `listen start`. The
    oldest audio is dropped, counted; a marker only when its talk has no audio left.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import trio
from attrs import define, frozen
from numpy.typing import NDArray

from trio_gateway.core.fates import UplinkStatistics
from trio_gateway.errors import FrameDropped

if TYPE_CHECKING:
    from trio_gateway.core.control import AudioParams
    from trio_gateway.core.link import AudioLink, UplinkFrame
    from trio_gateway.interfaces import Address
    from trio_gateway.settings import AudioSettings
    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Heard", "ListenMode", "Talk", "TalkEnd", "Uplink"]

ListenMode: TypeAlias = Literal["auto", "manual", "realtime"]

STRAGGLERS = 1.0
"""Seconds after `listen stop` in which audio without a `listen start` belongs to the talk that is
over. A guess: longer than Wi-Fi holds a datagram back, shorter than a person takes to press again;
who does, and whose start comes more than `tail_wait` behind the audio, loses what came before."""


@frozen
class Talk:
    """The device began to listen for its user.

    Attributes:
        mode: Who decides when it ends.
        implied: There is audio and no `listen start`: it was lost, or it comes later still.
    """

    mode: ListenMode
    implied: bool = False


@frozen
class TalkEnd:
    """The device stopped listening."""


Heard: TypeAlias = NDArray[np.int16] | Talk | TalkEnd


@define(eq=False)
class _Place:
    """A place in line. A frame's is filled when it is decoded; the gate's when a talk begins."""

    item: Heard | None = None
    is_frame: bool = False
    given_up: bool = False


class Uplink:
    """One session's way up.

    Args:
        link: The session's datagrams.
        pool: Decodes.
        params: What the device sends.
        settings: Rates and waits.
        backlog: Seconds of audio that wait for the reader.

    Attributes:
        rate: Of the PCM, Hz.
        frame_ms: Milliseconds in a frame.
        address_known: Set when the device has been heard.
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
        self.address_known = trio.Event()
        self._link = link
        self._decoder = pool.decoder(self.rate)
        self._frame_samples = self.rate * params.frame_ms // 1000
        self._max_places = max(2, int(backlog * 1000 / params.frame_ms))
        self._tail_wait = settings.tail_wait
        self._tail_ends = math.inf
        self._stopped_at = -math.inf
        self._talking = False
        self._gate: _Place | None = None  # holds back audio that came before its `listen start`
        self._gate_opens = math.inf
        self._gate_strays = False  # what is behind it came right after a stop
        self._line: deque[_Place] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._closed = False
        self._became: Counter[str] = Counter()

    @property
    def cost(self) -> float | None:
        """Seconds that decoding a frame took lately; None before any."""
        return self._decoder.cost

    @property
    def is_readable(self) -> bool:
        """Whether `next` would return without waiting for anything to arrive."""
        return bool(self._line) and self._line[0].item is not None

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram with this session's ssrc.

        Raises:
            BadPacket: It is refused.
        """
        frames = self._link.receive_datagram_untrusted(data, addr, now)
        if self._link.remote is not None:
            self.address_known.set()
        self._take(frames, now)

    def begin_talk(self, mode: ListenMode, now: float) -> None:
        """The device said `listen start`."""
        if self._tail_ends < math.inf:  # it said stop just before
            self._end_talk(now)
        self._talk(Talk(mode))

    def end_talk(self, now: float) -> None:
        """The device said `listen stop`: the end is marked when the tail has arrived."""
        self._stopped_at = now
        self._tail_ends = min(self._tail_ends, now + self._tail_wait)

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called; inf for never."""
        link = self._link.get_timer()
        ours = min(self._tail_ends, self._gate_opens)
        return ours if link is None else min(link, ours)

    def handle_timer(self, now: float) -> None:
        """Give up waiting for what is late by `now`."""
        self._take(self._link.handle_timer(now), now)
        if now >= self._gate_opens:
            self._open_gate()
        if now >= self._tail_ends:
            self._end_talk(now)

    def close(self) -> None:
        """No more comes; what is decoded can still be read."""
        if self._closed:
            return
        self._closed = True
        self._link.close()
        self._tail_ends = self._gate_opens = math.inf
        # What a worker holds finishes later, when nobody counts any more.
        waiting = [place for place in self._line if place.item is None]
        for place in waiting:
            self._give_up(place)
        self._decoder.close()
        self._readers.unpark_all()

    async def next(self) -> Heard:
        """Wait for the next frame or marker.

        Raises:
            trio.EndOfChannel: The session is over and everything was read.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_readable:
                place = self._line.popleft()
                if place.item is not None:
                    self._became["read"] += place.is_frame
                    return place.item
            if self._closed:
                raise trio.EndOfChannel
            await self._readers.park()

    def put_back(self, item: Heard) -> None:
        """Undo `next`."""
        is_frame = isinstance(item, np.ndarray)
        self._became["read"] -= is_frame
        self._line.appendleft(_Place(item, is_frame=is_frame))

    def settle(self) -> None:
        """The handler has left: nothing is read any more."""
        self.close()
        for place in tuple(self._line):
            self._give_up(place)

    def statistics(self) -> UplinkStatistics:
        """What became of everything that came."""
        link, became = self._link.statistics(), self._became
        in_line = [place.item is not None for place in self._line if place.is_frame]
        return UplinkStatistics(
            received=link.received,
            refused=link.bad,
            duplicate=link.duplicate,
            late=link.late,
            unconfirmed=link.unconfirmed,
            cut_off=link.cut_off,
            waiting=link.waiting + link.held,
            arrived=link.delivered,
            lost=link.lost,
            skipped=link.skipped,
            decoding=in_line.count(False),
            readable=in_line.count(True),
            **became,
        )

    def _talk(self, talk: Talk) -> None:
        self._talking = True
        if self._gate is None:
            self._append(_Place(talk))
        else:
            self._gate.item = talk
            self._gate, self._gate_opens = None, math.inf
            self._wake()

    def _open_gate(self) -> None:
        """No `listen start` has come."""
        if not self._gate_strays:
            self._talk(Talk("auto", implied=True))
            return
        while self._gate is not None:
            place = self._line[-1]
            if place is self._gate:
                self._gate, self._gate_opens = None, math.inf
            self._give_up(place)

    def _end_talk(self, now: float) -> None:
        self._tail_ends = math.inf
        self._take(self._link.flush(), now)
        if self._gate is not None:
            self._open_gate()
        if self._talking:
            self._talking = False
            self._append(_Place(TalkEnd()))

    def _take(self, frames: list[UplinkFrame], now: float) -> None:
        if self._closed:
            return
        if frames and not self._talking and self._gate is None:
            self._gate = _Place()
            self._gate_opens = now + self._tail_wait
            self._gate_strays = now < self._stopped_at + STRAGGLERS
            self._append(self._gate)
        for frame in frames:
            place = _Place(is_frame=True)
            self._append(place)
            if frame.payload is not None:
                self._decoder.submit_decode(frame.payload, partial(self._fill, place, "decoded"))
            elif frame.fec is not None:
                done = partial(self._fill, place, "recovered")
                self._decoder.submit_recover(frame.fec, self._frame_samples, done)
            else:
                done = partial(self._fill, place, "concealed")
                self._decoder.submit_conceal(self._frame_samples, done)

    def _fill(self, place: _Place, fate: str, result: Result) -> None:
        if place.given_up:
            return
        if isinstance(result, np.ndarray):
            self._became[fate] += 1
            place.item = result
        elif isinstance(result, FrameDropped):
            self._give_up(place)
        else:  # its time passes in silence; it is never played as noise
            self._became["failed"] += 1
            place.item = np.zeros(self._frame_samples, np.int16)
        self._wake()

    def _append(self, place: _Place) -> None:
        self._line.append(place)
        if len(self._line) > self._max_places:
            first, second = self._line[0], self._line[1]
            # Two markers: the talk between them has lost its audio, or had none. The gate is never
            # one of them: only frames stand behind it.
            self._give_up(first if first.is_frame or not second.is_frame else second)
        self._wake()

    def _give_up(self, place: _Place) -> None:
        self._line.remove(place)
        place.given_up = True
        if place.is_frame:
            self._became["dropped" if place.item is None else "unread"] += 1

    def _wake(self) -> None:
        if self.is_readable:
            self._readers.unpark_all()
