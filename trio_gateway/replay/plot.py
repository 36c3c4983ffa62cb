"""A replay as a picture: how loaded the workers were, how many there were, and why.

matplotlib's own object interface, not pyplot: no global state, no display, no backend to choose.
"""

from __future__ import annotations

from io import BytesIO
from math import ceil
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image  # a requirement of matplotlib's

from trio_gateway.errors import TraceError
from trio_gateway.replay.report import clock, summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from trio_gateway.core.scaling import Decision
    from trio_gateway.replay.run import Replay, Step

__all__ = ["draw", "save"]

# Okabe and Ito's colours: told apart by everyone, in grey too.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
GREY: Final = "#555555"
PINK: Final = "#f6d5d5"

# Inches; 100 pixels each.
WIDTH: Final = 10.0
LEFT: Final = 0.75
RIGHT: Final = 0.2
HEAD: Final = 0.85
LOAD_PANEL: Final = 1.9
GAP: Final = 0.4  # for a legend
WORKERS_PANEL: Final = 2.3
TIME_AXIS: Final = 0.65
LINE: Final = 0.19

SMALL: Final = 8.5  # points
LISTED: Final = 10
"""Changes that are listed; the others are marks only. A guess: as high as a panel."""
LETTERS: Final = 118
"""Of a reason that fit into the width."""
PALETTE: Final = 128
"""Colours of a PNG. Its areas are flat: 20 KB instead of 75, and nobody sees a difference."""
CEILING: Final = 160.0
"""% where the upper panel ends: on a scale for a backlog, nothing else would be seen."""


def save(replay: Replay, path: Path) -> None:
    """Draw it into a file; what kind of picture, its suffix says.

    Raises:
        TraceError: There is no such kind, or it cannot be written.
    """
    figure = draw(replay)
    try:
        if path.suffix.lower() != ".png":
            figure.savefig(path)
            return
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        picture = Image.open(buffer).convert("RGB")
        picture.quantize(PALETTE).save(path, optimize=True)
    except ValueError as error:  # "Format 'gif' is not supported (supported formats: ...)"
        raise TraceError(f"{path}: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error


def draw(replay: Replay) -> Figure:
    """Draw it: the load above, the workers below, and a list of reasons."""
    changes = [(step, step.change) for step in replay.steps if step.change is not None]
    lines = min(len(changes), LISTED)
    height = HEAD + LOAD_PANEL + GAP + WORKERS_PANEL + TIME_AXIS + LINE * (lines + 0.5)
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    seconds, unit = _time_unit(replay.steps[-1].span.time)

    def panel(top: float, size: float, **more: Any) -> Axes:
        width = WIDTH - LEFT - RIGHT
        box = (LEFT / WIDTH, 1 - (top + size) / height, width / WIDTH, size / height)
        return figure.add_axes(box, **more)

    load = panel(HEAD, LOAD_PANEL)
    workers = panel(HEAD + LOAD_PANEL + GAP, WORKERS_PANEL, sharex=load)
    _draw_title(figure, replay, height)
    _draw_load(load, replay, seconds)
    _draw_workers(workers, replay, seconds, changes)
    for axes in (load, workers):
        for number, (start, end) in enumerate(_overloaded(replay.steps)):
            label = None if number else "overloaded"
            area = axes.axvspan(start / seconds, end / seconds, label=label, zorder=0)
            area.set(color=PINK, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 0.98),
            borderaxespad=0.1,
            ncols=4,
            frameon=False,
            fontsize=9,
        )
    load.tick_params(labelbottom=False)
    workers.set_xlim(0, replay.steps[-1].span.time / seconds)
    workers.set_xlabel(f"time ({unit})")
    _draw_reasons(figure, changes, height)
    return figure


def _time_unit(length: float) -> tuple[float, str]:
    """Return (seconds in it, its name)."""
    if length <= 180:  # noqa: PLR2004  three minutes
        return 1.0, "s"
    return (60.0, "min") if length <= 3 * 3600 else (3600.0, "h")


def _draw_title(figure: Figure, replay: Replay, height: float) -> None:
    total, policy = summary(replay), replay.policy
    mean, worst = total.latency_mean * 1000, total.latency_worst * 1000
    about = (
        f"{policy.min_workers} to {policy.max_workers} workers, {policy.cores:g} cores; "
        f"{total.changes} changes, {total.overloaded:g} s overloaded, "
        f"latency {mean:.1f} ms on average, {worst:.0f} ms at worst"
    )
    figure.text(LEFT / WIDTH, 1 - 0.27 / height, replay.trace.name, fontsize=12, weight="bold")
    figure.text(LEFT / WIDTH, 1 - 0.48 / height, about, fontsize=9, color=GREY)


def _draw_load(axes: Axes, replay: Replay, seconds: float) -> None:
    """The upper panel: load and CPU in %, with their thresholds."""
    limit, steps = replay.policy.settings, replay.steps
    times = _edges(steps, seconds)
    load = [step.signals.load for step in steps]
    _draw_stairs(axes, times, load, color=BLUE, linewidth=1.6, label="load")
    cpu = [step.signals.cpu for step in steps]
    _draw_stairs(axes, times, cpu, color=GREEN, linewidth=1.2, label="CPU")
    _draw_threshold(axes, limit.load_up, "load: up above {:g} %", BLUE)
    _draw_threshold(axes, limit.cpu_up, "CPU: up above {:g} %", GREEN, below=True)
    if limit.load_down == limit.cpu_down:
        _draw_threshold(axes, limit.load_down, "down when both below {:g} %", GREY)
    else:
        _draw_threshold(axes, limit.load_down, "load: down below {:g} %", BLUE)
        _draw_threshold(axes, limit.cpu_down, "CPU: down below {:g} %", GREEN, below=True)
    most = max(load)
    top = min(max(most * 1.08, limit.load_up * 1.3, 100.0), max(CEILING, limit.load_up * 1.3))
    axes.set_ylim(0, top)
    axes.set_ylabel("load, CPU (%)")
    if most > top:
        peak = load.index(most)
        back = next((at for at in range(peak, len(load)) if load[at] <= top), peak)
        _draw_off_scale(axes, times[back], times[-1], f"up to {most:,.0f} %")


def _draw_threshold(
    axes: Axes, value: float, text: str, color: str, *, below: bool = False
) -> None:
    axes.axhline(value, color=color, linewidth=0.8, linestyle=(0, (5, 4)), alpha=0.8)
    axes.annotate(
        text.format(value),
        (1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -3 if below else 2),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        fontsize=SMALL,
        color=color,
    )


def _draw_off_scale(axes: Axes, where: float, end: float, text: str) -> None:
    """Say at the upper edge how far a line goes beyond it."""
    room = where < 0.85 * end
    axes.annotate(
        text,
        (where, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(6 if room else -6, -3),
        textcoords="offset points",
        ha="left" if room else "right",
        va="top",
        fontsize=SMALL,
        color=BLUE,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
    )


def _draw_workers(
    axes: Axes, replay: Replay, seconds: float, changes: Sequence[tuple[Step, Decision]]
) -> None:
    """The lower panel: workers, what was offered to them, and a number at each change."""
    steps = replay.steps
    times = _edges(steps, seconds)
    offered = [step.span.row.offered for step in steps]
    area = [*offered, offered[-1]]
    look: dict[str, Any] = {"color": ORANGE, "alpha": 0.25, "linewidth": 0}
    axes.fill_between(times, area, step="post", label="offered load", **look)
    _draw_stairs(axes, times, offered, color=ORANGE, linewidth=1.0)
    were = [row.measured.workers for row in replay.trace.rows if row.measured is not None]
    if len(were) == len(replay.trace.rows):
        edges = [0.0, *(row.time / seconds for row in replay.trace.rows)]
        look = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (2, 1.5))}
        _draw_stairs(axes, edges, were, label="workers as recorded", **look)
    workers = [step.workers for step in steps]
    _draw_stairs(axes, times, workers, color=BLUE, linewidth=2.0, label="workers")
    most = max(*workers, *were, *(change.after for _, change in changes), ceil(max(offered)), 2)
    axes.set_ylim(0, most + 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("workers, load (workers)")
    for number, (step, change) in enumerate(changes, 1):
        where = step.span.time / seconds
        marker = "^" if change.kind == "up" else "v"
        axes.plot(where, change.after, marker=marker, color=BLUE, markersize=6)
        axes.annotate(
            str(number),
            (where, max(change.after, change.before)),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
        )


def _draw_stairs(axes: Axes, times: list[float], values: Sequence[float], **look: Any) -> None:
    """Draw values that each hold from one time to the next."""
    # Axes.stairs() looks the same and takes ten seconds for a day.
    axes.plot(times, [*values, values[-1]], drawstyle="steps-post", **look)


def _draw_reasons(figure: Figure, changes: Sequence[tuple[Step, Decision]], height: float) -> None:
    rows = [
        (str(number), clock(step.span.time), f"{change.before} to {change.after}", change.reason)
        for number, (step, change) in enumerate(changes, 1)
    ]
    if len(rows) > LISTED:
        rows[LISTED - 1 :] = [("", "", "", f"and {len(rows) - LISTED + 1} more")]
    for line, row in enumerate(reversed(rows)):
        for column, text in zip((0.0, 0.3, 0.85, 1.5), row, strict=True):
            x, y = (LEFT + column) / WIDTH, (line + 0.5) * LINE / height
            shown = shorten(text, LETTERS, placeholder=" ...")
            figure.text(x, y, shown, fontsize=SMALL, color="#333333", va="bottom")


def _edges(steps: Sequence[Step], seconds: float) -> list[float]:
    return [0.0, *(step.span.time / seconds for step in steps)]


def _overloaded(steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """Yield where overload begins and where it ends, in seconds."""
    start = None
    before = 0.0
    for step in steps:
        if step.moment.overloaded and start is None:
            start = before
        elif not step.moment.overloaded and start is not None:
            yield start, before
            start = None
        before = step.span.time
    if start is not None:
        yield start, before
