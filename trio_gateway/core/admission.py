"""How many calls fit: each reserves what it takes to hear and to speak without a pause.

Cores, that is, seconds of CPU for a second of a call:

    up    = (decoding + FRAME_S) / frame up
    down  = (encoding + FRAME_S) / frame down
    call  = the dearer one; both, if the device speaks while it listens (realtime mode)

Reserved and not used: a call that was quiet at its hello speaks later, and then it is too late to
refuse it. Three things can run out: the workers, the one thread that does everything else, and the
cores that both share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Capacity", "Costs", "Price", "Shortage"]

Shortage = Literal["workers", "thread", "cores"]

FRAME_S = 150e-6
"""Seconds of the Trio thread for a frame, from datagram to handler or back. Measured on a shared
x86-64 machine: 155 us, 40 devices, thread workers, 3.11."""


@frozen
class Costs:
    """Seconds that libopus takes for a frame."""

    decode_s: float
    encode_s: float


@frozen
class Price:
    """What a call reserves, or several. In cores.

    Attributes:
        codec: Of workers.
        trio: Of the Trio thread.
    """

    codec: float = 0.0
    trio: float = 0.0

    @classmethod
    def of(cls, costs: Costs, *, up_s: float, down_s: float, duplex: bool) -> Self:
        """Return the price of one call.

        Args:
            costs: Of its frames.
            up_s: Seconds in a frame of the device.
            down_s: Seconds in a frame to the device.
            duplex: The device speaks while it listens.
        """
        up = cls(costs.decode_s / up_s, FRAME_S / up_s)
        down = cls(costs.encode_s / down_s, FRAME_S / down_s)
        if duplex:
            return cls(up.codec + down.codec, up.trio + down.trio)
        return max(up, down, key=lambda each: each.cores)

    @classmethod
    def sum_of(cls, prices: Iterable[Price]) -> Self:
        """Add up."""
        prices = tuple(prices)
        return cls(sum(each.codec for each in prices), sum(each.trio for each in prices))

    def __add__(self, other: Price) -> Price:
        return Price(self.codec + other.codec, self.trio + other.trio)

    def __sub__(self, other: Price) -> Price:
        return Price(self.codec - other.codec, self.trio - other.trio)

    @property
    def cores(self) -> float:
        """Both together."""
        return self.codec + self.trio


@frozen(kw_only=True)
class Capacity:
    """What may be reserved.

    Attributes:
        cores: That this process may use.
        workers: That there will be at most.
        share: Of each of them, that calls may reserve; above 1 there is more than can be kept.
    """

    cores: float
    workers: int
    share: float

    def shortage(self, reserved: Price) -> Shortage | None:
        """Name what there is not enough of, or None if there is of all."""
        if reserved.codec > self.share * self.workers:
            return "workers"
        if reserved.trio > self.share * min(1.0, self.cores):
            return "thread"
        if reserved.cores > self.share * self.cores:
            return "cores"
        return None
