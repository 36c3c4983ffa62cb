"""The play-out side of a device: a queue of packets and a clock that empties it.

Nothing is decoded and no timer runs: when each packet begins to sound follows from when it came.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field

__all__ = ["Speaker"]

_CAPACITY: Final = 40  # packets: MAX_DECODE_PACKETS_IN_QUEUE, fw audio_service.h (5 in fw 1.6)
_ROUNDING: Final = 1e-6  # seconds: sums of 0.06 are not exact


@define
class Speaker:
    """What sounds when.

    Attributes:
        frame_s: Seconds of audio in a packet.
        overflows: Packets that found the queue full and were dropped.
        underruns: How often it fell silent and had to go on later: a gap that a person hears.
        cuts: Packets that were still to be played when it was stopped.
    """

    frame_s: float
    overflows: int = field(default=0, init=False)
    underruns: int = field(default=0, init=False)
    cuts: int = field(default=0, init=False)
    _ends_at: float = field(default=-math.inf, init=False)
    """When all that is queued has been played."""

    def start(self) -> None:
        """Begin a new playback: the queue is emptied (fw ResetDecoder)."""
        self._ends_at = -math.inf

    def push(self, now: float) -> bool:
        """Queue one packet; False if there is no room, then the newest is the one that goes."""
        if self._ends_at - now > _CAPACITY * self.frame_s + _ROUNDING:
            self.overflows += 1
            return False
        if -math.inf < self._ends_at < now - _ROUNDING:
            self.underruns += 1
        self._ends_at = max(self._ends_at, now) + self.frame_s
        return True

    def stop(self, now: float) -> int:
        """Stop now. Returns how many packets, the last ones, had not begun to sound."""
        left = (self._ends_at - now) / self.frame_s
        unheard = max(0, math.ceil(left - _ROUNDING) - 1) if left > 0 else 0
        self.cuts += unheard
        self._ends_at = -math.inf
        return unheard
