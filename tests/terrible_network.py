"""A terrible network on the virtual clock, and who listens at both of its ends.

What a network does is known beforehand: `through` makes a list of arrivals from a list of what was
sent. So nothing here depends on who runs first.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from typing import TYPE_CHECKING, TypeAlias

import trio
from attrs import define, field, frozen
from fake_pool import CONCEALED, RECOVERED, packet
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from served_sessions import Call

    from trio_gateway.core.link import LinkStatistics
    from trio_gateway.session import Session
    from trio_gateway.simulator.network import BadNetwork

__all__ = ["FRAME", "Arrival", "Bearer", "Listener", "StrictDevice", "made_up", "speech", "through"]

FRAME = 0.060
FEC = 1 << 12
"""In a fake packet's value, and so in its first byte: libopus would find a copy of the frame before
it there (core/opus_packet.py)."""

Sent: TypeAlias = "tuple[float, bytes]"
"""Seconds, datagram."""


def through(network: BadNetwork, sent: Iterable[Sent]) -> list[Sent]:
    """What arrives, in this order."""
    arrivals = [(due, data) for time, data in sent for due in network.admit(time)]
    return sorted(arrivals, key=lambda arrival: arrival[0])


def speech(call: Call, began: float, frames: int, *, first: int = 1) -> list[Sent]:
    """One frame each 60 ms, numbered from `first`. Every third carries FEC."""
    values = [number | (FEC if number % 3 == 0 else 0) for number in range(first, first + frames)]
    packets = [call.audio.say_packet(packet(value)) for value in values]
    return [(began + index * FRAME, data) for index, data in enumerate(packets)]


def made_up(numbers: Sequence[int], *, after: int = 0, max_gap_frames: int = 10) -> list[int]:
    """What is heard when just these frames of `speech` arrive in time: themselves, and repair."""
    heard = []
    for number in numbers:
        gap = [CONCEALED] * min(number - after - 1, max_gap_frames)
        if gap and number % 3 == 0:
            gap[-1] = RECOVERED
        heard += [*gap, number]
        after = number
    return heard


@define(eq=False)
class Listener:
    """A handler that hears.

    Attributes:
        heard: When which frame was read: its number, or CONCEALED or RECOVERED.
    """

    heard: list[tuple[float, int]] = field(factory=list)

    async def __call__(self, session: Session) -> None:
        async for frame in session.audio:
            assert frame.shape == (960,)
            value = int(frame[0])
            self.heard.append((trio.current_time(), value & ~FEC if value > 0 else value))

    @property
    def numbers(self) -> list[int]:
        """What was heard, without its times."""
        return [number for _, number in self.heard]

    @property
    def decoded(self) -> dict[int, float]:
        """When each frame was heard that is no repair."""
        return {number: time for time, number in self.heard if number > 0}


@frozen
class Arrival:
    """One datagram that came, and the link's counts before and after it."""

    time: float
    sequence: int
    before: LinkStatistics
    after: LinkStatistics

    @property
    def is_next(self) -> bool:
        """Whether nothing is missing before it."""
        counts = self.before
        out = counts.delivered + counts.lost + counts.skipped
        return self.sequence == out + 1 and not counts.waiting

    @property
    def is_believed(self) -> bool:
        """Whether it was taken for what it is at once, and not held (core/pinning.py, rule 3)."""
        before, after = self.before, self.after
        return after.delivered + after.waiting > before.delivered + before.waiting


@define(eq=False)
class Bearer:
    """Brings a session its arrivals when they are due, and takes notes."""

    call: Call
    arrivals: list[Arrival] = field(factory=list)

    async def bring(self, arrivals: Iterable[Sent]) -> None:
        link = self.call.session.link
        for due, data in arrivals:
            await trio.sleep_until(due)
            await wait_all_tasks_blocked()  # timers of the same moment come first, always
            before = link.statistics()
            self.call.send(data)
            (sequence,) = struct.unpack_from(">I", data, 12)
            now = trio.current_time()
            self.arrivals.append(Arrival(now, sequence, before, link.statistics()))


@define(eq=False)
class StrictDevice:
    """A device's ear, by protocol.md: what comes late, twice or outside of `tts` is dropped.

    Attributes:
        heard: Datagrams that it took.
        deepest: Most packets that were in its queue at once, the one that sounds included.
        refused: Datagrams that it dropped, by reason.
    """

    heard: list[bytes] = field(factory=list)
    deepest: int = 0
    refused: Counter[str] = field(factory=Counter)
    _speaking: bool = False
    _last: int = 0
    _ends: deque[float] = field(factory=deque)  # when each queued packet will have been played

    def tts(self, state: str) -> None:
        self._speaking = state == "start"
        self._ends.clear()

    def hear(self, data: bytes, now: float) -> None:
        reason = self._refusal(data, now)
        if reason:
            self.refused[reason] += 1
            return
        self._ends.append((self._ends[-1] if self._ends else now) + FRAME)
        self.deepest = max(self.deepest, len(self._ends))
        self.heard.append(data)

    def _refusal(self, data: bytes, now: float) -> str:
        kind, _, length, _, _, sequence = struct.unpack_from(">BBHIII", data)
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        if kind != 1 or len(data) != 16 + length:
            return "malformed"
        if sequence <= self._last:
            return "old"
        self._last = sequence
        if not self._speaking:
            return "not speaking"
        return "full" if len(self._ends) == 40 else ""
