"""Packets that wait for others to confirm them, and the streams that are left when that happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field, frozen

if TYPE_CHECKING:
    from trio_gateway.core.jitter import UplinkFrame

__all__ = ["MAX_HELD", "Address", "Arrived", "Claim", "Line"]

Address: TypeAlias = tuple[str, int]
Arrived: TypeAlias = "tuple[UplinkFrame, float]"
"""A frame and the time it came, in seconds of the caller's clock."""

MAX_HELD = 16
"""Packets held for one claim (a guess: a second of audio). The oldest gives way."""


@define
class Claim:
    """Packets from one address, each continuing the one before.

    Attributes:
        address: Where they came from.
        held: The packets, sequences ascending.
    """

    address: Address
    held: list[Arrived] = field(factory=list)

    def add(self, frame: UplinkFrame, arrived: float, reach: int) -> int:
        """Take a packet; return how many are given up for it: of those that were held, or itself.

        Args:
            frame: The packet.
            arrived: When it came.
            reach: Sequences by which one packet may be ahead of another that it continues.
        """
        given_up = 0
        if self.held:
            step = frame.sequence - self.held[-1][0].sequence
            if -reach <= step <= 0:  # a copy or a straggler of what is held
                return 1
            if abs(step) > reach:
                given_up = len(self.held)
                self.held = []
        self.held.append((frame, arrived))
        if len(self.held) > MAX_HELD:
            del self.held[0]
            given_up += 1
        return given_up


@frozen(kw_only=True)
class Line:
    """A stream that another one has taken the place of.

    Attributes:
        address: Where it came from.
        highest: Its highest sequence.
        heard: When it was heard last.
        believed: Its packets.
        left: When the other took its place.
        left_for: The first sequence of the other.
        can_return: Whether the way back is free; else it is a move like any other.
    """

    address: Address
    highest: int
    heard: float
    believed: int
    left: float
    left_for: int
    can_return: bool
