"""How much is heard of what comes with a live ssrc, but from elsewhere than its session's device.

The ssrc travels in clear, so whoever has seen one can make the gateway decrypt and judge whatever
he sends; and since the cipher authenticates nothing, enough guesses move a session.

Rule 1: only strangers are limited: who sends from an address that a session knows, forged or not,
    is always heard, and so is everybody before it knows one. Nobody uses up what its device needs.
Rule 2: a session hears so many datagrams a second of all its strangers together. One of them may be
    its device behind a new address, which needs two.
Rule 3: half of that is what it hears of one address, whatever becomes of it. So one flooder does
    not use up what the device needs, even if he sends what is not refused but held, or a copy.
Rule 4: an address has so many datagrams a second refused, in all sessions together; beyond that it
    is not heard as a stranger at all. So behind one address (NAT) any number of devices may move,
    and who guesses cannot go on in the next session.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import define, field

from trio_gateway.core.rate_limit import RateLimits, network_of
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from trio_gateway.core.link import Address

__all__ = ["Strangers"]

# 2.2 us, more than the rest of what is spent on a datagram that is not heard.
_network_of = lru_cache(maxsize=4096)(network_of)


@define
class Strangers:
    """Decides for all sessions. Times are seconds of the caller's clock; memory is bounded.

    Attributes:
        per_session: Datagrams a second that one session hears from elsewhere; also at once. Half of
            them, or one, of one address.
        per_address: Datagrams a second of one address that are refused; also at once.
    """

    per_session: float
    per_address: float
    _sessions: RateLimits = field(init=False)
    _shares: RateLimits = field(init=False)
    _addresses: RateLimits = field(init=False)

    def __attrs_post_init__(self) -> None:
        share = max(1.0, self.per_session / 2)
        self._sessions = RateLimits(self.per_session, self.per_session)
        self._shares = RateLimits(share, share)
        self._addresses = RateLimits(self.per_address, self.per_address)

    def admit_untrusted(self, ssrc: int, address: Address, now: float) -> None:
        """Pass a stranger's datagram on, or refuse it before anything is spent on it.

        Raises:
            BadPacket: `stranger_address` (rules 3 and 4) or `stranger_session` (rule 2).
        """
        network = _network_of(address[0])
        if not (self._addresses.has(network, now) and self._shares.take((ssrc, network), now)):
            raise BadPacket("stranger_address")
        if not self._sessions.take(ssrc, now):
            raise BadPacket("stranger_session")

    def note_refused(self, address: Address, now: float) -> None:
        """Count a datagram that was passed on and then refused."""
        self._addresses.take(_network_of(address[0]), now)
