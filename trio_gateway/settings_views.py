"""Settings on paper: what is in force and why, as columns or JSON, and docs/settings.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trio_gateway.configuration import CONFIG_VARIABLE, variable_of
from trio_gateway.secret_files import SECRET_FILES
from trio_gateway.settings import Address, Settings, sections, settings_by_path
from trio_gateway.settings.rules import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from attrs import Attribute

    from trio_gateway.configuration import Loaded

__all__ = ["as_columns", "as_json", "as_markdown"]

_WIDEST = 40  # characters of a value; the few that are longer push their line out, not all lines


def _value(settings: Settings, path: str) -> object:
    value: object = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value


def as_columns(loaded: Loaded) -> Iterable[tuple[str, bool]]:
    """Yield lines of aligned columns, each with whether its value is other than the default."""
    rows = [
        (path, show(attribute, _value(loaded.settings, path)), attribute.metadata["unit"])
        for path, attribute in settings_by_path().items()
    ]
    path_width, value_width, unit_width = (
        min(max(len(row[column]) for row in rows), _WIDEST) for column in range(3)
    )
    for path, value, unit in rows:
        source = loaded.sources[path]
        start = f"{path:<{path_width}}  {value:<{value_width}}  {unit:<{unit_width}}"
        yield f"{start}  {source}", source != "default"


def as_json(loaded: Loaded) -> str:
    """Return one JSON object: dotted path -> value, unit, source. Secrets are masked."""
    report = {
        path: {
            "value": _plain(attribute, _value(loaded.settings, path)),
            "unit": attribute.metadata["unit"],
            "source": loaded.sources[path],
        }
        for path, attribute in settings_by_path().items()
    }
    return json.dumps(report, indent=2)


def _plain(attribute: Attribute[Any], value: object) -> object:
    mask = attribute.metadata["mask"]
    if mask is not None and value is not None:
        return mask(value)
    return str(value) if isinstance(value, (Address, Path)) else value


def as_markdown(flags: Sequence[tuple[str, str]]) -> str:
    """Return docs/settings.md.

    Args:
        flags: Each flag of the command line and the settings that it sets.
    """
    groups: dict[str, list[str]] = {name: [] for name in ("", *sections())}
    for path, attribute in settings_by_path().items():
        groups[path.rpartition(".")[0]].append(_row(path, attribute))
    parts = [_INTRODUCTION, _flag_table(flags)]
    for name, rows in groups.items():
        title = f"## [{name}]" if name else "## At the top of the file"
        about = (sections()[name].__doc__ or "") if name else "Not in any table."
        parts.append("\n".join([title, "", about, "", *_TABLE_HEAD, *rows]))
    return "\n\n".join(parts) + "\n"


def _row(path: str, attribute: Attribute[Any]) -> str:
    about = attribute.metadata
    unit = f", {about['unit']}" if about["unit"] else ""
    cells = [
        f"`{path.rpartition('.')[2]}`{unit}",
        f"`{show(attribute, attribute.default)}`",
        str(about["rule"]),
        about["help"],
        about["why"],
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flag_table(flags: Sequence[tuple[str, str]]) -> str:
    rows = [f"| `{flag}` | {paths} |" for flag, paths in flags]
    return "\n".join(["## Flags", "", "| flag | sets |", "|---|---|", *rows])


_TABLE_HEAD = (
    "| setting | default | allowed | what it does | where the default comes from |",
    "|---|---|---|---|---|",
)

_INSTEAD = "; ".join(
    f"`{file}` may be given instead of `{secret}`" for file, secret in SECRET_FILES.items()
)

_INTRODUCTION = f"""# Settings

Made by `python -m trio_gateway config --markdown > docs/settings.md`; a test keeps it current.

A value comes from, each outweighing the ones before:

1. the defaults below;
2. a TOML file: `--config FILE`, or the variable `{CONFIG_VARIABLE}`;
3. an environment variable: `{variable_of("pool.min_workers")}` for `min_workers` in `[pool]`;
4. a flag.

```toml
# gateway.toml: all of it is optional
grace = 5.0
signature_key_file = "device.key"  # relative paths start from this file's folder

[udp]
listen = "0.0.0.0:8884"
public_host = "voice.example.org"

[pool]
max_workers = 4
```

- `python -m trio_gateway config` prints what is in force and where each value came from.
- The word `none` stands for "no value" wherever the table allows none. A list in a variable is
  separated by commas.
- {_INSTEAD}.
- A secret in a flag can be seen by everyone who can list processes: give the broker's password in
  a file or in `{variable_of("mqtt.password")}`. A file that everybody on the machine may read is
  used, with a warning.
- A wrong value, an unknown key and an unknown `TRIO_GATEWAY_` variable are errors: one line each,
  exit code 2.

"The earlier gateway" below is the one that this one replaces: Node, with a pool of codec worker
threads. "Measured" is on two cores of a shared machine, Python 3.11 and 3.13."""
