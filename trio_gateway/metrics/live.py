"""The gateway at a glance, in a terminal: what it carries, what that costs, why it scaled.

`live_view` is a pure function of a `LiveState`; it draws itself to the width it is given. From 110
columns on signals and workers stand side by side, below that one above the other; with up to eight
workers it fits 80 x 24.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from itertools import chain, pairwise
from time import localtime, strftime
from typing import TYPE_CHECKING, TypeAlias

import trio
from attrs import frozen
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from trio_util import periodic

from trio_gateway.metrics.graphs import ASCII, UNICODE, Bar, Graph
from trio_gateway.metrics.sampler import frame_rate, signals_between
from trio_gateway.metrics.units import megabytes, milliseconds, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import ConsoleOptions, RenderableType, RenderResult

    from trio_gateway.core.scaling import Decision, ScalingEvent, ScalingPolicy
    from trio_gateway.metrics.graphs import Glyphs
    from trio_gateway.metrics.sampler import Sample
    from trio_gateway.workers.statistics import WorkerStatistics

__all__ = ["LiveState", "live_view", "run_live"]

SIDE_BY_SIDE = 110  # columns; with fewer a worker's bar is too short to read
WORKERS_SHOWN = 16
EVENTS_SHOWN = 3
SIGNAL_ROWS = 8
BUSY_SPAN = 3  # samples; a share over one second jumps too much to read

_Row: TypeAlias = "tuple[str, str, Graph, str]"
"""Name, value, graph, detail."""


@frozen(kw_only=True)
class LiveState:
    """What is shown. It is drawn in another thread, so nothing in it may change.

    Attributes:
        samples: Oldest first; as many as there should be columns in the graphs.
        policy: In force.
        events: Changes, oldest first.
        last: The scaler's last decision.
        title: First line.
        note: Last line, if any: what is unusual about this run.
    """

    samples: tuple[Sample, ...]
    policy: ScalingPolicy
    events: tuple[ScalingEvent, ...] = ()
    last: Decision | None = None
    title: str = "trio-gateway"
    note: str = ""


async def run_live(
    state: Callable[[], LiveState], *, console: Console | None = None, interval: float = 1.0
) -> None:
    """Show the state and keep it current until cancelled; the last picture stays.

    Drawing takes 5 to 7 ms and a terminal may be slow to take it (or stopped with Ctrl-S), so a
    thread does both and no call waits for it.

    Args:
        state: Returns what to show; called in the Trio thread.
        console: Where to; standard output if None.
        interval: Seconds between two pictures.
    """
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        async with aclosing(periodic(interval)) as ticks:  # cancelled inside its loop: close it
            async for _ in ticks:
                view = live_view(state())
                await trio.to_thread.run_sync(partial(live.update, view, refresh=True))


def live_view(state: LiveState) -> RenderableType:
    """Return the picture of a state."""
    return _View(state)


@frozen
class _View:
    state: LiveState

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        state = self.state
        if len(state.samples) < 2:  # noqa: PLR2004  rates need a difference
            yield Text(f" {state.title}: measuring ...", style="bold")
            return
        glyphs = ASCII if options.ascii_only else UNICODE
        wide = options.max_width >= SIDE_BY_SIDE
        signals = _signals_panel(state, glyphs)
        workers = _workers_panel(state, glyphs, in_pairs=not wide)
        yield _title(state, glyphs)
        if wide:
            grid = Table.grid(expand=True)
            grid.add_column(ratio=2)
            grid.add_column(ratio=1)
            grid.add_row(signals, workers)
            yield grid
        else:
            yield Group(signals, workers)
        yield _events_panel(state, glyphs)
        if state.note:
            yield Text(f" {state.note}", style="dim", overflow=glyphs.overflow, no_wrap=True)


def _title(state: LiveState, glyphs: Glyphs) -> RenderableType:
    row = Table.grid(expand=True)
    row.add_column(no_wrap=True, overflow=glyphs.overflow)
    row.add_column(justify="right", no_wrap=True)
    clock = strftime("%H:%M:%S", localtime(state.samples[-1].wall))
    row.add_row(Text(f" {state.title}", style="bold"), Text(f"{clock} ", style="dim"))
    return row


def _panel(content: RenderableType, title: str, glyphs: Glyphs, height: int | None = None) -> Panel:
    return Panel(
        content,
        title=title,
        title_align="left",
        box=glyphs.box,
        border_style="bright_black",
        height=height,
    )


def _signals_panel(state: LiveState, glyphs: Glyphs) -> Panel:
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    grid.add_column(style="bold", no_wrap=True, width=11)
    grid.add_column(justify="right", no_wrap=True, width=9)
    grid.add_column(ratio=1)
    grid.add_column(style="dim", no_wrap=True, width=24, overflow=glyphs.overflow)
    for name, value, graph, detail in [
        *_traffic_rows(state, glyphs),
        *_pool_rows(state, glyphs),
        *_process_rows(state, glyphs),
    ]:
        grid.add_row(name, value, graph, detail)
    return _panel(grid, "now", glyphs)


def _traffic_rows(state: LiveState, glyphs: Glyphs) -> Iterator[_Row]:
    newest = state.samples[-1]
    if newest.sessions is not None:
        active = [float(s.sessions.active) for s in state.samples if s.sessions is not None]
        yield (
            "sessions",
            f"{newest.sessions.active}",
            Graph(active, glyphs),
            f"lost {newest.sessions.lost:,}, dropped {newest.sessions.dropped:,}",
        )
    rates = [frame_rate(*pair) for pair in pairwise(state.samples)]
    pool = newest.pool
    yield (
        "frames",
        rate(rates[-1]),
        Graph(rates, glyphs),
        f"dropped {pool.dropped:,}, late {pool.late:,}",
    )


def _pool_rows(state: LiveState, glyphs: Glyphs) -> Iterator[_Row]:
    limit, pool = state.policy.settings, state.samples[-1].pool
    signals = [
        signals_between(*pair, frames_per_worker=limit.frames_per_worker)
        for pair in pairwise(state.samples)
    ]
    workers = [float(sample.pool.target) for sample in state.samples]
    bounds = f"{state.policy.min_workers} to {state.policy.max_workers}"
    yield (
        "workers",
        f"{pool.target}",
        Graph(workers, glyphs, top=state.policy.max_workers),
        f"{bounds} {pool.kind}s",
    )
    yield (
        "load",
        f"{signals[-1].load:.0f} %",
        Graph(
            [each.load for each in signals],
            glyphs,
            top=100.0,
            levels=(limit.load_down, limit.load_up),
        ),
        f"up > {limit.load_up:g} %, down < {limit.load_down:g} %",
    )
    queue_up = limit.queue_per_worker_up * pool.target
    queue = [float(each.queue) for each in signals]
    yield (
        "queue",
        f"{signals[-1].queue}",
        Graph(queue, glyphs, top=queue_up, levels=(1.0, queue_up)),
        f"up > {queue_up:g}, down at 0",
    )
    levels = (limit.latency_down, limit.latency_up)
    yield (
        "latency max",
        milliseconds(pool.latency.max),
        Graph([each.latency for each in signals], glyphs, top=limit.latency_down, levels=levels),
        f"p50 {milliseconds(pool.latency.p50)}, p99 {milliseconds(pool.latency.p99)}",
    )


def _process_rows(state: LiveState, glyphs: Glyphs) -> Iterator[_Row]:
    limit, newest = state.policy.settings, state.samples[-1]
    cpu = [sample.cpu for sample in state.samples[1:]]
    yield (
        "CPU",
        f"{newest.cpu:.0f} %",
        Graph(cpu, glyphs, top=100.0, levels=(limit.cpu_down, limit.cpu_up)),
        f"of {newest.cores:g} cores",
    )
    memory = [float(sample.process.rss_bytes) for sample in state.samples]
    yield (
        "memory",
        megabytes(newest.process.rss_bytes),
        Graph(memory, glyphs, bottom=0.9 * min(memory)),  # from 0 it would be a full bar
        f"event loop {milliseconds(newest.lag)} late",
    )


def _workers_panel(state: LiveState, glyphs: Glyphs, *, in_pairs: bool) -> Panel:
    older, newer = state.samples[-min(BUSY_SPAN + 1, len(state.samples))], state.samples[-1]
    elapsed = max(newer.time - older.time, 1e-9)
    before = {worker.name: worker.busy_s for worker in older.pool.workers}
    shown = newer.pool.workers[:WORKERS_SHOWN]
    cells = [
        _worker_cells(worker, (worker.busy_s - before.get(worker.name, 0.0)) / elapsed, glyphs)
        for worker in shown
    ]
    columns = 2 if in_pairs else 1
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in range(columns):
        grid.add_column(no_wrap=True, overflow=glyphs.overflow, width=13)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, width=5)
        grid.add_column(justify="right", no_wrap=True, style="dim", width=7)
    for start in range(0, len(cells), columns):
        grid.add_row(*chain.from_iterable(cells[start : start + columns]))
    hidden = len(newer.pool.workers) - len(shown)
    if hidden:
        grid.add_row(Text(f"{hidden} more", "dim"))
    # Beside the signals it is as high as they are.
    height = None if in_pairs else max(grid.row_count, SIGNAL_ROWS) + 2
    return _panel(grid, "workers: busy, frames held", glyphs, height)


def _worker_cells(
    worker: WorkerStatistics, busy: float, glyphs: Glyphs
) -> tuple[RenderableType, ...]:
    ready = worker.state == "ready"
    name = worker.name.removeprefix(f"{worker.kind}-")
    label = Text(f"{glyphs.dot} ", "green" if ready else "yellow").append(name, "default")
    if not ready:
        label.append(f" {worker.state}", "yellow")
    return (
        label,
        Bar(busy, glyphs),
        f"{min(busy, 1.0) * 100:.0f} %",
        f"{worker.in_flight} held",
    )


def _events_panel(state: LiveState, glyphs: Glyphs) -> Panel:
    now = state.samples[-1].time
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True, style="dim", width=9)
    grid.add_column(no_wrap=True, width=8)
    grid.add_column(no_wrap=True, overflow=glyphs.overflow, ratio=1)
    if state.last is not None and state.last.kind in {"hold", "refused"}:
        grid.add_row("now", f"{state.last.after}", Text(state.last.reason, "dim"))
    for event in state.events[: -EVENTS_SHOWN - 1 : -1]:
        style = "green" if event.after > event.before else "blue"
        step = f"{event.before} {glyphs.arrow} {event.after}"
        ago = f"{max(now - event.time, 0):.0f} s ago"
        grid.add_row(ago, Text(step, style), Text(event.reason))
    if not grid.row_count:
        grid.add_row("", "", Text("no change yet", "dim"))
    return _panel(grid, "scaling", glyphs)
