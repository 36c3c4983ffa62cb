"""Invariant: settings that are valid survive TOML and variables; garbage raises SettingsError only.

The naive model of a TOML writer and of the variables is a dozen lines below.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_gateway.configuration import load_settings, variable_of
from trio_gateway.errors import SettingsError
from trio_gateway.settings import (
    Address,
    BrokerUrl,
    Secret,
    Settings,
    mask_url,
    sections,
    settings_by_path,
)
from trio_gateway.settings.rules import (
    Choice,
    Each,
    Instance,
    Number,
    Optional,
    Rule,
    Switch,
    Text,
    Whole,
)
from trio_gateway.settings.values import MASK

PATHS = settings_by_path()

# Alphabets and bytes instead of st.text() and from_regex: those build a table of all of Unicode at
# first use, which takes more than a second on a fresh machine and trips a health check.
words = st.text("aZ9 \"\\'#=,\t\né🎙", min_size=1, max_size=12)
names = st.text("abcxyz019-", min_size=1, max_size=9)
anything = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
hosts = st.sampled_from(["127.0.0.1", "::1", "localhost"]) | st.ip_addresses().map(str) | names
addresses = st.builds(Address, hosts, st.integers(0, 65535))
instances = {
    Address: addresses,
    Path: names.map(lambda name: Path("/etc", name)),
    BrokerUrl: st.builds(BrokerUrl, st.booleans(), st.builds(Address, names, st.integers(1, 65535)))
    | st.builds(
        BrokerUrl,
        st.booleans(),
        st.builds(Address, hosts, st.integers(1, 65535)),
        words,
        st.none() | words.map(Secret),
    ),
    Secret: words.filter(lambda text: text != "none").map(Secret),
}


def values(rule: Rule) -> st.SearchStrategy[Any]:  # noqa: PLR0911  one for each kind of rule
    match rule:
        case Optional():
            return st.none() | values(rule.rule)
        case Whole():
            return st.integers(rule.low, rule.high if rule.high is not None else 1 << 40)
        case Number():
            high = min(rule.high, 1e9)
            return st.floats(rule.low, high, exclude_min=not rule.closed)
        case Switch():
            return st.booleans()
        case Choice():
            return st.sampled_from(rule.options)
        case Each():
            return st.lists(values(rule.rule), min_size=1, max_size=3).map(tuple)
        case Instance():
            return instances[rule.of].filter(rule.accepts)
        case Text():
            # "none" means None, by design; a comma ends an item of a list in a variable.
            start = st.sampled_from(["", "a/{client_id}/"])
            return st.builds(str.__add__, start, names).filter(
                lambda text: text != "none" and rule.accepts(text)
            )
        case _:
            raise AssertionError(rule)


@st.composite
def settings_trees(draw: st.DrawFn) -> Settings:
    """Valid trees in which a few values differ from the defaults."""
    paths = draw(st.sets(st.sampled_from(sorted(PATHS)), max_size=6))
    chosen = {path: draw(values(PATHS[path].metadata["rule"])) for path in sorted(paths)}
    tree = Settings()
    try:
        for name in sections():
            inner = {p.partition(".")[2]: v for p, v in chosen.items() if p.startswith(f"{name}.")}
            tree = evolve(tree, **{name: evolve(getattr(tree, name), **inner)})
    except SettingsError:
        assume(False)  # a rule between fields
    return evolve(tree, **{path: value for path, value in chosen.items() if "." not in path})


def plain(value: object) -> Any:
    """What a person would write: no objects."""
    match value:
        case None:
            return "none"
        case Secret():
            return value.reveal()
        case BrokerUrl(password=Secret() as password):
            return str(value).replace(f":{MASK}@", f":{quote(password.reveal(), safe='')}@")
        case Address() | Path() | BrokerUrl():
            return str(value)
        case tuple():
            return list(value)
        case _:
            return value


def plain_values(tree: Settings) -> dict[str, Any]:
    found = {}
    for path in PATHS:
        value: Any = tree
        for name in path.split("."):
            value = getattr(value, name)
        found[path] = plain(value)
    return found


def toml(tree: Settings) -> str:
    lines = []
    for path, value in plain_values(tree).items():
        # A TOML basic string is a JSON string, but for DEL, which TOML wants escaped.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{path} = {text}")
    return "\n".join(lines)


@given(settings_trees())
def test_toml_and_back(tree: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.toml"
        file.write_text(toml(tree), encoding="utf-8", newline="")
        assert load_settings(file, environ={}).settings == tree


@given(settings_trees())
def test_variables_and_back(tree: Settings) -> None:
    environ = {
        variable_of(path): ",".join(value) if isinstance(value, list) else str(value)
        for path, value in plain_values(tree).items()
    }
    assert load_settings(environ=environ).settings == tree


garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(PATHS)), garbage, max_size=4))
def test_garbage_is_a_settings_error_of_single_lines(raw: dict[str, object]) -> None:
    defaults = {path: ("garbage", value) for path, value in raw.items()}
    report = ""
    try:
        loaded = load_settings(environ={}, defaults=defaults)
    except SettingsError as error:
        report = str(error)
    if report:
        assert len(report.split("\n")) <= len(raw)
        assert report.replace("\n", "").isprintable()
    else:
        for path, attribute in PATHS.items():
            value: Any = loaded.settings
            for name in path.split("."):
                value = getattr(value, name)
            assert attribute.metadata["rule"].accepts(value)


@given(st.dictionaries(anything, garbage, max_size=3), st.binary(max_size=60))
def test_any_file_gives_settings_or_a_settings_error(keys: dict[str, object], tail: bytes) -> None:
    lines = [f"{json.dumps(key)} = {json.dumps(str(value))}" for key, value in keys.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.toml"
        head = "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
        file.write_bytes(head + tail)
        with suppress(SettingsError):
            load_settings(file, environ={})


@given(anything)
def test_texts_that_are_no_address_or_url_say_so(text: str) -> None:
    for parse in (Address.parse, BrokerUrl.parse):
        try:
            parsed: Address | BrokerUrl = parse(text)
        except SettingsError:
            continue
        if isinstance(parsed, Address):
            assert Address.parse(str(parsed)) == parsed


@given(
    anything,
    st.text("abcABC/@:%?#[] \n", min_size=1),
    st.sampled_from(["mqtt://", "mqtt:/", "mqtt:", ""]),
    st.sampled_from(["@broker:1883", "@broker", "@[::1]", "@broker/topic", "", "/", ":1883", "?"]),
)
def test_a_password_never_survives_masking(user: str, password: str, start: str, end: str) -> None:
    user = user.replace(":", "").replace("@", "").replace("/", "")
    marked = f"<{password}>"
    masked = mask_url(f"{start}{user}:{marked}{end}")
    assert marked not in masked
    if end.startswith("@"):
        assert "<" not in masked.removeprefix(f"{start}{user}:")
        shown = end if "topic" not in end else "@broker/***"
        assert masked.endswith(f"***{shown}")
    elif "@" not in marked:  # else the password may as well end there, and a host begin
        assert ">" not in masked.replace(user, "")
        assert masked.endswith("***")
