"""What `trio-gateway bench` does; `cli.py` beside it has the flags."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import trio
from attrs import asdict, evolve
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from trio_gateway import logs
from trio_gateway.bench.facts import facts, headline
from trio_gateway.bench.load import BUSY_PERIOD, BUSY_SLICE
from trio_gateway.bench.measure import measure
from trio_gateway.bench.mixed import TALKERS
from trio_gateway.bench.options import measure_options
from trio_gateway.bench.results import quiet, results, verdicts
from trio_gateway.bench.table import WIDTH, options_table, pool_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from trio_gateway.bench.measure import Progress
    from trio_gateway.bench.plan import Plan
    from trio_gateway.bench.results import Verdict
    from trio_gateway.settings import Settings

__all__ = ["options", "pool"]

_POOL_NOTES = (
    "xN is the ratio to libopus alone, called in a plain loop by as many threads as there are "
    "workers: taken in each round, then the median. One frame of each stream is always under way, "
    f"so latency grows with the streams. Half busy: {BUSY_SLICE * 1000:g} ms of Python in every "
    f"{BUSY_PERIOD * 1000:g} ms, not counted as CPU of the frames."
)

_QUIET = 0.9
_NOT_QUIET = (
    "This machine was not quiet: the plain loops had {:.0%} of the CPU that they asked for. CPU us "
    "still holds; frames/s and latency hold less, and more threads got more of what was left."
)

_OPTIONS_NOTES = (
    "on / off is taken in each round, then the median. Mixed: encoders that saturate the workers, "
    f"and {TALKERS} streams to decode, a frame every 60 ms each. The slab: against buffers made "
    "for each frame; numpy: against a loop over the samples, in Python."
)


def pool(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Measure the pool against libopus alone, and print."""
    logs.configure(evolve(settings.log, level="error"))
    before = facts(settings)
    with _progress() as progress:
        runs = trio.run(lambda: measure(plan, settings, progress=progress))
    found = results(runs)
    had = quiet(found, plan.cores)
    if as_json:
        _print_json(
            **before,
            plan={**_plan(plan), "parts": plan.parts},
            quiet=had,
            targets=[_target(verdict) for verdict in verdicts(found)],
            results=[result.as_json() for result in found],
        )
        return
    notes = _POOL_NOTES
    if had is not None and had < _QUIET:
        notes += "\n\n" + _NOT_QUIET.format(had)
    _print(plan, lambda width: pool_table(found, width=width), notes)


def options(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Measure the pool's options on and off, and print."""
    logs.configure(evolve(settings.log, level="error"))
    before = facts(settings)
    with _progress() as progress:
        found = trio.run(lambda: measure_options(plan, settings, progress=progress))
    if as_json:
        _print_json(
            **before, plan=_plan(plan), results=[asdict(comparison) for comparison in found]
        )
        return
    _print(plan, lambda _: options_table(found), _OPTIONS_NOTES)


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "workers": plan.workers,
        "kinds": plan.kinds,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
    }


def _target(verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(verdict.case),
        "what": verdict.what,
        "wanted": verdict.wanted,
        "at_least": verdict.at_least,
        "got": verdict.got,
        "unit": verdict.unit,
        "reached": verdict.reached,
    }


def _print_json(**report: Any) -> None:
    click.echo(json.dumps(report, indent=2))


def _print(plan: Plan, draw: Callable[[int], RenderableType], notes: str) -> None:
    console = Console()
    if not console.is_terminal:  # a file takes any width
        console = Console(width=WIDTH)
    size = f"{plan.workers} workers, {plan.rounds} rounds of {plan.seconds:g} s"
    console.print(f"{headline()}; {size}", style="bold", highlight=False)
    console.print()
    console.print(draw(console.width))
    console.print()
    console.print(notes, style="dim", highlight=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show how far it is, where somebody looks.

    It is drawn between measurements only: rich's own thread would draw during them.
    """
    console = Console(stderr=True)
    bar = Bar(
        BarColumn(30),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(
            task, completed=share, description=str(what), refresh=True
        )
