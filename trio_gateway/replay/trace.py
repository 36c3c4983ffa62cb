"""A load over time, as a file: JSON lines, or CSV with the names of its columns in the first line.

    time,rate,service            {"time": 60, "rate": 300, "service": 0.00025}
    60,300,0.00025               {"time": 90, "rate": 9000, "service": 0.00025}
    90,9000,0.00025              {"time": 180, "rate": 300, "service": 0.00025}
    180,300,0.00025

A row tells what was from the row before (the first: from 0) until its own `time`:

| column | unit | |
|---|---|---|
| `time` | s | end of the row, since the trace began; above that of the row before |
| `offered` | workers | load: arrival rate x service time (Erlang's unit) |
| `rate` | frames/s | instead of `offered`: arrivals |
| `service` | s | in the codec, mean of a frame; with `offered` it may be left out: 0.00025 |
| `workers` | | that there were; this and the rest come from a gateway's recording, all or none |
| `pending` | frames | in the pool, mean |
| `waiting` | frames | of those that no worker is at work on, mean |
| `cpu` | % | of `cores` |
| `cores` | | that the gateway was allowed to use |
| `latency` | s | of the slowest frame in the gateway's window |

Empty lines and lines that begin with `#` are skipped. Whether it is CSV or JSON shows in the first
line that is left. The mean numbers of frames stand in place of the scaler's `load` and `queue`
because those are per worker and rounded: they cannot be carried over to other numbers of workers.
"""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict, frozen

from trio_gateway.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Measured", "Row", "Span", "Trace", "json_line", "parse", "read"]

SERVICE: Final = 0.00025
"""Seconds: measured, the mean of a decode (35 us) and an encode at complexity 5 (465 us)."""

MAX_STEPS: Final = 1_000_000
"""Of one replay. Eleven days at one a second, and half a minute of work; a guess."""


@frozen(kw_only=True)
class Measured:
    """What a gateway recorded besides the load; the module says what each column means."""

    workers: int
    pending: float
    waiting: float
    cpu: float
    cores: float
    latency: float


@frozen(kw_only=True)
class Row:
    """What was from the row before until `time`.

    Attributes:
        time: Seconds since the trace began.
        offered: Load in workers.
        service: Seconds in the codec for a frame. 0 only if nothing was offered.
        measured: What came of it then; None if nobody knows.
    """

    time: float
    offered: float
    service: float
    measured: Measured | None = None


@frozen
class Span:
    """A part of a row: `elapsed` seconds that end at `time`."""

    time: float
    elapsed: float
    row: Row

    @property
    def rate(self) -> float:
        """Frames/s that came."""
        return self.row.offered / self.row.service if self.row.offered else 0.0


@frozen
class Trace:
    """A load over time.

    Attributes:
        name: For people.
        rows: At least one, by time.
        cores: That it is meant for or was recorded on; None if nobody said.
    """

    name: str
    rows: tuple[Row, ...]
    cores: float | None = None

    def spans(self, tick: float) -> Iterator[Span]:
        """Yield the rows cut into equal parts of about `tick` seconds.

        Raises:
            TraceError: Too many of them.
        """
        if self.rows[-1].time / tick > MAX_STEPS:
            last = f"{self.name}: its last time is {self.rows[-1].time:g} s"
            raise TraceError(f"{last}; in steps of {tick:g} s a million is the most")
        start = 0.0
        for row in self.rows:
            length = row.time - start
            parts = max(round(length / tick), 1)  # a recorded second is 1.003 s: one part
            for part in range(1, parts):
                yield Span(start + length * part / parts, length / parts, row)
            yield Span(row.time, length / parts, row)
            start = row.time


def read(path: Path) -> Trace:
    """Read a trace.

    Raises:
        TraceError: It cannot be read; the text names the file, the line and what is wrong there.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:  # spreadsheets put a BOM before their CSV
            return parse(lines, name=str(path))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise TraceError(f"{path}: not a text file in UTF-8") from error


def parse(lines: Iterable[str], *, name: str) -> Trace:
    """Make a trace of lines of text.

    Raises:
        TraceError: The text names the line and what is wrong there.
    """
    rows: list[Row] = []
    decode: Callable[[str], dict[str, Any]] | None = None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            if decode is None:
                if not text.startswith("{"):
                    decode = _csv(text)
                    continue
                decode = _json
            rows.append(_row(decode(text), rows[-1].time if rows else 0.0))
        except _Wrong as error:
            raise TraceError(f"{name}, line {number}: {error}") from error
    if not rows:
        raise TraceError(f"{name}: holds no rows")
    first = rows[0].measured
    return Trace(name, tuple(rows), None if first is None else first.cores)


def json_line(row: Row) -> str:
    """Return a row as it stands in a file, with the line's end."""
    columns = asdict(row)
    columns |= columns.pop("measured") or {}
    # Nanoseconds, and a billionth of a worker: finer than anything here is measured.
    return json.dumps({name: round(value, 9) for name, value in columns.items()}) + "\n"


class _Wrong(Exception):  # noqa: N818  never leaves this file
    """What is wrong with a line."""


SHORTEST = 1e-9
"""Seconds, and"""
MOST = 1e9
"""of anything: what keeps a replay's arithmetic far from infinity."""

_LOAD = ("time", "offered", "rate", "service")
_MEASURED = tuple(attribute.name for attribute in Measured.__attrs_attrs__)
_COLUMNS = (*_LOAD, *_MEASURED)


def _csv(header: str) -> Callable[[str], dict[str, Any]]:
    names = [name.strip() for name in header.split(",")]
    _check_names(names)

    def decode(text: str) -> dict[str, Any]:
        cells = [cell.strip() for cell in text.split(",")]  # numbers: nothing is quoted
        if len(cells) != len(names):
            raise _Wrong(f"{len(cells)} cells, where the first line names {len(names)} columns")
        return dict(zip(names, cells, strict=True))

    return decode


def _json(text: str) -> dict[str, Any]:
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Wrong("not valid JSON") from error
    if not isinstance(columns, dict):
        raise _Wrong("not a JSON object")
    _check_names(list(columns))
    return columns


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise _Wrong(f"no such column: {name!r:.40}; there are {', '.join(_COLUMNS)}")
        if names.count(name) > 1:
            raise _Wrong(f"{name} stands there twice")
    if "time" not in names:
        raise _Wrong("time is missing")
    if ("offered" in names) == ("rate" in names):
        raise _Wrong("either offered or rate must be there")
    if "rate" in names and "service" not in names:
        raise _Wrong("service is missing: a rate alone is no load")
    missing = [name for name in _MEASURED if name not in names]
    if 0 < len(missing) < len(_MEASURED):
        raise _Wrong(f"{missing[0]} is missing: all of {', '.join(_MEASURED)} or none")


def _row(columns: dict[str, Any], since: float) -> Row:
    numbers = {name: _number(name, raw) for name, raw in columns.items()}
    time = numbers["time"]
    if time <= since:
        raise _Wrong(f"time = {time:g}: must be above {since:g}, where this row begins")
    service = numbers.get("service", SERVICE)
    offered = numbers["rate"] * service if "rate" in numbers else numbers["offered"]
    if offered > 0 and service < SHORTEST:
        raise _Wrong(f"service = {service:g}: must be at least a nanosecond where there is a load")
    if "workers" not in numbers:
        return Row(time=time, offered=offered, service=service)
    workers = numbers["workers"]
    if workers < 1 or not workers.is_integer():
        raise _Wrong(f"workers = {workers:g}: must be a whole number from 1")
    if numbers["cores"] == 0:
        raise _Wrong("cores = 0: must be above 0")
    others = {name: numbers[name] for name in _MEASURED if name != "workers"}
    measured = Measured(workers=int(workers), **others)
    return Row(time=time, offered=offered, service=service, measured=measured)


def _number(name: str, raw: Any) -> float:
    try:
        number = nan if isinstance(raw, bool) else float(raw)  # float(True) is 1
    except (TypeError, ValueError, OverflowError):
        number = nan
    if not 0 <= number <= MOST:
        raise _Wrong(f"{name} = {raw!r:.40}: must be a number from 0 to a billion")
    return number
