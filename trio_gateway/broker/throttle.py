"""How fast one client may talk.

Who talks faster is read more slowly, and TCP makes it wait: nothing of it is lost, nobody else
notices, and what it can make the gateway do has a limit. Disconnecting it would help nobody: it
would come again, with its hello and its tool list.
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
    """One for each client id: who reconnects does not begin anew.

    Args:
        settings: The limits.
        counters: Where waiting is counted.
    """

    def __init__(self, settings: MqttSettings, counters: Counters) -> None:
        # Some more ids than can be here at once, so that those who are here are not forgotten.
        keys = 4 * settings.max_clients
        self._messages = RateLimits(settings.message_rate, settings.message_burst, keys)
        self._bytes = RateLimits(settings.byte_rate, settings.byte_burst, keys)
        self._counters = counters

    def of(self, client_id: str) -> Throttle:
        """Return the throttle for a connection of this client."""
        return Throttle(
            self._messages.bucket(client_id), self._bytes.bucket(client_id), self._counters
        )


class Throttle:
    """That of one client; `Throttles` makes it."""

    def __init__(self, messages: TokenBucket, bytes_: TokenBucket, counters: Counters) -> None:
        self._buckets: dict[Unit, TokenBucket] = {"messages": messages, "bytes": bytes_}
        self._counters = counters

    def take(self, unit: Unit, cost: int) -> bool:
        """Take so many `unit` from the allowance if they are there; never more than a burst."""
        bucket = self._buckets[unit]
        return bucket.take(trio.current_time(), min(cost, bucket.burst))

    async def wait(self, unit: Unit, cost: int) -> None:
        """Take them as soon as they are there, and count the time until then."""
        bucket = self._buckets[unit]
        price = min(cost, bucket.burst)
        self._counters.throttled[unit] += 1
        began = now = trio.current_time()
        try:
            while not bucket.take(now, price):
                await trio.sleep_until(max(bucket.ready_at(price), now + LEAST_WAIT))
                now = trio.current_time()
        finally:
            self._counters.throttled_seconds += trio.current_time() - began
