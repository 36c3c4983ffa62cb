from __future__ import annotations

import random
from statistics import median, pstdev

import numpy as np
import pytest
from attrs import asdict

from trio_gateway.bench.figures import (
    Figures,
    Run,
    figures,
    medians,
    merged,
    percentile,
    quotients,
)


def run_of(*milliseconds: float, elapsed: float = 1.0, cpu: float = 0.5) -> Run:
    return Run.of([each / 1000 for each in milliseconds], elapsed=elapsed, cpu=cpu)


def figures_of(value: float) -> Figures:
    return Figures(**dict.fromkeys(asdict(figures(run_of(1))), value))


def naive_percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    return min(
        value
        for value in values
        if sum(each <= value for each in values) >= percent / 100 * len(values)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 250])
@pytest.mark.parametrize("percent", [1, 50, 99, 100])
def test_percentiles_are_those_of_a_naive_model(count: int, percent: float) -> None:
    draw = random.Random(count)
    values = [float(draw.randrange(50)) for _ in range(count)]  # so that some are equal
    ordered = np.sort(np.array(values))
    assert percentile(ordered, percent) == naive_percentile(values, percent)


def test_a_run_in_figures() -> None:
    found = figures(run_of(4, 1, 3, 2, elapsed=2.0, cpu=0.001))
    assert found.fps == 2.0
    assert found.cpu_us == pytest.approx(250)
    assert (found.p50_ms, found.p99_ms, found.max_ms) == pytest.approx((2, 4, 4))
    assert found.jitter_ms == pytest.approx(pstdev([1, 2, 3, 4]))


def test_quotients_go_figure_by_figure() -> None:
    halves = quotients(figures(run_of(2, elapsed=1.0, cpu=0.1)), figures(run_of(4, elapsed=2.0)))
    assert halves.fps == pytest.approx(2)
    assert halves.cpu_us == pytest.approx(0.2)
    assert halves.p50_ms == pytest.approx(0.5)


def test_a_base_of_zero_is_no_error() -> None:
    assert quotients(figures_of(1.0), figures_of(0.0)).jitter_ms > 0


def test_medians_go_figure_by_figure() -> None:
    fast_and_jumpy = figures(run_of(1, 9, elapsed=1.0))
    middle = figures(run_of(2, 3, elapsed=2.0))
    slow = figures(run_of(8, 8, elapsed=4.0))
    found = medians([fast_and_jumpy, middle, slow])
    for name, value in asdict(found).items():
        assert value == median(getattr(each, name) for each in (fast_and_jumpy, middle, slow))


def test_merged_runs_are_one_longer_run() -> None:
    both = merged([run_of(1, 2, elapsed=1.0), run_of(3, elapsed=3.0, cpu=0.25)])
    assert (both.frames, both.elapsed, both.cpu) == (3, 4.0, 0.75)
    assert figures(both) == figures(run_of(1, 2, 3, elapsed=4.0, cpu=0.75))
