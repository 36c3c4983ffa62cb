"""How fast one client may talk.

Who talks faster is read more slowly, and TCP makes it wait: nothing of it is lost, nobody else
notices, and what it can make the gateway do has a limit. Disconnecting it for every excess would
help nobody: it would come again, with its hello and its tool list.

Rule 1: everything is charged when it is done, whatever it costs, and the next thing waits until
        that is paid. So one message for 1,000 subscribers costs as much as 1,000 for one.
Rule 2: a debt is the client id's: it does not end with the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from trio_gateway.core.rate_limit import RateLimits

if TYPE_CHECKING:
    from trio_gateway.broker.statistics import Counters
    from trio_gateway.core.rate_limit import TokenBucket
    from trio_gateway.settings import MqttSettings

__all__ = ["Throttle", "Throttles", "Unit"]

Unit: TypeAlias = Literal["messages", "bytes"]

LEAST_WAIT = 0.001
"""Seconds. Rounding can put the moment at which a bucket is ready before that moment."""


class Throttles:
    """The allowances of all client ids.

    Args:
        settings: The limits.
        counters: Where it is counted how often somebody waits.
    """

    def __init__(self, settings: MqttSettings, counters: Counters) -> None:
        # A client that is here keeps its allowance even if so many other ids have come since that
        # its own is forgotten; only its next connection would begin anew.
        keys = 4 * settings.max_clients
        self._messages = RateLimits(settings.message_rate, settings.message_burst, keys)
        self._bytes = RateLimits(settings.byte_rate, settings.byte_burst, keys)
        self._waits = _Waits(counters)

    @property
    def seconds(self) -> float:
        """How long all clients together have been kept waiting until now."""
        return self._waits.seconds

    def of(self, client_id: str) -> Throttle:
        """Return the throttle for a new connection of this client, with the id's allowance."""
        return Throttle(
            self._messages.bucket(client_id), self._bytes.bucket(client_id), self._waits
        )


class _Waits:
    """Counts them; those that are not over yet count, too, or a long one would not be seen."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._over = 0.0
        self._began: dict[Throttle, float] = {}

    @property
    def seconds(self) -> float:
        now = trio.current_time()
        return self._over + sum(now - began for began in self._began.values())

    def begin(self, throttle: Throttle, unit: Unit) -> None:
        self._counters.throttled[unit] += 1
        self._began[throttle] = trio.current_time()

    def end(self, throttle: Throttle) -> None:
        self._over += trio.current_time() - self._began.pop(throttle)


class Throttle:
    """That of one connection; `Throttles` makes it. One task waits at a time."""

    def __init__(self, messages: TokenBucket, bytes_: TokenBucket, waits: _Waits) -> None:
        self._buckets: dict[Unit, TokenBucket] = {"messages": messages, "bytes": bytes_}
        self._waits = waits

    def in_debt(self, unit: Unit) -> bool:
        """Whether more was charged than is paid."""
        now = trio.current_time()
        return self._buckets[unit].ready_at(0) > now

    def charge(self, unit: Unit, cost: float) -> bool:
        """Take so many `unit` from the allowance. False: they were not all there, so `wait`."""
        return self._buckets[unit].charge(trio.current_time(), cost)

    async def wait(self, unit: Unit) -> None:
        """Return when all is paid."""
        bucket = self._buckets[unit]
        self._waits.begin(self, unit)
        try:
            while (ready := bucket.ready_at(0)) > (now := trio.current_time()):  # noqa: ASYNC110  no event: time alone pays
                await trio.sleep_until(max(ready, now + LEAST_WAIT))
        finally:
            self._waits.end(self)
