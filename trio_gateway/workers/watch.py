"""Whether a worker hangs, found out by a look at it now and then.

Rule 1: nothing is done for a frame. A look compares the oldest ticket that the worker holds with
the one of the last look: as long as that is the same one, the worker has reported nothing.
Rule 2: time counts from the look that saw this ticket first. That is after it was handed out and
after the worker's last report, so a worker is never judged too soon, and at most one look too late.
Rule 3: a look that comes much too late says that our own thread stood still, or the whole machine
did. The time between says nothing about the worker, and it gets the full time again.

No I/O and no clock here.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_gateway.workers.frame import Frame
    from trio_gateway.workers.lane import Lane

__all__ = ["LOOKS", "Watch"]

# Looks in the time that a worker may be silent. A hang is noticed after that time and at most one
# look more; two are the fewest that can tell a stall of ours from one of the worker's.
LOOKS = 2


class Watch:
    """Looks at one lane.

    Args:
        lane: The worker's.
        timeout: Seconds that the worker may hold a ticket and report nothing. `look` is to be
            called LOOKS times in that time.
    """

    def __init__(self, lane: Lane, timeout: float) -> None:
        self._lane = lane
        self._timeout = timeout
        self._oldest: Frame | None = None
        self._since = -inf
        self._looked = -inf

    def look(self, now: float) -> float | None:
        """Seconds that the worker has been silent, if those are too many."""
        oldest = self._lane.held[0] if self._lane.held else None
        stood_still = now - self._looked > 2 * self._timeout / LOOKS
        self._looked = now
        if oldest is None or oldest is not self._oldest or stood_still:
            self._oldest = oldest
            self._since = now
            return None
        silent = now - self._since
        return silent if silent >= self._timeout else None
