"""Connections that belong to no client. Anybody can make them: they are what a flood is made of.

Some have yet to prove who they are, some are over but for their last bytes.

Rule 1: they never count against clients, nor clients against them.
Rule 2: there is always room for one more, and the oldest has to go for it: at the default bounds,
        whoever says who he is within half a second is in before a flood of 2,000/s is at him. Those
        that are over count as the oldest.
Rule 3: addresses that have a client and those that have none have a half each. A half that is not
        used is the other's until it is needed.
Rule 4: an address that holds more than a share of `FLOOD_SHARE` floods, and gives up its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, TypeAlias

from trio_gateway.core.rate_limit import RateLimits, TokenBucket

if TYPE_CHECKING:
    from trio_gateway.broker.peer import Peer
    from trio_gateway.broker.statistics import Counters
    from trio_gateway.settings import MqttSettings

__all__ = ["Intake", "Pending"]

FLOOD_SHARE = 8
"""An eighth of all. A guess: 128 at the default bounds; a NAT with more needs a second attempt of
some, once. The address that merely holds most must not pay: in a flood from 1,024 addresses with
one connection each, that is every NAT with two devices."""


class Pending(Protocol):
    """A connection, for all that matters here. Distinguished by identity."""

    @property
    def peer(self) -> Peer:
        """Where from."""

    def abort(self, reason: str) -> None:
        """End at once."""


Queue: TypeAlias = "OrderedDict[Pending, None]"
"""Oldest first."""


class Intake:
    """Holds pending connections, within the limits for all and for each address.

    Args:
        settings: The limits.
        counters: Where those are counted that had to go.
    """

    def __init__(self, settings: MqttSettings, counters: Counters) -> None:
        self._max = settings.max_pending
        self._max_per_address = settings.max_pending_per_address
        self._counters = counters
        self._rates = RateLimits(
            settings.connect_rate_per_address, settings.connect_burst_per_address
        )
        self._strangers_rate = TokenBucket(settings.connect_rate, settings.connect_burst)
        self._homes: set[str] = set()
        self._by_address: dict[str, Queue] = {}
        self._at_home: Queue = OrderedDict()
        self._elsewhere: Queue = OrderedDict()

    def __len__(self) -> int:
        return len(self._at_home) + len(self._elsewhere)

    def why_not(self, peer: Peer, now: float) -> str | None:
        """Return the limit that a new connection is over, which then costs nothing more; or None.

        A flood from very many addresses keeps out those whose address has no client, and no others.
        """
        if not self._rates.take(peer.address, now):
            return "connect_rate_per_address"
        if peer.address not in self._homes and not self._strangers_rate.take(now):
            return "connect_rate"
        return None

    def add(self, connection: Pending, *, over: bool = False) -> None:
        """Hold a connection; if that is one too many, abort another with "crowded_out".

        Args:
            connection: Which is not held.
            over: It is a client's no more, and only its last bytes have to go out. It may be the
                one that has to go.
        """
        address = connection.peer.address
        same = self._by_address.setdefault(address, OrderedDict())
        for queue in (same, self._queue_of(address)):
            queue[connection] = None
        if over:
            self.put_first(connection)
        if len(same) > self._max_per_address:
            self._crowd_out(same)
        elif len(self) > self._max:
            self._crowd_out(self._crowd())

    def put_first(self, connection: Pending) -> None:
        """Let a connection that is over be the first to go, if it is held."""
        address = connection.peer.address
        if connection in self._by_address.get(address, ()):
            for queue in (self._by_address[address], self._queue_of(address)):
                queue.move_to_end(connection, last=False)

    def discard(self, connection: Pending) -> None:
        """Hold it no longer: it belongs to a client now, or is gone. May be gone already."""
        address = connection.peer.address
        same = self._by_address.get(address)
        if same is None or connection not in same:
            return
        del same[connection]
        del self._queue_of(address)[connection]
        if not same:
            del self._by_address[address]

    def regard(self, address: str, *, home: bool) -> None:
        """Take note of an address that has a client now, or has none any more."""
        if home == (address in self._homes):
            return
        before = self._queue_of(address)
        (self._homes.add if home else self._homes.remove)(address)
        after = self._queue_of(address)
        for connection in self._by_address.get(address, ()):
            del before[connection]
            after[connection] = None

    def _queue_of(self, address: str) -> Queue:
        return self._at_home if address in self._homes else self._elsewhere

    def _crowd(self) -> Queue:
        """Return those of whom the oldest has to go (Rules 3 and 4)."""
        home = len(self._elsewhere) <= self._max // 2
        # 60 us for 1,000 addresses, a fifth of what a connection costs anyhow.
        most = max(
            (
                each
                for address, each in self._by_address.items()
                if (address in self._homes) == home
            ),
            key=len,
        )
        if len(most) > max(1, self._max // FLOOD_SHARE):
            return most
        return self._at_home if home else self._elsewhere

    def _crowd_out(self, crowd: Queue) -> None:
        oldest = next(iter(crowd))
        self.discard(oldest)
        self._counters.crowded_out += 1
        oldest.abort("crowded_out")
