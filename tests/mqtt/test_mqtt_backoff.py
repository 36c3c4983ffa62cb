from __future__ import annotations

from random import Random

import pytest

from trio_gateway.mqtt.backoff import Backoff


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def test_it_doubles_up_to_the_cap_and_begins_again() -> None:
    backoff = Backoff(1, 5, Highest())
    assert [backoff.failed(refused=False) for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.succeeded()
    assert backoff.failed(refused=False) == 1


def test_chance_takes_at_most_half() -> None:
    backoff = Backoff(1, 5, Lowest())
    assert [backoff.failed(refused=False) for _ in range(4)] == [0.5, 1, 2, 2.5]


def test_a_refusal_waits_longest_at_once() -> None:
    backoff = Backoff(1, 5, Highest())
    assert backoff.failed(refused=True) == 5
    assert backoff.failed(refused=False) == 5


def test_it_goes_on_for_years() -> None:
    backoff = Backoff(1, 30, Random(1))
    waits = [backoff.failed(refused=False) for _ in range(5000)]  # 2.0**1024 is too large a float
    assert max(waits) == pytest.approx(30, abs=0.1)
