from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from trio_gateway import logs
from trio_gateway.settings import LogSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def say_something() -> None:
    key = "swordfish"
    log = structlog.get_logger("trio_gateway.test")
    log.debug("unheard")
    log.info("session opened", device="evil\n\x1b[31mid", frames=3)
    try:
        _ = 1 // (len(key) - 9)
    except ZeroDivisionError:
        log.exception("failed")
    logging.getLogger("paho").info("unheard")
    logging.getLogger("paho").warning("from %s", "outside")


def test_json_where_no_terminal_is() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(), stream)
    say_something()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("session opened", "info", "trio_gateway.test"),
        ("failed", "error", "trio_gateway.test"),
        ("from outside", "warning", "paho"),
    ]
    assert list(lines[0])[:3] == ["timestamp", "level", "event"]
    assert lines[0]["device"] == "evil\n\x1b[31mid"
    assert lines[0]["frames"] == 3
    assert lines[0]["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in lines[1]["exception"]


def test_text_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure(LogSettings(), stream)
    say_something()
    text = stream.getvalue()
    assert "unheard" not in text
    for part in ("session opened", "trio_gateway.test", "Traceback", "from outside"):
        assert part in text


def test_a_device_cannot_write_lines_or_colours_of_its_own() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="text"), stream)
    structlog.get_logger("x").info("session opened", device="evil\n\x1b[31mid")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("kind", ["text", "json"])
def test_tracebacks_show_no_local_variables(kind: str) -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="text" if kind == "text" else "json"), stream)
    say_something()
    assert "ZeroDivisionError" in stream.getvalue()
    assert "swordfish" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 1)]
)
def test_level(level: str, count: int) -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(level=level), stream)  # type: ignore[arg-type]
    log = structlog.get_logger("x")
    log.debug("a")
    log.info("b")
    log.error("c")
    assert len(stream.getvalue().splitlines()) == count


def test_a_later_configuration_reaches_loggers_in_use() -> None:
    log = structlog.get_logger("x")
    first, second = io.StringIO(), io.StringIO()
    logs.configure(LogSettings(), first)
    log.info("a")
    logs.configure(LogSettings(), second)
    log.info("b")
    assert "b" not in first.getvalue()
    assert "b" in second.getvalue()
