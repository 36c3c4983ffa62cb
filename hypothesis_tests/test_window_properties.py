"""Invariant: a window tells what the list of its values would tell, and forgets on time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.window import FLOOR, RELATIVE_ERROR, Summary, Window

SPAN = 10.0
SLICES = 10

durations = st.floats(min_value=0.0, max_value=100.0)
steps = st.floats(min_value=0.0, max_value=2 * SPAN)


def nearest_rank(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def is_close(got: float, exact: float) -> bool:
    error = RELATIVE_ERROR * (1 + 1e-9)
    return exact * (1 - error) <= got <= max(exact, FLOOR) * (1 + error)


@given(st.lists(durations, min_size=1, max_size=200))
def test_a_fresh_window_agrees_with_the_sorted_list(values: list[float]) -> None:
    window = Window(SPAN, SLICES)
    for number, value in enumerate(values):
        window.record(value, number * SPAN / len(values))
    summary = window.summary(SPAN)
    assert summary.count == len(values)
    assert math.isclose(summary.mean, math.fsum(values) / len(values), rel_tol=1e-9)
    assert summary.max == max(values)
    for percent, got in ((50, summary.p50), (95, summary.p95), (99, summary.p99)):
        assert is_close(got, nearest_rank(values, percent))
    assert summary.p50 <= summary.p95 <= summary.p99 <= summary.max


@given(st.lists(st.tuples(durations, steps, st.booleans()), min_size=1, max_size=100))
def test_every_value_lives_for_the_span_and_no_longer_than_a_slice_beyond(
    trace: list[tuple[float, float, bool]],
) -> None:
    window = Window(SPAN, SLICES)
    now = 0.0
    record: list[tuple[float, float]] = []
    for value, step, look in trace:
        now += step
        if look:  # reading must not disturb what is remembered
            window.summary(now)
        window.record(value, now)
        record.append((now, value))
    now += trace[-1][1]
    young = [value for when, value in record if when > now - SPAN]
    old = [value for when, value in record if when <= now - SPAN * (1 + 1 / SLICES) - 1e-9]
    summary = window.summary(now)
    assert len(young) <= summary.count <= len(record) - len(old)
    assert max(young, default=0.0) <= summary.max
    assert summary.max in [0.0, *(value for _, value in record)]
    if len(old) == len(record):
        assert summary == Summary()
    assert len(window._slices) <= SLICES + 1
