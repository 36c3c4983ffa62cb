"""From a file, the environment and flags to one checked tree that knows where each value came from.

Later layers outweigh earlier ones, value by value:

    1. the defaults in `settings`        2. a TOML file        3. TRIO_GATEWAY_... variables
    4. flags

Every mistake is one line that names the setting, the value, its source and what is allowed, and
all mistakes are reported at once. What nobody knows (a misspelt key or variable) is a mistake too:
a setting that silently does nothing costs more time than a program that does not start.
"""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from typed_settings.converters import (
    default_converter,
    get_path_converter_from,
    register_strlist_hook,
)
from typed_settings.types import LoadedValue, LoaderMeta

from trio_gateway.errors import InvalidSetting, SettingsError
from trio_gateway.secret_files import (
    SECRET_FILES,
    FromFile,
    FromFlag,
    Layer,
    cautions,
    with_secrets_read,
)
from trio_gateway.settings import (
    Address,
    BrokerUrl,
    Secret,
    Settings,
    sections,
    settings_by_path,
)
from trio_gateway.settings.rules import Optional, show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "Loaded",
    "load_settings",
    "variable_of",
]

ENV_PREFIX: Final = "TRIO_GATEWAY_"
CONFIG_VARIABLE: Final = "TRIO_GATEWAY_CONFIG"

# Kubernetes tells every pod of a namespace about a service called trio-gateway in variables like
# TRIO_GATEWAY_SERVICE_HOST and TRIO_GATEWAY_PORT_1883_TCP_ADDR: our own pods included.
_NOT_OURS: Final = re.compile(
    CONFIG_VARIABLE + r"|TRIO_GATEWAY_(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP).*)?)"
)


@frozen
class Loaded:
    """Settings, and where each of them came from.

    Attributes:
        settings: The checked tree.
        sources: Dotted path -> source, in words ("flag --workers"); "default" where nobody spoke.
        cautions: Secrets that others on this machine can read; a line for each.
    """

    settings: Settings
    sources: Mapping[str, str]
    cautions: tuple[str, ...] = ()


def variable_of(path: str) -> str:
    """Return the environment variable of a setting: pool.slots -> TRIO_GATEWAY_POOL_SLOTS."""
    return ENV_PREFIX + path.upper().replace(".", "_")


def load_settings(
    config: Path | None = None,
    *,
    flags: Mapping[str, tuple[str, str]] | None = None,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, tuple[str, object]] | None = None,
) -> Loaded:
    """Load and check everything.

    Args:
        config: A TOML file. If None, the one that TRIO_GATEWAY_CONFIG names, if any.
        flags: Dotted path -> (the flag's name, its text).
        environ: Instead of os.environ.
        defaults: Dotted path -> (source in words, value): defaults of the calling program that
            differ from the tree's.

    Raises:
        SettingsError: At least one value is wrong; one line for each.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    layers = (
        _layer(defaults or {}),
        _file_layer(config, environ, problems),
        _environment_layer(environ, problems),
        {
            path: LoadedValue(text, FromFlag(f"flag {flag}"))
            for path, (flag, text) in (flags or {}).items()
        },
    )
    merged: Layer = {}
    for layer in layers:
        merged |= with_secrets_read(layer, problems)
    sources = dict.fromkeys(settings_by_path(), "default")
    sources |= {path: loaded.loader_meta.name for path, loaded in merged.items()}
    values = _converted(merged, problems)
    settings = _build(values, merged.keys() - values.keys(), sources, problems)
    if problems:
        raise SettingsError("\n".join(problems))
    return Loaded(settings, sources, tuple(cautions(merged)))


def _layer(values: Mapping[str, tuple[str, object]]) -> Layer:
    return {
        path: LoadedValue(value, LoaderMeta(source)) for path, (source, value) in values.items()
    }


# ---------------------------------------------------------------------------------- the file


def _file_layer(config: Path | None, environ: Mapping[str, str], problems: list[str]) -> Layer:
    origin = "flag --config"
    if config is None:
        if CONFIG_VARIABLE not in environ:
            return {}
        config, origin = Path(environ[CONFIG_VARIABLE]), f"variable {CONFIG_VARIABLE}"
    where = f"{str(config)!r} ({origin})"
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{where}: {error.strerror}")
    except tomllib.TOMLDecodeError as error:  # its text has line and column, and no values
        problems.append(f"{where}: not valid TOML: {error}")
    except (ValueError, RecursionError):  # bad UTF-8; a NUL in the path; ten thousand brackets
        problems.append(f"{where}: not the path of a TOML file in UTF-8")
    else:
        return _flattened(table, config, problems)
    return {}


def _flattened(table: Mapping[str, Any], file: Path, problems: list[str]) -> Layer:
    """Turn tables into dotted paths; report keys that are no settings."""
    entries: dict[str, object] = {}
    for key, value in table.items():
        if key not in sections():
            entries[key] = value
        elif isinstance(value, dict):
            entries |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            problems.append(f"{key} ({file}): holds settings: write [{key}] and a line for each")
    known = {*settings_by_path(), *SECRET_FILES}
    layer: Layer = {}
    for path, value in entries.items():
        if path in known:
            meta = FromFile(f"{file}, key {path}", base_dir=file.parent.absolute(), file=file)
            layer[path] = LoadedValue(value, meta)
        else:
            problems.append(f"{path!r} ({file}): no such setting{_suggestion(path, known)}")
    return layer


def _suggestion(name: str, known: set[str]) -> str:
    matches = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


# ------------------------------------------------------------------------------- environment


def _environment_layer(environ: Mapping[str, str], problems: list[str]) -> Layer:
    paths = {variable_of(path): path for path in (*settings_by_path(), *SECRET_FILES)}
    found: dict[str, tuple[str, object]] = {}
    for name, text in environ.items():
        if name in paths:
            found[paths[name]] = (f"variable {name}", text)
        elif name.startswith(ENV_PREFIX) and not _NOT_OURS.fullmatch(name):
            near = _suggestion(name, {*paths, CONFIG_VARIABLE})
            problems.append(f"{name!r} (environment): no such variable{near}")
    return _layer(found)


# --------------------------------------------------------------------------------- conversion


def _converted(merged: Layer, problems: list[str]) -> dict[str, Any]:
    """Give raw values their types, and check each against its field's rule."""
    converter = _converter()
    resolve_from = get_path_converter_from(converter)
    values: dict[str, Any] = {}
    for path, attribute in settings_by_path().items():
        if path not in merged:
            continue
        raw, meta = merged[path]
        rule = attribute.metadata["rule"]
        value = None if raw == "none" and isinstance(rule, Optional) else raw
        try:
            with resolve_from.chdir(meta.base_dir):
                value = converter.structure(value, attribute.type)
        except Exception:  # noqa: BLE001  converters raise all sorts; what they refuse is wrong
            accepted = False
        else:
            accepted = raw != "" and rule.accepts(value)  # Path("") would be the directory
        if accepted:
            values[path] = value
        else:
            problems.append(f"{path} = {show(attribute, raw)} ({meta.name}): must be {rule}")
    return values


def _converter() -> Any:
    """Return typed-settings' converter without what it does in silence: 2.5 -> 2, 5 -> "5"."""
    converter: Any = default_converter()
    register_strlist_hook(converter, fn=lambda text: [item.strip() for item in text.split(",")])
    hooks: dict[type, Any] = {
        # What a hook leaves as it is, the field's rule refuses.
        int: lambda value, _: int(value) if isinstance(value, str) else value,
        float: lambda value, _: value if isinstance(value, bool) else float(value),
        str: lambda value, _: value,
        Address: lambda value, _: Address.parse(value),
        BrokerUrl: lambda value, _: BrokerUrl.parse(value),
        Secret: lambda value, _: Secret(value) if isinstance(value, str) else value,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    return converter


def _build(
    values: Mapping[str, Any],
    refused: AbstractSet[str],
    sources: Mapping[str, str],
    problems: list[str],
) -> Settings:
    """Build section by section, which checks the rules between the fields of each.

    Not those of a section with a refused value: a default in its place would be blamed.
    """
    top = {path: value for path, value in values.items() if "." not in path}
    for name, section in sections().items():
        prefix = f"{name}."
        if any(path.startswith(prefix) for path in refused):
            continue
        inner = {p.removeprefix(prefix): v for p, v in values.items() if p.startswith(prefix)}
        try:
            top[name] = section(**inner)
        except InvalidSetting as error:
            shown = ", ".join(f"{p} = {text} ({sources[p]})" for p, text in error.values.items())
            problems.append(f"{shown}: {error.allowed}")
    return Settings(**top)
