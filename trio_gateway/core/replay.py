"""A window of the sequences that were seen (RFC 4303, 3.4.3), as one integer of bits."""

from __future__ import annotations

from enum import Enum

from attrs import define, field

__all__ = ["ReplayWindow", "Seen"]

WINDOW = 64
"""Sequences the window covers: the default of RFC 4303. At 60 ms a frame it spans 3.8 s."""


class Seen(Enum):
    """What the window knows about a sequence."""

    NEW = "new"
    DUPLICATE = "duplicate"
    TOO_OLD = "too_old"


@define
class ReplayWindow:
    """Tells new sequences from old ones; sequences are unrolled (`serial.unrolled`).

    `look` asks, `mark` remembers. They are two calls because a packet is remembered only after
    every other check: else a forgery with the right number would shut the real packet out.

    Attributes:
        size: Sequences at and below `highest` that are still told apart.
        highest: The highest marked sequence. The wire counts from 1, so in the beginning 0 and all
            below count as seen.
    """

    size: int = WINDOW
    highest: int = field(default=0, init=False)
    _seen: int = field(init=False, repr=bin)  # bit i: highest - i was marked

    def __attrs_post_init__(self) -> None:
        self._seen = (1 << self.size) - 1

    def restart(self, highest: int) -> None:
        """Go on from `highest`: it and all below count as seen."""
        self.highest = highest
        self._seen = (1 << self.size) - 1

    def look(self, sequence: int) -> Seen:
        """Classify `sequence` without remembering it."""
        age = self.highest - sequence
        if age < 0:
            return Seen.NEW
        if age >= self.size:
            return Seen.TOO_OLD
        return Seen.DUPLICATE if self._seen >> age & 1 else Seen.NEW

    def mark(self, sequence: int) -> None:
        """Remember `sequence`; one below the window changes nothing."""
        ahead = sequence - self.highest
        if ahead <= 0:
            self._seen |= 1 << -ahead if -ahead < self.size else 0
            return
        kept = self._seen << ahead if ahead < self.size else 0
        self._seen = (kept | 1) & ((1 << self.size) - 1)
        self.highest = sequence
