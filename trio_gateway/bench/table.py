"""What was found, for people: a line for each configuration, and the targets in words."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from attrs import asdict
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trio_gateway.bench.jobs import DECODE_RATE, ENCODE_RATE
from trio_gateway.bench.results import verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from trio_gateway.bench.options import Comparison
    from trio_gateway.bench.plan import Case
    from trio_gateway.bench.results import Result, Verdict

__all__ = ["WIDTH", "options_table", "pool_table", "short"]

WIDTH: Final = 110
"""Columns that everything needs. With fewer, the rarer figures stand in the JSON only."""

_HEADS: Final = {
    "fps": "frames/s",
    "cpu_us": "CPU us",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "max_ms": "max ms",
    "jitter_ms": "sigma ms",
}
_FEW: Final = ("fps", "cpu_us", "p50_ms", "p99_ms")
_LABEL: Final = 16
_CELL: Final = 11  # a figure and its ratio, five characters each
_NOTE: Final = 14
_ROUNDS: Final = 5

_MODES: Final = {
    "pool": "  through the pool: kind, streams per worker",
    "pool-busy": "  the same with the Trio thread half busy",
    "burst": "  a frame of every stream at once: kind, streams per worker",
}


def pool_table(found: Sequence[Result], *, width: int = WIDTH) -> RenderableType:
    """Draw all of it.

    Args:
        found: Results of one operation stand together.
        width: Columns there are.
    """
    judged = verdicts(found)
    by_case = {verdict.case: verdict for verdict in judged}
    columns = [name for name in _HEADS if width >= WIDTH or name in _FEW]
    parts = [
        _section(title, list(group), by_case, columns)
        for title, group in groupby(found, key=lambda result: _title(result.case))
    ]
    if judged:
        parts.append(_targets(judged))
    return Group(*parts)


def _title(case: Case) -> str:
    if case.mode == "start":
        return "one more worker, until it is ready"
    if case.op == "decode":
        return f"decode, {DECODE_RATE // 1000} kHz"
    return f"encode, {ENCODE_RATE // 1000} kHz, complexity {case.complexity}"


def _section(
    title: str, found: list[Result], judged: dict[Case, Verdict], columns: list[str]
) -> RenderableType:
    lines: list[RenderableType] = [Text(title, style="bold cyan")]
    header = True
    for mode, group in groupby(found, key=lambda result: result.case.mode):
        table = _grid(columns, header=header)
        header = False
        if mode in _MODES:
            lines.append(Text(_MODES[mode], style="italic"))
        for result in group:
            cells = [_cell(result, name) for name in columns]
            table.add_row(_label(result.case), *cells, _note(result, judged.get(result.case)))
        lines.append(table)
    return Padding(Group(*lines), (0, 0, 1, 0))


def _grid(columns: list[str], *, header: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=header)
    table.add_column(width=_LABEL, no_wrap=True)
    for name in columns:
        head = f"{_HEADS[name]:^{_CELL}}"
        table.add_column(head, width=_CELL, no_wrap=True, header_style="dim")
    table.add_column(width=_NOTE, no_wrap=True)
    return table


def _label(case: Case) -> str:
    if case.mode == "start":
        return "   parked" if case.op == "parked" else f" {case.kind}"
    if case.kind is None:
        return " direct"
    return f" {case.kind:<11} {case.streams:>3}"


def _cell(result: Result, name: str) -> Text:
    if name == "fps" and result.ratios is None:  # of starts: nobody asks
        return Text()
    cell = Text(f"{short(asdict(result.figures)[name]):>5}")
    if result.ratios is not None:
        ratio = "x" + _ratio(asdict(result.ratios)[name])
        cell.append(f" {ratio:>5}", style="bold" if name == "fps" else "dim")
    return cell


def _note(result: Result, verdict: Verdict | None) -> Text:
    """What a lone frame takes longer than the codec does, and what became of a target."""
    note = Text()
    if result.case.kind is None:
        note.append(_count(result.case.workers, "thread"), style="dim")
    elif result.case.streams == 1 and result.over_codec_us is not None:
        note.append(f"{result.over_codec_us:+.0f}us ")
    elif verdict is not None:
        note.append(f"{verdict.wanted:g} ", style="dim")
    if verdict is not None:
        note.append(_word(verdict), style=_style(verdict))
    return note


def options_table(found: Sequence[Comparison]) -> RenderableType:
    """Draw what options are good for."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("option", "workers", "load", "figure"):
        table.add_column(head, header_style="dim", no_wrap=True)
    for head in ("on", "off", "on / off"):
        table.add_column(head, header_style="dim", no_wrap=True, justify="right")
    table.add_column("better in", header_style="dim", no_wrap=True, justify="right")
    before = ""
    for each in found:
        name = Text(each.option if each.option != before else "", style="bold cyan")
        before = each.option
        numbers = short(each.on), short(each.off), _ratio(each.ratio)
        table.add_row(name, each.kind or "", each.load, each.what, *numbers, _wins(each))
    return table


def _wins(comparison: Comparison) -> Text:
    """Colour says what one round at most contradicts; three rounds are too few to say anything."""
    wins, rounds = comparison.wins, comparison.rounds
    style = "dim"
    if rounds >= _ROUNDS and wins >= rounds - 1:
        style = "green"
    elif rounds >= _ROUNDS and wins <= 1:
        style = "red"
    return Text(f"{wins} of {rounds}", style=style)


def _targets(judged: list[Verdict]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("targets, for two cores", header_style="bold cyan", no_wrap=True)
    table.add_column()  # may wrap where it is narrow
    table.add_column("wanted", header_style="dim", no_wrap=True)
    table.add_column("measured", header_style="dim", no_wrap=True)
    for verdict in judged:
        bound = "at least" if verdict.at_least else "at most"
        unit = f" {verdict.unit}" if verdict.unit else ""
        table.add_row(
            f"  {verdict.what}",
            f"{_words(verdict.case)}",
            f"{bound} {verdict.wanted:g}{unit}",
            Text(f"{short(verdict.got)}{unit}, {_word(verdict)}", style=_style(verdict)),
        )
    return table


def _words(case: Case) -> str:
    if case.mode == "start":
        return f"{case.kind}, {case.op}"
    complexity = "" if case.complexity is None else f" at complexity {case.complexity}"
    return f"{case.op}{complexity}, {_count(case.streams, 'stream')} per {case.kind}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _word(verdict: Verdict) -> str:
    return "reached" if verdict.reached else "missed"


def _style(verdict: Verdict) -> str:
    return "green" if verdict.reached else "bold red"


def short(value: float) -> str:
    """Three digits, five characters: 0.028, 2.35, 23.5, 235, 23456, 235k."""
    if value >= 99999.5:  # noqa: PLR2004  where 100k begins, and so on
        return f"{value / 1000:.0f}k"
    return f"{value:.3f}" if value < 0.9995 else _ratio(value)  # noqa: PLR2004


def _ratio(value: float) -> str:
    """At most three digits: 0.03, 2.35, 23.5, 235."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004
    return f"{value:.{decimals}f}"
