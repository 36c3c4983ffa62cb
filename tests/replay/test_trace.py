from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from trio_gateway.errors import TraceError
from trio_gateway.replay import trace as module
from trio_gateway.replay.trace import Measured, Row, Trace, json_line, parse, read

if TYPE_CHECKING:
    from pathlib import Path

RECORDED = {
    "time": 1,
    "offered": 0.5,
    "service": 0.0003,
    "workers": 2,
    "pending": 1.5,
    "waiting": 0.25,
    "cpu": 20,
    "cores": 1.5,
    "latency": 0.004,
}
MEASURED = Measured(workers=2, pending=1.5, waiting=0.25, cpu=20.0, cores=1.5, latency=0.004)


def rows(text: str) -> tuple[Row, ...]:
    return parse(text.splitlines(keepends=True), name="t").rows


def test_csv() -> None:
    text = "time,rate,service\n60, 400 ,0.00025\n\n# lunch\n90,8000,0.00025\n"
    assert rows(text) == (
        Row(time=60.0, offered=0.1, service=0.00025),
        Row(time=90.0, offered=2.0, service=0.00025),
    )


def test_json_lines() -> None:
    text = '# mine\n{"time": 60, "rate": 400, "service": 0.00025}\n{"time": 90, "offered": 2}\n'
    assert rows(text) == (
        Row(time=60.0, offered=0.1, service=0.00025),
        Row(time=90.0, offered=2.0, service=0.00025),
    )


def test_columns_may_stand_in_any_order() -> None:
    assert rows("offered,time\n0.5,10\n") == rows('{"offered": 0.5, "time": 10}')


def test_a_recording_names_its_cores() -> None:
    trace = parse([json.dumps(RECORDED)], name="t")
    assert trace.rows == (Row(time=1.0, offered=0.5, service=0.0003, measured=MEASURED),)
    assert trace.cores == 1.5
    assert parse(["time,offered\n", "1,1\n"], name="t").cores is None


def test_a_row_is_read_as_it_was_written() -> None:
    idle = Row(time=0.1 + 0.2, offered=0.0, service=0.0)
    busy = Row(time=2.0, offered=0.5, service=0.0003, measured=MEASURED)
    assert rows(json_line(idle) + json_line(busy)) == (
        Row(time=0.3, offered=0.0, service=0.0),
        busy,
    )
    assert "measured" not in json_line(busy)


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("time,rate\n1,5\n", 1, "service is missing: a rate alone is no load"),
        ("time,service\n1,5\n", 1, "either offered or rate must be there"),
        ("time,offered,rate,service\n1,1,1,1\n", 1, "either offered or rate must be there"),
        ("offered\n1\n", 1, "time is missing"),
        ("time,offered,time\n1,1,1\n", 1, "time stands there twice"),
        ("time,load\n1,1\n", 1, "no such column: 'load'; there are time, offered, rate, service,"),
        ("time,offered\n1,1\n\n2\n", 4, "1 cells, where the first line names 2 columns"),
        ("time,offered\n1,1,\n", 2, "3 cells, where the first line names 2 columns"),
        ("time,offered\n1,1\n1,2\n", 3, "time = 1: must be above 1, where this row begins"),
        ("time,offered\n0,1\n", 2, "time = 0: must be above 0"),
        ("time,offered\n1,lots\n", 2, "offered = 'lots': must be a number from 0 to a billion"),
        ("time,offered\n1,\n", 2, "offered = '': must be a number"),
        ("time,offered\n1,-1\n", 2, "offered = '-1': must be a number from 0 to a billion"),
        ("time,offered\nnan,1\n", 2, "time = 'nan': must be a number"),
        ("time,offered\ninf,1\n", 2, "time = 'inf': must be a number"),
        ("time,offered,service\n1,1,0\n", 2, "service = 0: must be at least a nanosecond"),
        ("time,offered,service\n1,1e10,1\n", 2, "offered = '1e10': must be a number"),
        ('{"time": 1, "offered": true}', 1, "offered = True: must be a number"),
        ('{"time": 1, "offered": null}', 1, "offered = None: must be a number"),
        ('{"time": 1, "offered": [1]}', 1, "offered = [1]: must be a number"),
        ('{"time": 1, "offered": 1%s}' % ("0" * 400), 1, "offered = 1000"),
        ('{"time": 1, "offered": NaN}', 1, "offered = nan: must be a number"),
        ('{"time": 1, "offered": 1}\n{"time": 2', 2, "not valid JSON"),
        ('{"time": 1, "offered": 1}\n[1, 2]\n', 2, "not a JSON object"),
        ('{"time": %s' % ("[" * 100_000), 1, "not valid JSON"),
        (json.dumps({**RECORDED, "workers": 1.5}), 1, "workers = 1.5: must be a whole number"),
        (json.dumps({**RECORDED, "workers": 0}), 1, "workers = 0: must be a whole number"),
        (json.dumps({**RECORDED, "cores": 0}), 1, "cores = 0: must be above 0"),
        ("time,offered,workers\n1,1,2\n", 1, "pending is missing: all of workers, pending,"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(text: str, line: int, wrong: str) -> None:
    with pytest.raises(TraceError) as caught:
        rows(text)
    assert str(caught.value).startswith(f"t, line {line}: {wrong}")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "time,offered\n"])
def test_a_trace_without_rows_is_none(text: str) -> None:
    with pytest.raises(TraceError, match="t: holds no rows"):
        rows(text)


def test_read_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_bytes(b"\xef\xbb\xbftime,offered\r\n60,0.5\r\n")  # as a spreadsheet saves it
    assert read(file) == Trace(str(file), (Row(time=60.0, offered=0.5, service=0.00025),))
    file.write_bytes(b"time,offered\n60,x\n")
    with pytest.raises(TraceError, match=r"day\.csv, line 2: offered = 'x'"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"day\.csv: not a text file in UTF-8"):
        read(file)
    with pytest.raises(TraceError, match=r"none\.csv: No such file"):
        read(tmp_path / "none.csv")


def spans(tick: float, *times: float) -> list[tuple[float, float]]:
    trace = Trace("t", tuple(Row(time=time, offered=1.0, service=0.001) for time in times))
    return [(round(span.time, 9), round(span.elapsed, 9)) for span in trace.spans(tick)]


def test_rows_are_cut_into_equal_parts_of_about_a_tick() -> None:
    assert spans(1.0, 3, 3.5) == [(1, 1), (2, 1), (3, 1), (3.5, 0.5)]
    assert spans(1.0, 2.4) == [(1.2, 1.2), (2.4, 1.2)]
    assert spans(1.0, 1.003, 2.001) == [(1.003, 1.003), (2.001, 0.998)], "samples come a bit late"


def test_the_last_span_ends_where_the_row_does() -> None:
    trace = Trace("t", (Row(time=0.7, offered=1.0, service=0.001),))
    assert [span.time for span in trace.spans(0.1)][-1] == 0.7


def test_a_trace_longer_than_anybody_waits_for_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 10)
    assert len(spans(1.0, 10)) == 10
    with pytest.raises(TraceError, match="t: its last time is 11 s; in steps of 1 s"):
        spans(1.0, 11)


def test_the_rate_of_a_span() -> None:
    busy, idle = (Row(time=1.0, offered=load, service=0.001 * load) for load in (1.0, 0.0))
    assert [next(Trace("t", (row,)).spans(1.0)).rate for row in (busy, idle)] == [1000.0, 0.0]
