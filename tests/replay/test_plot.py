from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from PIL import Image

from trio_gateway.errors import TraceError
from trio_gateway.replay import SCENARIOS, Replay, Trace, replay
from trio_gateway.replay.plot import draw, save
from trio_gateway.replay.trace import Measured, Row
from trio_gateway.settings import MetricsSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@pytest.fixture(scope="module")
def spike() -> Replay:
    return replay(SCENARIOS["traffic-spike"].trace(), Settings())


def panels(figure: Figure) -> tuple[Axes, Axes]:
    load, workers = figure.axes
    return load, workers


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_axes_have_units_and_lines_have_names(spike: Replay) -> None:
    load, workers = panels(draw(spike))
    assert load.get_ylabel() == "load, CPU (%)"
    assert workers.get_ylabel() == "workers, load (workers)"
    assert workers.get_xlabel() == "time (min)"
    assert workers.get_xlim() == (0, 10)
    assert load.get_legend_handles_labels()[1] == ["load", "CPU", "overloaded"]
    assert workers.get_legend_handles_labels()[1] == ["offered load", "workers", "overloaded"]


def test_thresholds_are_drawn_and_what_is_off_the_scale_is_said(spike: Replay) -> None:
    load, _ = panels(draw(spike))
    most = max(step.signals.load for step in spike.steps)
    assert words(load) == [
        "load: up above 70 %",
        "CPU: up above 60 %",
        "down when both below 30 %",
        f"up to {most:,.0f} %",
    ]
    assert load.get_ylim()[1] < 200


def test_every_change_has_a_number_and_its_reason(spike: Replay) -> None:
    figure = draw(spike)
    _, workers = panels(figure)
    changes = [step.change for step in spike.steps if step.change is not None]
    assert words(workers) == ["1", "2", "3", "4", "5"]
    listed = [text.get_text() for text in figure.texts]
    assert {change.reason for change in changes} <= set(listed)
    assert "2:01" in listed


def test_many_changes_are_listed_in_part() -> None:
    saw = [Row(time=t * 60.0, offered=(t % 4) * 1.2, service=0.001) for t in range(1, 60)]
    done = replay(Trace("saw", tuple(saw), 8.0), Settings())
    figure = draw(done)
    number = sum(step.change is not None for step in done.steps)
    assert number > 10
    listed = [text.get_text() for text in figure.texts]
    assert f"and {number - 9} more" in listed
    assert len(words(panels(figure)[1])) == number, "all of them are marked"


def test_a_calm_trace_has_no_off_scale_no_overload_and_no_list() -> None:
    figure = draw(replay(SCENARIOS["idle"].trace(), Settings()))
    load, workers = panels(figure)
    assert len(words(load)) == 3
    assert "overloaded" not in load.get_legend_handles_labels()[1]
    assert words(workers) == []
    assert len(figure.texts) == 2, "the title and what is below it"


@pytest.mark.parametrize(
    ("seconds", "unit", "end"), [(60.0, "s", 60), (7200.0, "min", 120), (86_400.0, "h", 24)]
)
def test_time_is_in_a_unit_that_fits(seconds: float, unit: str, end: float) -> None:
    trace = Trace("t", (Row(time=seconds, offered=0.1, service=0.001),), 8.0)
    slowly = evolve(Settings(), metrics=MetricsSettings(interval=10.0))
    _, workers = panels(draw(replay(trace, slowly)))
    assert workers.get_xlabel() == f"time ({unit})"
    assert workers.get_xlim() == (0, end)


def test_a_recording_shows_the_workers_that_there_were() -> None:
    measured = Measured(workers=5, pending=1, waiting=0, cpu=9, cores=2, latency=0.001)
    rows = [Row(time=t, offered=0.1, service=0.001, measured=measured) for t in (1.0, 2.0)]
    _, workers = panels(draw(replay(Trace("t", tuple(rows), 2.0), Settings())))
    assert "workers as recorded" in workers.get_legend_handles_labels()[1]


def test_a_picture_is_a_thousand_pixels_wide_light_and_small(spike: Replay, tmp_path: Path) -> None:
    file = tmp_path / "out.png"
    save(spike, file)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1000
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    assert file.stat().st_size < 60_000


def test_the_suffix_says_what_kind_of_picture(spike: Replay, tmp_path: Path) -> None:
    save(spike, tmp_path / "out.svg")
    assert "<svg" in (tmp_path / "out.svg").read_text()[:1000]
    with pytest.raises(TraceError, match=r"out\.xyz: Format 'xyz' is not supported"):
        save(spike, tmp_path / "out.xyz")
    with pytest.raises(TraceError, match=r"out\.png: No such file or directory"):
        save(spike, tmp_path / "none" / "out.png")
