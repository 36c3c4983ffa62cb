"""Small pictures made of characters: a graph and a bar, as wide as there is room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from rich import box
from rich.measure import Measurement
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, OverflowMethod, RenderResult

__all__ = ["ASCII", "UNICODE", "Bar", "Glyphs", "Graph"]


@frozen
class Glyphs:
    """What to draw with.

    Attributes:
        ramp: From the lowest value to the highest.
        full: The part of a bar that counts.
        empty: The rest of it.
        dot: One of something.
        arrow: From one to another.
        box: Around a panel.
        overflow: What is done to a line that is too long.
    """

    ramp: str
    full: str
    empty: str
    dot: str
    arrow: str
    box: box.Box
    overflow: OverflowMethod


UNICODE = Glyphs("▁▂▃▄▅▆▇█", "━", "─", "●", "→", box.ROUNDED, "ellipsis")
ASCII = Glyphs("_.:-=+*#", "#", ".", "*", "->", box.ASCII, "crop")


@frozen
class Graph:
    """One character a value, as many of the latest as there is room for.

    Attributes:
        values: Oldest first.
        glyphs: What to draw with.
        bottom: Where the lowest character is.
        top: Where the highest one is, unless a value is above it.
        levels: Below the first is good, above the second is not.
    """

    values: Sequence[float]
    glyphs: Glyphs
    bottom: float = 0.0
    top: float = 0.0
    levels: tuple[float, float] | None = None

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        ramp = self.glyphs.ramp
        shown = self.values[-options.max_width :]
        scale = len(ramp) / max(max(self.top, *shown) - self.bottom, 1e-9)
        graph = Text(no_wrap=True)
        for value in shown:
            height = int((value - self.bottom) * scale)
            graph.append(ramp[min(max(height, 0), len(ramp) - 1)], self._style(value))
        yield graph

    def _style(self, value: float) -> str:
        if self.levels is None:
            return "cyan"
        good, bad = self.levels
        return "red" if value > bad else "yellow" if value >= good else "green"


@frozen
class Bar:
    """A share as wide as there is room for.

    Attributes:
        share: 0 to 1; more counts as 1.
        glyphs: What to draw with.
    """

    share: float
    glyphs: Glyphs

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        filled = round(min(self.share, 1.0) * options.max_width)
        empty = options.max_width - filled
        yield Text(self.glyphs.full * filled, "cyan").append(
            self.glyphs.empty * empty, "bright_black"
        )
