"""One task that wakes all sessions: each has a timer and says when it wants to be called.

Rule 1: what arrived before a deadline is taken before the deadline is said to have passed. When the
event loop or the machine stood still, datagrams wait in the sockets beside timers that are overdue;
called first, a timer would take for lost, or for silent, what only we have not read yet.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

import trio
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "Timers"]

PRUNE_FROM = 1000
"""Stale entries in the heap that nobody minds. Precedent: Trio's own deadlines are kept the same
way (DEADLINE_HEAP_MIN_PRUNE_THRESHOLD)."""

TURNS = 300
"""Turns of the event loop that tasks get for each second that a timer is late. The UDP plane reads
64 datagrams in one; 1,000 calls send 16,700 a second, which makes 261."""

MOST_TURNS = 60
"""A guess: twice what it takes to read all that the socket's buffer holds, 1,600 datagrams."""

_NO_ENTRY = -1


@define(eq=False)
class Timer:
    """One wake-up. Made by `Timers.timer`.

    Attributes:
        timers: Where it stands.
        callback: What to call; None once it is cancelled.
        deadline: When, in seconds of `trio.current_time`; inf for never.
        entry: The number of its entry in the heap.
    """

    timers: Timers = field(repr=False)
    callback: Callable[[], None] | None
    deadline: float = field(default=math.inf, init=False)
    entry: int = field(default=_NO_ENTRY, init=False)

    def wake_by(self, deadline: float) -> None:
        """Call back at `deadline` or soon after, unless that is to happen earlier anyway.

        So a wake-up may come early: look at the clock, and set it again.
        """
        if deadline < self.deadline and self.callback is not None:
            self.timers.schedule(self, deadline)

    def cancel(self) -> None:
        """Never call again. From now on nothing here keeps the callback alive."""
        self.callback = None
        self.timers.unschedule(self)


class Timers:
    """A heap of deadlines. An entry that its timer no longer points to is stale, and skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._entries = count()  # unique: equal deadlines are never compared by their timers
        self._scheduled = 0
        self._sleep = trio.CancelScope()

    def __len__(self) -> int:
        """Entries, the stale ones included."""
        return len(self._heap)

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that calls `callback` in the Trio thread. It must not raise."""
        return Timer(self, callback)

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        """Call `callback` once."""
        self.timer(callback).wake_by(deadline)

    async def run(self) -> None:
        """Call what is due, for ever."""
        while True:
            with trio.CancelScope() as self._sleep:
                self._sleep.deadline = self._heap[0][0] if self._heap else math.inf
                await trio.sleep_forever()
            await self._catch_up()
            self._call(trio.current_time())

    def schedule(self, timer: Timer, deadline: float) -> None:
        """See `Timer.wake_by`."""
        self._scheduled += timer.entry == _NO_ENTRY
        timer.deadline, timer.entry = deadline, next(self._entries)
        heapq.heappush(self._heap, (deadline, timer.entry, timer))
        self._sleep.deadline = min(self._sleep.deadline, deadline)
        if len(self._heap) > 2 * self._scheduled + PRUNE_FROM:
            self._heap = [each for each in self._heap if each[2].entry == each[1]]
            heapq.heapify(self._heap)

    def unschedule(self, timer: Timer) -> None:
        """See `Timer.cancel`."""
        self._scheduled -= timer.entry != _NO_ENTRY
        timer.deadline, timer.entry = math.inf, _NO_ENTRY

    async def _catch_up(self) -> None:
        """If we stood still, let those who read go first.

        Not for longer than that: in overload all turns are long, and there is always one more.
        """
        now = trio.current_time()
        late = now - self._heap[0][0] if self._heap else 0.0
        for _ in range(min(int(late * TURNS), MOST_TURNS)):
            if trio.current_time() >= now + late:
                break
            await trio.lowlevel.checkpoint()

    def _call(self, now: float) -> None:
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap))
        # What is set meanwhile waits for the next turn, even if it is due by now: no callback can
        # keep this loop, and with it everybody, from going on.
        for _, entry, timer in due:
            if timer.entry == entry and timer.callback is not None:
                self.unschedule(timer)
                timer.callback()
