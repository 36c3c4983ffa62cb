"""Token buckets: so many a second on average, so many at once, for one or for each of many.

A bucket holds at most `burst` tokens and gains `rate` of them a second; what costs more than it
holds is not taken and costs nothing (RFC 2697 has the same bucket, in bytes), or is charged and
leaves a debt.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import inf
from typing import TYPE_CHECKING

from attrs import define, field
from attrs.validators import ge, gt

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["RateLimits", "TokenBucket", "network_of"]

IPV6_SUBSCRIBER_BITS = 64
"""One subscriber has at least this network to himself (RFC 6177), so its hosts are one peer."""

NAT64 = ip_network("64:ff9b::/96")
"""All of IPv4, as a translator shows it to IPv6 (RFC 6052): one network, but not one subscriber."""


@define
class TokenBucket:
    """One bucket, full at first. Times are seconds of the caller's clock.

    Attributes:
        rate: Tokens a second.
        burst: Tokens that it holds at most.
    """

    rate: float = field(validator=gt(0))
    burst: float = field(validator=ge(1))
    _tokens: float = field(init=False)
    _at: float = field(default=-inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take `cost` tokens if they are there. A clock that goes back adds none."""
        self._fill(now)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def charge(self, now: float, cost: float) -> bool:
        """Take `cost` tokens, those that are not there from what comes in next.

        Returns:
            Whether they were there. If not, `ready_at(0)` says when the debt is paid.
        """
        self._fill(now)
        self._tokens -= cost
        return self._tokens >= 0

    def ready_at(self, cost: float = 1.0) -> float:
        """Return when `take` will succeed: now or earlier if it does now; inf beyond `burst`."""
        if cost > self.burst:
            return inf
        if self._tokens >= cost:
            return self._at
        return self._at + (cost - self._tokens) / self.rate

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now


@define
class RateLimits:
    """A bucket for each key, for at most `max_keys` of them.

    Of more, the key that has asked for nothing for longest is forgotten, and begins with a full
    bucket when it comes again. So memory is bounded, and who has very many addresses gets more.

    Attributes:
        rate: Tokens a second, of each.
        burst: Tokens that each holds at most.
        max_keys: Keys remembered.
    """

    rate: float = field(validator=gt(0))
    burst: float = field(validator=ge(1))
    max_keys: int = field(default=4096, validator=ge(1))
    _buckets: OrderedDict[Hashable, TokenBucket] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, key: Hashable) -> TokenBucket:
        """Return the bucket of `key`. It goes on being that until the key is forgotten."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self.rate, self.burst)
            if len(self._buckets) > self.max_keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def take(self, key: Hashable, now: float, cost: float = 1.0) -> bool:
        """Take `cost` tokens of `key` if they are there."""
        return self.bucket(key).take(now, cost)

    def has(self, key: Hashable, now: float, cost: float = 1.0) -> bool:
        """Whether `take` would succeed. Takes nothing, and remembers no key for having asked."""
        bucket = self._buckets.get(key)
        return cost <= self.burst if bucket is None else bucket.ready_at(cost) <= now


def network_of(host: str) -> str:
    """Return what stands for a peer in limits: its IPv4 address, or its IPv6 network of 64 bits.

    An IPv4 address inside IPv6 ("::ffff:192.0.2.7", "64:ff9b::192.0.2.7") counts as IPv4; what is
    no address, as itself.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address in NAT64:
            return str(IPv4Address(int(address) & 0xFFFF_FFFF))
        return str(ip_network((address, IPV6_SUBSCRIBER_BITS), strict=False))
    return str(address)
