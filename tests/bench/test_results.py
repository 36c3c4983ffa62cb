from __future__ import annotations

from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from attrs import astuple

from trio_gateway.bench.figures import Run
from trio_gateway.bench.options import Comparison, compare
from trio_gateway.bench.plan import Case, Plan
from trio_gateway.bench.results import Result, quiet, results, verdicts
from trio_gateway.bench.table import options_table, pool_table, short

if TYPE_CHECKING:
    from trio_gateway.bench.plan import Kind, Mode, Part

DIRECT = Case("direct", "decode", None, 2, 1, None)
THREADS = Case("pool", "decode", "thread", 2, 64, None)
EVERYTHING: tuple[Part, ...] = ("decode", "encode", "burst", "start")


def plan(*parts: Part, workers: int = 2, cores: int = 2) -> Plan:
    return Plan(
        workers=workers,
        cores=cores,
        kinds=("thread", "interpreter"),
        parts=parts or EVERYTHING,
        rounds=2,
        seconds=1.0,
    )


def one(fps: float, latency: float = 0.001) -> Run:
    return Run.of([latency], elapsed=1 / fps, cpu=0.1)


def verdict_of(case: Case, value: float) -> tuple[float, bool]:
    """What is wanted of a configuration, and whether a figure of `value` is enough."""
    base = Case("direct", case.op, None, case.workers, 1, case.complexity)
    mine = one(1000 * value, 0.001 + value / 1000)
    found = results({base: [one(1000, 0.001)], case: [mine]})
    (verdict,) = verdicts(found)
    return verdict.wanted, verdict.reached


# The plan


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("parts", [(), ("decode",), ("encode",), ("burst",), ("start",)])
def test_what_a_configuration_is_compared_with_is_in_the_plan(
    workers: int, parts: tuple[Part, ...]
) -> None:
    cases = plan(*parts, workers=workers).round(0)
    assert {case.base for case in cases} - {None} <= set(cases)


def test_the_plan_holds_every_configuration() -> None:
    loops = [("decode", None), ("encode", 0), ("encode", 5), ("encode", 10)]
    kinds = ("thread", "interpreter")
    wanted: set[tuple[Any, ...]]
    wanted = {("direct", op, None, threads, 1, c) for op, c in loops for threads in (1, 2)}
    wanted |= {
        (mode, op, kind, 2, streams, c)
        for mode, (op, c), kind, streams in product(("pool", "pool-busy"), loops, kinds, (1, 8, 64))
    }
    wanted |= {("burst", op, kind, 2, 10, c) for op, c in (loops[0], loops[2]) for kind in kinds}
    wanted |= {("start", op, kind, 1, 0, None) for op in ("fresh", "parked") for kind in kinds}
    assert {astuple(case) for case in plan().round(0)} == wanted


def test_every_other_round_is_backwards() -> None:
    both = plan()
    assert both.round(1) == both.round(0)[::-1]
    assert both.round(2) == both.round(0)


def test_the_plain_loop_stands_before_and_after_what_it_is_compared_with() -> None:
    cases = plan("decode").round(0)
    places = [index for index, case in enumerate(cases) if case == DIRECT]
    compared = [index for index, case in enumerate(cases) if case.mode == "pool"]
    assert len(places) == 2
    assert places[0] < min(compared)
    assert max(compared) < places[1]


# What comes of the runs


def test_a_ratio_is_taken_inside_its_round() -> None:
    direct, pool = [100.0, 1000.0, 100.0], [90.0, 500.0, 80.0]
    found = results({DIRECT: [one(fps) for fps in direct], THREADS: [one(fps) for fps in pool]})
    ratio = found[1].as_json()["ratio"]
    assert ratio == pytest.approx(median([0.9, 0.5, 0.8]))
    assert ratio != pytest.approx(median(pool) / median(direct))  # which is 0.9
    assert found[0].as_json()["ratio"] == pytest.approx(1)


def test_the_pool_s_own_part_of_a_latency_is_what_direct_does_not_take() -> None:
    lone = Case("pool", "decode", "thread", 2, 1, None)
    found = results({DIRECT: [one(1, 0.001)] * 3, lone: [one(1, 0.0015)] * 3})
    assert found[1].over_codec_us == pytest.approx(500)
    assert found[0].over_codec_us is None


def test_starts_are_judged_all_together() -> None:
    start = Case("start", "fresh", "thread", 1, 0, None)
    (found,) = results({start: [Run.of([0.001, 0.002], elapsed=0.003, cpu=0.1), one(1, 0.009)]})
    assert found.figures.p50_ms == pytest.approx(2)
    assert found.figures.max_ms == pytest.approx(9)
    assert found.as_json()["ratio"] is None


def test_a_machine_is_quiet_when_the_plain_loops_had_their_cores() -> None:
    def had(threads: int, cores: float) -> Result:
        case = Case("direct", "decode", None, threads, 1, None)
        (found,) = results({case: [Run.of([0.001], elapsed=2.0, cpu=2.0 * cores)]})
        return found

    assert quiet([had(1, 1.0), had(2, 1.5)], 2) == pytest.approx(0.75)
    assert quiet([had(4, 2.0)], 2) == pytest.approx(1)  # more threads than cores
    start = Case("start", "fresh", "thread", 1, 0, None)
    assert quiet(results({start: [one(1)]}), 2) is None


@pytest.mark.parametrize(
    ("case", "wanted", "enough", "too_little"),
    [
        (Case("pool", "decode", "thread", 2, 64, None), 0.75, 0.76, 0.74),
        (Case("pool", "decode", "interpreter", 2, 64, None), 0.85, 0.86, 0.84),
        (Case("pool", "encode", "thread", 2, 64, 5), 0.95, 0.96, 0.94),
        (Case("pool", "encode", "interpreter", 2, 64, 5), 0.95, 0.96, 0.94),
        (Case("pool", "decode", "thread", 2, 1, None), 90, 0.089, 0.091),
    ],
)
def test_targets(case: Case, wanted: float, enough: float, too_little: float) -> None:
    assert verdict_of(case, enough) == (wanted, True)
    assert verdict_of(case, too_little) == (wanted, False)


@pytest.mark.parametrize(
    ("mode", "kind", "wanted"),
    [("start", "thread", 3.0), ("start", "interpreter", 40.0), ("burst", "thread", 1.0)],
)
def test_targets_in_milliseconds(mode: Mode, kind: Kind, wanted: float) -> None:
    case = Case(mode, "fresh" if mode == "start" else "decode", kind, 2, 10, None)
    base = Case("direct", case.op, None, 2, 1, None)
    for factor, reached in ((0.9, True), (1.1, False)):
        spread = wanted * factor / 1000
        # Their standard deviation is half of their distance, their median the first.
        run = Run.of([spread, spread, 3 * spread, 3 * spread], elapsed=1, cpu=1)
        (verdict,) = verdicts(results({base: [one(1)], case: [run]}))
        assert (verdict.wanted, verdict.reached) == (wanted, reached)


def test_what_has_no_target_is_not_judged() -> None:
    others = [
        Case("pool-busy", "decode", "thread", 2, 64, None),
        Case("pool", "decode", "thread", 2, 8, None),
        Case("pool", "encode", "thread", 2, 64, 10),
        Case("burst", "encode", "thread", 2, 10, 5),
    ]
    runs = {case: [one(1)] for other in others for case in (other, other.base) if case}
    assert verdicts(results(runs)) == []


def test_options_are_compared_round_by_round() -> None:
    on = [{"frames/s": fps, "p99, ms": 1.0} for fps in (90.0, 500.0, 220.0)]
    off = [{"frames/s": fps, "p99, ms": 2.0} for fps in (100.0, 1000.0, 200.0)]
    rate, latency = compare("pin_workers", "thread", "decode", {"on": on, "off": off})
    assert (rate.on, rate.off, rate.ratio) == (220.0, 200.0, 0.9)
    assert (rate.wins, rate.rounds) == (1, 3)  # more frames are better
    assert (latency.ratio, latency.wins) == (0.5, 3)  # less latency is


# What people see


def printed(drawn: Any, width: int = 110) -> str:
    from rich.console import Console  # noqa: PLC0415

    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def everything() -> list[Result]:
    cases = dict.fromkeys(plan().round(0))
    return results({case: [one(12345, 0.0123)] * 2 for case in cases})


def test_the_table_fits_its_width_and_cuts_nothing() -> None:
    text = printed(pool_table(everything()))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_a_narrow_terminal_sees_fewer_columns_and_whole_ones() -> None:
    text = printed(pool_table(everything(), width=90), width=90)
    assert "…" not in text
    assert "p99 ms" in text
    assert "sigma" not in text


def test_options_have_a_line_for_each_figure() -> None:
    comparison = Comparison("pin_workers", "interpreter", "mixed", "p99, ms", 1.0, 2.0, 0.5, 6, 7)
    text = printed(options_table([comparison]))
    (line,) = (line for line in text.splitlines() if "pin_workers" in line)
    assert " ".join(line.split()) == "pin_workers interpreter mixed p99, ms 1.00 2.00 0.50 6 of 7"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0283, "0.028"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (23456, "23456"),
        (234567, "235k"),
    ],
)
def test_numbers_have_three_digits_and_fit_five_columns(value: float, text: str) -> None:
    assert short(value) == text
