"""One timer for all sessions: a session says when it wants to be woken, one task wakes it."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timers"]


class Timers:
    """A heap of deadlines. Nothing is cancelled: whoever is woken early looks again and re-arms."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()  # equal deadlines are never compared by their callbacks
        self._sleep = trio.CancelScope()

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        """Call `callback` in the Trio thread at `deadline` (trio.current_time) or soon after."""
        if deadline < math.inf:
            heapq.heappush(self._heap, (deadline, next(self._order), callback))
            self._sleep.deadline = min(self._sleep.deadline, deadline)

    async def run(self) -> None:
        """Call what is due, for ever."""
        while True:
            with trio.CancelScope() as self._sleep:
                self._sleep.deadline = self._heap[0][0] if self._heap else math.inf
                await trio.sleep_forever()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                _, _, callback = heapq.heappop(self._heap)
                callback()
