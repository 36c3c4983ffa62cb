"""When the next downlink frame is due: an absolute clock, a fixed lead.

A device plays frames at its own steady pace and holds the ones that came early. The pacer follows
that playout: it starts when the first frame is sent, and frame i is due `lead_frames - 1` frames
before the device needs it,

    due(i) = start + max(0, i - (lead_frames - 1)) * frame_s

so the device has a reserve of up to `lead_frames` frames and never more (five at once crash small
boards). Computed from the start and not from the last send, lateness does not add up. When a frame
was so late that the device ran dry, its playout has shifted, and the clock starts again from there.
"""

from __future__ import annotations

import math

from attrs import define, field
from attrs.validators import ge, gt

__all__ = ["Pacer"]

TOLERANCE = 0.005
"""Seconds that a device may be dry before the clock starts again. A guess: less is our own wake-up
latency, and with a lead of one frame it would slow the clock down frame by frame."""


@define
class Pacer:
    """Paces one stream of equal frames.

    Attributes:
        frame_s: Seconds in a frame.
        lead_frames: Frames the device holds at most; 0 is as 1.
        underruns: How often the device ran dry between two frames of a stream.
    """

    frame_s: float = field(validator=gt(0))
    lead_frames: int = field(default=2, validator=ge(0))
    underruns: int = field(default=0, init=False)
    _start: float = field(default=math.nan, init=False)
    _frames: int = field(default=0, init=False)

    def next_due(self, now: float) -> float:
        """Return when to send the next frame, in seconds; a time that has passed means at once."""
        if not self._frames:
            return now
        reserve = max(0, self.lead_frames - 1)
        return self._start + max(0, self._frames - reserve) * self.frame_s

    def sent(self, now: float) -> None:
        """Take note that a frame was sent at `now`."""
        if not self._frames:
            self._start = now
        elif now > self.played_out_at() + TOLERANCE:
            self.underruns += 1
            self._start, self._frames = now, 0
        self._frames += 1

    def played_out_at(self) -> float:
        """Return when the device has played all that was sent; -inf if there was nothing.

        Counted from the moment of sending: the network's delay and the device's own buffers come on
        top of it.
        """
        return self._start + self._frames * self.frame_s if self._frames else -math.inf

    def restart(self) -> None:
        """Forget the stream: the next frame starts the clock (a new reply, or one cut short)."""
        self._frames = 0
