"""Invariant: what is written is read back, and whatever is read can be replayed or is refused."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.errors import TraceError
from trio_gateway.replay import Trace, replay
from trio_gateway.replay.report import summary
from trio_gateway.replay.trace import Measured, Row, json_line, parse
from trio_gateway.settings import Settings

SETTINGS = Settings()


def up_to(limit: float) -> st.SearchStrategy[float]:
    # Whole millionths: a file has nine digits after the point.
    return st.integers(0, round(limit * 1e6)).map(lambda millionths: millionths / 1e6)


measured = st.builds(
    Measured,
    workers=st.integers(1, 64),
    pending=up_to(1e4),
    waiting=up_to(1e4),
    cpu=up_to(100),
    cores=up_to(64).filter(bool),
    latency=up_to(10),
)
row_parts = st.tuples(
    up_to(20).filter(bool), up_to(40), up_to(0.1).filter(bool), st.none() | measured
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    rows: list[Row] = []
    time = 0.0
    for length, offered, service, was in draw(st.lists(row_parts, min_size=1, max_size=8)):
        time = round(time + length, 6)
        rows.append(Row(time=time, offered=offered, service=service, measured=was))
    first = rows[0].measured
    return Trace("t", tuple(rows), None if first is None else first.cores)


@given(traces())
def test_what_is_written_is_read_back(trace: Trace) -> None:
    lines = [json_line(row) for row in trace.rows]
    assert parse(lines, name="t") == trace


@given(traces(), st.none() | st.sampled_from([0.25, 2.0, 64.0]))
def test_whatever_is_replayed_stays_in_bounds_and_finite(trace: Trace, cores: float | None) -> None:
    done = replay(trace, SETTINGS, cores=cores)
    assert {step.workers for step in done.steps} <= set(range(2, 9))
    total = summary(done)
    assert total.seconds == pytest.approx(sum(step.span.elapsed for step in done.steps))
    for step in done.steps:
        moment = step.moment
        numbers = (moment.pending, moment.waiting, moment.cpu, moment.latency, moment.dropped)
        assert all(isfinite(number) and number >= 0 for number in numbers)
        assert moment.cpu <= 100
    for before, step in zip(done.steps, done.steps[1:], strict=False):
        expected = before.workers if before.change is None else before.change.after
        assert step.workers == expected


names = st.sampled_from(["time", "offered", "rate", "service", "workers", "cpu", "load"])
numbers = st.sampled_from(["1", "2", "1e9", "1e-9", "1e-30", "-1", "nan", "true", '"x"', "[]"])
cells = st.dictionaries(names, numbers, max_size=4).map(
    lambda row: "{" + ",".join(f'"{name}":{number}' for name, number in row.items()) + "}"
)


@given(st.lists(st.one_of(cells, st.text(max_size=40), numbers, st.just("time,offered"))))
def test_any_text_is_a_trace_or_refused(lines: list[str]) -> None:
    refusal = None
    try:
        done = replay(parse(lines, name="t"), SETTINGS)
    except TraceError as error:
        refusal = str(error)
    if refusal is None:
        assert isfinite(summary(done).latency_mean)
    else:
        assert refusal.startswith("t")
        assert "\n" not in refusal
