"""Connections that belong to no client. Anybody can make them: they are what a flood is made of.

Some have yet to prove who they are, some are over but for their last bytes.

Rule 1: they never count against clients, nor clients against them.
Rule 2: there is always room for one more. When it is too tight, the oldest connection of the
        address that holds most has to go: so a flood from one address takes from nobody else, and
        behind that address a device that sends its CONNECT at once is in before its turn comes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from trio_gateway.broker.descriptors import room_for_pending
from trio_gateway.core.rate_limit import RateLimits

if TYPE_CHECKING:
    from trio_gateway.broker.peer import Peer
    from trio_gateway.settings import MqttSettings

__all__ = ["Intake", "Pending"]


class Pending(Protocol):
    """A connection, for all that matters here. Distinguished by identity."""

    @property
    def peer(self) -> Peer:
        """Where from."""

    def abort(self, reason: str) -> None:
        """End at once."""


class Intake:
    """Holds pending connections, within the limits for all and for each address.

    Args:
        settings: The limits.
    """

    def __init__(self, settings: MqttSettings) -> None:
        self._max = room_for_pending(settings)
        self._max_per_address = settings.max_pending_per_address
        self._rates = RateLimits(
            settings.connect_rate_per_address, settings.connect_burst_per_address
        )
        self._by_address: dict[str, OrderedDict[Pending, None]] = {}  # each oldest first
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def may_come(self, peer: Peer, now: float) -> bool:
        """Whether a new connection from there is served at all; if not, it costs nothing more."""
        return self._rates.take(peer.address, now)

    def add(self, connection: Pending) -> None:
        """Hold a connection; if that is one too many, abort another with "crowded_out"."""
        address = connection.peer.address
        same = self._by_address.setdefault(address, OrderedDict())
        same[connection] = None
        self._total += 1
        if len(same) > self._max_per_address:
            self._crowd_out(address)
        elif self._total > self._max:
            # 60 us for 1,000 addresses, a fifth of what a connection costs anyhow.
            self._crowd_out(max(self._by_address, key=lambda each: len(self._by_address[each])))

    def discard(self, connection: Pending) -> None:
        """Hold it no longer: it belongs to a client now, or is gone. May be gone already."""
        address = connection.peer.address
        same = self._by_address.get(address)
        if same is None or connection not in same:
            return
        del same[connection]
        self._total -= 1
        if not same:
            del self._by_address[address]

    def _crowd_out(self, address: str) -> None:
        oldest = next(iter(self._by_address[address]))
        self.discard(oldest)
        oldest.abort("crowded_out")
