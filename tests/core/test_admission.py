from __future__ import annotations

import pytest
from pytest import approx  # noqa: PT013  reads as in mathematics

from trio_gateway.core.admission import FRAME_S, Capacity, Costs, Price

COSTS = Costs(decode_s=60e-6, encode_s=600e-6)


def price(*, duplex: bool, up_s: float = 0.06, down_s: float = 0.06) -> Price:
    return Price.of(COSTS, up_s=up_s, down_s=down_s, duplex=duplex)


def test_who_speaks_while_listening_reserves_both_ways() -> None:
    both = price(duplex=True)
    assert both.codec == approx(0.011)
    assert both.trio == approx(2 * FRAME_S / 0.06)
    assert both.cores == both.codec + both.trio


def test_others_reserve_the_dearer_way() -> None:
    assert price(duplex=False).codec == approx(0.01)
    assert price(duplex=False).trio == approx(FRAME_S / 0.06)
    # Short frames up: more of them than of those down.
    assert price(duplex=False, up_s=0.01).codec == approx(0.006)


def test_sums() -> None:
    assert Price.sum_of([Price(1, 2), Price(3, 4)]) == Price(4, 6)
    assert Price.sum_of([]) == Price()
    assert Price(1, 2) + Price(3, 4) - Price(1, 1) == Price(3, 5)


@pytest.mark.parametrize(
    ("reserved", "short_of"),
    [
        (Price(1.0, 0.5), None),
        (Price(1.6, 0.0), None),
        (Price(1.61, 0.0), "cores"),
        (Price(0.0, 0.81), "thread"),
        (Price(1.0, 0.61), "cores"),
    ],
)
def test_what_runs_out(reserved: Price, short_of: str | None) -> None:
    assert Capacity(cores=2, workers=8, share=0.8).shortage(reserved) == short_of


def test_few_workers_on_many_cores() -> None:
    capacity = Capacity(cores=32, workers=2, share=1.0)
    assert capacity.shortage(Price(2.0, 0.1)) is None
    assert capacity.shortage(Price(2.1, 0.1)) == "workers"


def test_less_than_a_core() -> None:
    capacity = Capacity(cores=0.5, workers=8, share=1.0)
    assert capacity.shortage(Price(0.0, 0.4)) is None
    assert capacity.shortage(Price(0.0, 0.51)) == "thread"


def test_more_than_can_be_kept() -> None:
    assert Capacity(cores=2, workers=8, share=3.0).shortage(Price(3.0, 2.0)) is None
