from __future__ import annotations

import io
import json
import statistics
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from trio_gateway.core.window import Summary
from trio_gateway.simulator.report import Failure, Report, Spread

TIMES = Summary(3, 0.02, 0.02, 0.03, 0.03, 0.031)

REPORT = Report(
    devices=3,
    elapsed=7.5,
    mode="manual",
    heard_back=3,
    calls=6,
    judged=5,
    similarity_min=0.912,
    similarity_mean=0.95,
    hello=TIMES,
    response=TIMES,
    round_trip=Summary(),
    jitter=0.00123,
    frames_up=300,
    frames_down=290,
    lost=4,
    late=3,
    repeated=0,
    malformed=0,
    unexpected=0,
    overflows=2,
    underruns=1,
    cuts=0,
    network_lost=0,
    network_held=0,
    cpu=2.5,
    lag=0.004,
)


def shown(report: Report) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(report.table())
    return file.getvalue()


def test_the_json_has_everything_and_can_be_read_back() -> None:
    report = evolve(REPORT, failures=(Failure(2, "id", "why"),), heard_back=2)
    values: dict[str, Any] = json.loads(report.to_json())
    assert values["passed"] is False
    assert values["hello"]["p99"] == 0.03
    assert values["failures"] == [{"device": 2, "client_id": "id", "reason": "why"}]
    assert Report.from_json(report.to_json()) == report


def test_all_devices_have_to_pass() -> None:
    assert REPORT.passed
    assert not evolve(REPORT, heard_back=2).passed


def test_the_table_says_what_counts() -> None:
    text = shown(REPORT)
    for words in (
        "3/3 on decoded audio: 5 of 6 calls, similarity 0.950 (least 0.912)",
        "300 up, 290 down, 4 lost",
        "3 late, 2 queue full",
        "1 underruns",
        "p50 20.0, p99 30.0, max 31.0 ms",
        "1.23 ms (sigma)",
    ):
        assert words in text
    assert "round trip" not in text, "nobody measured it"
    assert "on purpose" not in text
    assert "7 dropped, 1 held up on purpose" in shown(
        evolve(REPORT, network_lost=7, network_held=1)
    )
    assert "round trip" in shown(evolve(REPORT, round_trip=TIMES))
    assert "dropped     none" in shown(evolve(REPORT, late=0, overflows=0))


def test_failures_are_shown_as_they_are_and_not_without_end() -> None:
    failures = tuple(Failure(n, "id", f"said [bold]{n}") for n in range(30))
    text = shown(evolve(REPORT, heard_back=0, failures=failures))
    assert "device 9    said [bold]9" in text
    assert "device 10" not in text
    assert "and 20 more" in text


def test_without_a_call_it_claims_nothing() -> None:
    nothing = evolve(
        REPORT, calls=0, judged=0, hello=Summary(), response=Summary(), similarity_min=-1.0
    )
    text = shown(nothing)
    assert "similarity" not in text
    assert "p50" not in text
    assert "sigma" not in text


def test_the_spread_is_the_standard_deviation() -> None:
    spread = Spread()
    assert spread.sigma == 0
    values = [0.061, 0.059, 0.070, 0.052, 0.060]
    for value in values:
        spread.add(value)
    assert spread.sigma == pytest.approx(statistics.pstdev(values))
    assert spread.mean == pytest.approx(statistics.mean(values))
