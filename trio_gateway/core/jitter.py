"""Puts uplink frames in order and names the lost ones.

Rule 1: a frame that comes in order leaves at once. There is no fixed playout delay: who listens
    is a program, and the codec's state cares about order, not about time.
Rule 2: frames leave with strictly increasing sequences, each one once, with its payload or as lost;
    only `restart` begins anew.
Rule 3: nobody waits longer than `reorder_wait`, counted from the arrival of the first frame behind
    the gap. Then what is missing is lost, and comes too late if it comes.
Rule 4: at most `max_gap_frames` of a gap are named; the rest is skipped and counted. Concealment
    fades to silence after a few frames, and time that is gone need not be filled.
"""

from __future__ import annotations

import math

from attrs import define, field, frozen
from attrs.validators import ge

from trio_gateway.core.opus_packet import carries_fec

__all__ = ["JitterBuffer", "UplinkFrame"]

MAX_WAITING = 64
"""Frames that wait behind a gap at most: as many as the replay window tells apart. The wait is one
frame's time by default, so only a burst after a stall comes near; then the gap is given up."""


@frozen
class UplinkFrame:
    """One frame of what a device says.

    Attributes:
        sequence: Unrolled to a plain integer: it never wraps.
        payload: One Opus packet, or None: lost, to be concealed.
        timestamp_ms: As received; 0 if the device sends none, or if the frame is lost.
        fec: Of a lost frame: the packet after it, if that carries a copy.
    """

    sequence: int
    payload: bytes | None = field(repr=False)
    timestamp_ms: int = 0
    fec: bytes | None = field(default=None, repr=False)


@define
class JitterBuffer:
    """Reorders one stream. Times are seconds of the caller's clock.

    Attributes:
        reorder_wait: Seconds to wait for a missing frame.
        max_gap_frames: Frames of one gap to name as lost.
        delivered: Frames that left with their payload.
        lost: Frames that left as lost.
        skipped: Missing frames of long gaps that were not named.
    """

    reorder_wait: float = field(validator=ge(0))
    max_gap_frames: int = field(validator=ge(0))
    delivered: int = field(default=0, init=False)
    lost: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    _next: int = field(default=1, init=False)  # the wire counts from 1
    _waiting: dict[int, tuple[UplinkFrame, float]] = field(factory=dict, init=False, repr=False)
    _deadline: float = field(default=math.inf, init=False)

    @property
    def waiting(self) -> int:
        """Frames that came and wait behind a gap."""
        return len(self._waiting)

    def is_late(self, sequence: int) -> bool:
        """Whether the place of `sequence` in the stream has passed."""
        return sequence < self._next

    def push(self, frame: UplinkFrame, arrived: float) -> list[UplinkFrame]:
        """Take a frame that is neither late nor here; return what may leave now, in order."""
        if frame.sequence == self._next and not self._waiting:
            self._next += 1
            self.delivered += 1
            return [frame]
        self._waiting[frame.sequence] = frame, arrived
        ready = self._in_order()
        while len(self._waiting) > MAX_WAITING:
            ready += self._give_up_gap()
        self._set_deadline()
        return ready

    def get_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, or None."""
        return None if self._deadline == math.inf else self._deadline

    def handle_timer(self, now: float) -> list[UplinkFrame]:
        """Give up the gaps that have waited long enough; return what may leave now, in order."""
        ready: list[UplinkFrame] = []
        while self._waiting and now >= self._deadline:
            ready += self._give_up_gap()
            self._set_deadline()
        return ready

    def flush(self) -> list[UplinkFrame]:
        """Wait for nothing more: return all that is here, in order, its gaps named."""
        return self.handle_timer(math.inf)

    def restart(self, sequence: int) -> list[UplinkFrame]:
        """Go on with `sequence`, further back or ahead; return what was waiting until now."""
        ready = self.flush()
        self._next = sequence
        return ready

    def _in_order(self) -> list[UplinkFrame]:
        ready = []
        while entry := self._waiting.pop(self._next, None):
            ready.append(entry[0])
            self._next += 1
        self.delivered += len(ready)
        return ready

    def _give_up_gap(self) -> list[UplinkFrame]:
        first = min(self._waiting)
        # The frames nearest to the next one are named: in-band FEC can repair the very last.
        named = min(first - self._next, self.max_gap_frames)
        self.lost += named
        self.skipped += first - self._next - named
        self._next = first
        gap = [UplinkFrame(each, None) for each in range(first - named, first)]
        behind = self._waiting[first][0].payload
        if gap and behind is not None and carries_fec(behind):
            gap[-1] = UplinkFrame(first - 1, None, fec=behind)
        return gap + self._in_order()

    def _set_deadline(self) -> None:
        # All that waits is behind the first gap, so the earliest arrival is the one that showed it.
        arrivals = (arrived for _, arrived in self._waiting.values())
        self._deadline = min(arrivals, default=math.inf) + self.reorder_wait
