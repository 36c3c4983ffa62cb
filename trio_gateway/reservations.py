"""What the live calls have reserved of this machine, and whether one more fits."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from trio_gateway.core.admission import Costs, Price
from trio_gateway.workers.frame import DECODING, ENCODING

if TYPE_CHECKING:
    from trio_gateway.core.admission import Capacity, Shortage
    from trio_gateway.session import Session

__all__ = ["Reservations"]

MEASURE_EVERY = 1.0
"""Seconds. What a frame costs changes as slowly as what is said; asking 1,000 calls takes 4 ms."""


class Reservations:
    """Of all live calls. Times are seconds of the caller's clock.

    Args:
        capacity: What may be reserved; None for as much as anybody asks for.
    """

    def __init__(self, capacity: Capacity | None) -> None:
        self._capacity = capacity
        self._prices: dict[Session, Price] = {}
        self._typical = Costs(DECODING, ENCODING)
        self._total = Price()
        self._measured_at = -math.inf

    @property
    def total(self) -> Price:
        """What all calls reserve."""
        return self._total

    def shortage(self, *, up_s: float, down_s: float, duplex: bool, now: float) -> Shortage | None:
        """Name what one more call is one too many for; None if it fits. See `Price.of`."""
        if self._capacity is None:
            return None
        if now >= self._measured_at + MEASURE_EVERY:
            self._measure(now)
        # It will cost what the others do, who talk through the same codec on the same machine.
        expected = Price.of(self._typical, up_s=up_s, down_s=down_s, duplex=duplex)
        return self._capacity.shortage(self._total + expected)

    def add(self, session: Session) -> None:
        """Reserve what `session` will need."""
        price = self._prices[session] = session.price(self._typical)
        self._total += price

    def discard(self, session: Session) -> None:
        """Free what `session` had reserved."""
        price = self._prices.pop(session, None)
        if price is not None:
            # Differences of floats leave a residue; of no calls it is nothing.
            self._total = self._total - price if self._prices else Price()

    def _measure(self, now: float) -> None:
        self._measured_at = now
        costs = [session.costs for session in self._prices]
        decode_s = [decode for decode, _ in costs if decode is not None]
        encode_s = [encode for _, encode in costs if encode is not None]
        self._typical = Costs(
            fmean(decode_s) if decode_s else self._typical.decode_s,
            fmean(encode_s) if encode_s else self._typical.encode_s,
        )
        for session in self._prices:
            self._prices[session] = session.price(self._typical)
        self._total = Price.sum_of(self._prices.values())
