"""Packets that wait for others to confirm them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from trio_gateway.core.jitter import UplinkFrame

__all__ = ["Address", "Arrived", "Claim"]

Address: TypeAlias = tuple[str, int]
Arrived: TypeAlias = "tuple[UplinkFrame, float]"
"""A frame and the time it came, in seconds of the caller's clock."""


@define
class Claim:
    """Packets from one address, each continuing the one before.

    Attributes:
        address: Where they came from.
        reach: Sequences by which one packet may be ahead of another that it continues.
        max_held: Packets held at most; the oldest gives way.
        held: The packets, sequences ascending.
    """

    address: Address
    reach: int
    max_held: int
    held: list[Arrived] = field(factory=list)

    @property
    def first(self) -> int:
        """The sequence of the first packet that is held."""
        return self.held[0][0].sequence

    def span(self, now: float) -> float:
        """Return the seconds since the first packet that is held came."""
        return now - self.held[0][1]

    def add(self, frame: UplinkFrame, arrived: float) -> int:
        """Take a packet; return how many are given up for it: of those held, or itself."""
        given_up = 0
        if self.held:
            step = frame.sequence - self.held[-1][0].sequence
            if -self.reach <= step <= 0:  # a copy or a straggler of what is held
                return 1
            if abs(step) > self.reach:
                given_up = len(self.held)
                self.held = []
        self.held.append((frame, arrived))
        if len(self.held) > self.max_held:
            del self.held[0]
            given_up += 1
        return given_up
