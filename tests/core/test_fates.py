from __future__ import annotations

from trio_gateway.core.fates import DownlinkStatistics, UplinkStatistics

UP = UplinkStatistics(
    received=100,
    refused={"short": 2, "not_opus": 1},
    duplicate=4,
    late=3,
    unconfirmed=2,
    cut_off=1,
    waiting=5,
    arrived=82,
    lost=8,
    skipped=30,
    decoded=70,
    recovered=2,
    concealed=5,
    failed=1,
    dropped=6,
    decoding=6,
    read=60,
    unread=10,
    readable=8,
)
DOWN = DownlinkStatistics(framed=20, sent=9, unsent=1, failed=1, dropped=2, flushed=3, queued=4)


def test_counts_that_add_up() -> None:
    assert UP.unaccounted() == {}
    assert DOWN.unaccounted() == {}
    assert UP.taken == 97


def test_what_is_missing_is_named() -> None:
    assert UplinkStatistics(received=1).unaccounted() == {"datagrams": 1}
    assert UplinkStatistics(received=1, refused={"short": 1}).unaccounted() == {}
    assert UplinkStatistics(received=2, arrived=2).unaccounted() == {"frames": 2}
    assert UplinkStatistics(lost=1, concealed=1).unaccounted() == {"heard": 1}
    assert UplinkStatistics(skipped=7).unaccounted() == {}
    assert DownlinkStatistics(framed=1, sent=2).unaccounted() == {"framed": -1}


def test_sums() -> None:
    both = UplinkStatistics.sum_of([UP, UP])
    assert both.unaccounted() == {}
    assert both.refused == {"short": 4, "not_opus": 2}
    assert (both.received, both.readable) == (200, 16)
    assert UplinkStatistics.sum_of([]) == UplinkStatistics()
    assert DownlinkStatistics.sum_of([DOWN, DOWN, DOWN]).framed == 60
