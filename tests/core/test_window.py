from __future__ import annotations

import pytest

from trio_gateway.core.window import RELATIVE_ERROR, UNSORTED, Summary, Window


def test_empty_window_is_all_zero() -> None:
    assert Window(10.0).summary(0.0) == Summary(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_count_mean_and_max_are_exact() -> None:
    window = Window(10.0)
    for value in (0.001, 0.002, 0.006):
        window.record(value, 1.0)
    summary = window.summary(1.0)
    assert summary.count == 3
    assert summary.mean == pytest.approx(0.003)
    assert summary.max == 0.006


def test_percentiles_are_nearest_rank_within_the_stated_error() -> None:
    window = Window(10.0)
    for value in range(1, 101):  # 1 ms to 100 ms: the rank is the value
        window.record(value / 1000, 0.0)
    summary = window.summary(0.0)
    assert summary.p50 == pytest.approx(0.050, rel=RELATIVE_ERROR)
    assert summary.p95 == pytest.approx(0.095, rel=RELATIVE_ERROR)
    assert summary.p99 == pytest.approx(0.099, rel=RELATIVE_ERROR)


def test_one_value_is_every_percentile() -> None:
    window = Window(10.0)
    window.record(0.0123, 0.0)
    summary = window.summary(0.0)
    assert summary.p50 == summary.p99 <= summary.max == summary.mean == 0.0123
    assert summary.p50 == pytest.approx(0.0123, rel=RELATIVE_ERROR)


def test_a_spike_ages_out() -> None:
    window = Window(10.0, slices=10)
    window.record(0.5, 0.0)
    window.record(0.001, 5.0)
    assert window.summary(10.0).max == 0.5, "still within the span"
    assert window.summary(11.0).max == 0.001, "a slice beyond the span it is gone"
    assert window.summary(16.0) == Summary()


def test_values_after_a_long_silence_stand_alone() -> None:
    window = Window(10.0)
    window.record(1.0, 0.0)
    window.record(0.002, 1000.0)
    assert window.summary(1000.0).count == 1


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-6, -1.0])
def test_times_too_short_to_tell_apart_are_counted_as_short(value: float) -> None:
    window = Window(10.0)
    window.record(value, 0.0)
    summary = window.summary(0.0)
    assert summary.count == 1
    assert 0 <= summary.p50 <= summary.max == max(value, 0.0)


def test_memory_is_bounded_over_a_long_run() -> None:
    window = Window(10.0, slices=10)
    for step in range(20_000):
        window.record(1e-6 * 1.001**step, step * 0.05)  # every scale there is, over 1,000 s
        assert len(window._slices) <= 11
        assert all(len(part.unsorted) < UNSORTED for part in window._slices)
    assert max(len(part.bins) for part in window._slices) < 503  # 1 us to 500 s


def test_a_window_without_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Window(0.0)
    with pytest.raises(ValueError, match="above 0"):
        Window(10.0, slices=0)
    assert Window(2.5).span == 2.5
