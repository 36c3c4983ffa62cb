from __future__ import annotations

from math import inf

import pytest

from trio_gateway.core.rate_limit import RateLimits, TokenBucket, network_of


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.09)
    assert bucket.take(0.15)
    assert not bucket.take(0.15)


def test_what_is_refused_costs_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=5)
    assert bucket.take(0.0, 4)
    assert not bucket.take(0.0, 4)
    assert bucket.take(0.0, 1)


def test_it_never_holds_more_than_the_burst() -> None:
    bucket = TokenBucket(rate=100, burst=2)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


def test_when_it_will_be_ready() -> None:
    bucket = TokenBucket(rate=2, burst=4)
    assert bucket.ready_at(4) <= 0.0
    assert bucket.take(1.0, 4)
    assert bucket.ready_at(3) == 2.5
    assert not bucket.take(2.4, 3)
    assert bucket.take(2.5, 3)
    assert bucket.ready_at(5) == inf


def test_keys_do_not_share() -> None:
    limits = RateLimits(rate=1, burst=1)
    assert limits.take("a", 0.0)
    assert not limits.take("a", 0.0)
    assert limits.take("b", 0.0)


def test_asking_takes_nothing_and_remembers_nobody() -> None:
    limits = RateLimits(rate=2, burst=2)
    assert limits.has("a", 0.0)
    assert not limits.has("a", 0.0, 3)
    assert len(limits) == 0
    assert limits.take("a", 0.0, 2)
    assert not limits.has("a", 0.4)
    assert limits.has("a", 0.5)
    assert not limits.has("a", 0.5, 2)
    assert limits.take("a", 0.5)


def test_the_key_that_asked_last_is_kept_and_memory_is_bounded() -> None:
    limits = RateLimits(rate=1, burst=1, max_keys=3)
    for key in range(3):
        assert limits.take(key, 0.0)
    assert not limits.take(0, 0.0)
    assert limits.take(3, 0.0)  # 1 was the one to forget
    assert len(limits) == 3
    assert not limits.take(0, 0.0)
    assert limits.take(1, 0.0)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("64:ff9b::192.0.2.7", "192.0.2.7"),
        ("64:ff9b:1::192.0.2.7", "64:ff9b:1::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a name", "a name"),
    ],
)
def test_who_counts_as_one_peer(host: str, network: str) -> None:
    assert network_of(host) == network


def test_what_is_charged_beyond_what_is_there_is_paid_later() -> None:
    bucket = TokenBucket(rate=2, burst=4)
    assert bucket.charge(0.0, 3)
    assert bucket.ready_at(0) == 0.0
    assert not bucket.charge(0.0, 11)
    assert bucket.ready_at(0) == 5.0
    assert bucket.ready_at(1) == 5.5
    assert not bucket.take(5.0)
    assert bucket.take(5.5)
    assert bucket.charge(100.0, 4)
