"""Streams that another one has taken the place of, and that may go on (pinning.py, rule 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from trio_gateway.core.claims import Address, Arrived, Claim
    from trio_gateway.core.jitter import UplinkFrame

__all__ = ["MAX_HEARD_SINCE", "MAX_LINES", "Line", "Lines"]

MAX_HEARD_SINCE = 1024
"""Packets remembered against replays. A guess: six probations."""

MAX_LINES = 3
"""Streams remembered; of more, the first and the last ones. A guess."""


@define
class Line:
    """A stream that was left.

    Attributes:
        highest: Its highest sequence.
        heard: When it was heard last.
        claim: What has come since that goes on with it.
    """

    highest: int
    heard: float
    claim: Claim


@define
class Lines:
    """Those of one session, oldest first; none when the stream that is believed has proved itself.

    Attributes:
        frame_s: Seconds in a frame.
        max_lag: Seconds of audio that may be missing, beyond those that have passed.
    """

    frame_s: float
    max_lag: float
    _lines: list[Line] = field(factory=list, init=False)
    # Of packets believed since a line was left: sequence and hash. Whoever goes back to a line
    # comes to where the replay window has begun anew; a packet is heard once all the same.
    _heard_since: dict[int, int] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def held(self) -> int:
        """Packets held now, to go back."""
        return sum(len(line.claim.held) for line in self._lines)

    def know(self, address: Address) -> bool:
        """Whether a stream from `address` was left."""
        return any(address == line.claim.address for line in self._lines)

    def find(self, sequence: int, address: Address, now: float) -> Line | None:
        """Return the line that a packet may be the next of."""
        for line in reversed(self._lines):
            ahead = sequence - line.highest
            plausible = ahead > 0 and ahead * self.frame_s <= self.max_lag + now - line.heard
            if address == line.claim.address and plausible:
                return line
        return None

    def leave(self, line: Line) -> int:
        """Remember a line; return how many packets are given up for it."""
        self._lines.append(line)
        return len(self._lines.pop(1).claim.held) if len(self._lines) > MAX_LINES else 0

    def hear(self, believed: list[Arrived]) -> None:
        """Remember what was believed while a line may be gone back to."""
        if not self._lines:
            return
        self._heard_since.update((frame.sequence, hash(frame.payload)) for frame, _ in believed)
        while len(self._heard_since) > MAX_HEARD_SINCE:
            del self._heard_since[next(iter(self._heard_since))]

    def is_replay(self, frame: UplinkFrame) -> bool:
        """Whether just this packet was believed, in a stream that was left or taken back."""
        heard = self._heard_since.get(frame.sequence)
        return heard is not None and heard == hash(frame.payload)

    def clear(self, highest: int) -> int:
        """Nobody goes back any more; return how many packets are given up.

        Args:
            highest: The highest sequence now: the replay window knows it and all below.
        """
        given_up = self.held
        self._lines.clear()
        heard = self._heard_since
        self._heard_since = {each: heard[each] for each in heard if each > highest}
        return given_up
