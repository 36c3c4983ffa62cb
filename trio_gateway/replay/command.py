"""What `trio-gateway replay` does; `cli.py` has its flags."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from trio_gateway.errors import SettingsError, TraceError
from trio_gateway.replay import report
from trio_gateway.replay.run import replay
from trio_gateway.replay.scenarios import PREFIX, SCENARIOS
from trio_gateway.replay.trace import read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_gateway.replay.trace import Trace
    from trio_gateway.settings import Settings

__all__ = ["names", "run"]

ALL = PREFIX + "all"


def run(
    name: str,
    settings: Settings,
    *,
    cores: float | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> Iterable[str]:
    """Replay a trace.

    Args:
        name: A file, `scenario:NAME`, or `scenario:all`.
        settings: In force.
        cores: Instead of the trace's.
        plot: Where to draw it.
        as_json: Whether the lines are to be JSON.

    Returns:
        Lines to print.

    Raises:
        SettingsError: The trace cannot be read or the picture not be drawn; the text says why.
    """
    if plot is not None and find_spec("matplotlib") is None:
        missing = f"--plot {plot}: matplotlib is missing"
        raise SettingsError(f'{missing}; install the extra "plot" of trio-gateway')
    if name == ALL:
        return _compare(settings, cores, plot, as_json=as_json)
    try:
        done = replay(_trace(name), settings, cores=cores)
        if plot is not None:
            from trio_gateway.replay.plot import save  # noqa: PLC0415  an optional extra

            save(done, plot)
    except TraceError as error:
        raise SettingsError(str(error)) from error
    return [json.dumps(report.as_json(done), indent=2)] if as_json else report.as_lines(done)


def names() -> Iterable[str]:
    """Return a line for each scenario."""
    return report.scenario_names()


def _trace(name: str) -> Trace:
    if not name.startswith(PREFIX):
        return read(Path(name))
    scenario = SCENARIOS.get(name.removeprefix(PREFIX))
    if scenario is None:
        raise TraceError(f"{name}: no such scenario; there are {', '.join(SCENARIOS)}, all")
    return scenario.trace()


def _compare(
    settings: Settings, cores: float | None, plot: Path | None, *, as_json: bool
) -> Iterable[str]:
    if plot is not None:
        raise SettingsError(f"--plot {plot}: draws one scenario, not all of them")
    done = [
        (scenario, replay(scenario.trace(), settings, cores=cores))
        for scenario in SCENARIOS.values()
    ]
    if as_json:
        return [json.dumps([report.as_json(each) for _, each in done], indent=2)]
    return report.comparison(done)
