from __future__ import annotations

import gc
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest
import structlog

from trio_gateway import logs
from trio_gateway.settings import LogSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


# What cannot be written, and who logs it nevertheless.


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logs._Sink]]:
    """Those that the test makes. They are not left to the end of the program."""
    made: list[logs._Sink] = []

    class Noted(logs._Sink):
        def __init__(self, stream: TextIO, notice: Callable[[int], str]) -> None:
            super().__init__(stream, notice)
            made.append(self)

    monkeypatch.setattr(logs, "_Sink", Noted)
    monkeypatch.setattr(logs, "RETRY", 0.01)
    yield made
    for sink in made:
        sink.close()
        assert not sink._thread.is_alive()


def wait_until(true: Callable[[], bool]) -> None:
    """Another thread does it, and tells nobody."""
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines_of(data: str) -> list[tuple[str, object]]:
    lines = map(json.loads, data.splitlines())
    return [(line["event"], line.get("number", line.get("lines"))) for line in lines]


def test_lines_reach_a_file_in_order_and_the_last_ones_at_the_end(
    tmp_path: Path, sinks: list[logs._Sink]
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogSettings(), stream)
        log = structlog.get_logger("x")
        for number in range(3000):
            log.info("\u00fc", number=number)
        sinks[0].close()
    assert lines_of(path.read_text()) == [("\u00fc", number) for number in range(3000)]


def test_a_pipe_that_nobody_reads_holds_up_nobody(
    sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING", 300_000)
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream, os.fdopen(read_end) as reader:
        logs.configure(LogSettings(), stream)
        log = structlog.get_logger("x")
        for number in range(6000):
            log.info("said", number=number)  # it would be for ever
        read: list[tuple[str, object]] = []
        while not read or read[-1][0] != "log lines lost":
            read += lines_of(reader.readline())
    kept = [number for event, number in read if event == "said"]
    assert kept == list(range(len(kept))), "whole, in order"
    assert len(kept) > 2000
    lost = read[-1][1]
    assert isinstance(lost, int)
    assert len(kept) + lost == 6000


@pytest.mark.parametrize("level", ["info", "error"])
def test_a_full_disk_is_tried_again_and_nothing_is_lost_that_has_room(
    tmp_path: Path, sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING", 2000)
    path = tmp_path / "log"
    with Path("/dev/full").open("w") as stream, path.open("w") as disk:
        logs.configure(LogSettings(level=level), stream)  # type: ignore[arg-type]
        log = structlog.get_logger("x")
        for number in range(100):
            log.error("said", number=number)
        assert sinks[0]._bytes <= 2000
        os.dup2(disk.fileno(), stream.fileno())  # there is room again
        wait_until(lambda: "log lines lost" in path.read_text())
    *said, (event, lost) = lines_of(path.read_text())
    assert said == [("said", number) for number in range(len(said))]
    assert event == "log lines lost"
    assert len(said) > 10
    assert lost == 100 - len(said)


def test_the_end_does_not_wait_for_a_disk_that_stays_full(sinks: list[logs._Sink]) -> None:
    with Path("/dev/full").open("w") as stream:
        logs.configure(LogSettings(), stream)
        structlog.get_logger("x").info("said")
        sinks[0].close()
        assert not sinks[0]._thread.is_alive()


def test_a_line_that_the_disk_took_half_of_is_completed(
    sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, calls = os.write, 0

    def half(descriptor: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls % 2:
            return write(descriptor, data[: len(data) // 2 or 1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trio_gateway.logs.os.write", half)
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogSettings(), stream)
        structlog.get_logger("x").info("said", number=1)
        wait_until(lambda: path.read_text().endswith("\n"))
    assert lines_of(path.read_text()) == [("said", 1)]


def test_no_standard_error_at_all(sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    logs.configure(LogSettings())
    structlog.get_logger("x").info("said")
    gc.collect()
    os.fstat(sinks[0]._descriptor)
    sinks[0].close()
    sinks[0]._stream.close()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes there always block")
def test_a_pipe_that_somebody_made_non_blocking(sinks: list[logs._Sink]) -> None:
    """Also one with a number that select() does not take."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        read_end, write_end = os.pipe()
        high = os.dup2(write_end, 2000)
        os.close(write_end)
        os.set_blocking(high, False)
        with os.fdopen(high, "w") as stream, os.fdopen(read_end, "rb", 0) as reader:
            os.set_blocking(read_end, False)
            logs.configure(LogSettings(), stream)
            log = structlog.get_logger("x")
            for number in range(3000):  # 64 KiB fit in
                log.info("said", number=number)
            read = bytearray()

            def all_is_read() -> bool:
                read.extend(reader.read(1 << 16) or b"")
                return read.count(b"\n") == 3000

            wait_until(all_is_read)
            sinks[0].close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert lines_of(read.decode()) == [("said", number) for number in range(3000)]


def test_what_goes_wrong_while_writing_is_told_and_does_not_end_it(
    sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, failed = os.write, threading.Event()

    def fail_once(descriptor: int, data: memoryview) -> int:
        if not failed.is_set():
            failed.set()
            raise MemoryError
        return write(descriptor, data)

    monkeypatch.setattr("trio_gateway.logs.os.write", fail_once)
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogSettings(), stream)
        log = structlog.get_logger("x")
        log.info("lost", number=1)
        assert failed.wait(5)
        log.info("said", number=2)
        wait_until(lambda: path.read_text().count("\n") == 2)
        monkeypatch.setattr(sinks[0], "_notice", fail_once)  # of wrong arguments: it raises
        log.info("x" * logs.MAX_WAITING)
        wait_until(lambda: not sinks[0]._lost)
        log.info("said", number=3)
        wait_until(lambda: path.read_text().count("\n") == 3)
    assert sorted(lines_of(path.read_text())) == [("log lines lost", 1), ("said", 2), ("said", 3)]


def test_a_log_call_that_interrupts_another(
    sinks: list[logs._Sink], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a signal handler's does, or that of a `__del__`."""
    write = logs._Sink.write

    def interrupted(self: logs._Sink, text: str) -> int:
        if "handler" not in text:
            structlog.get_logger("x").info("handler", number=2)
        return write(self, text)

    monkeypatch.setattr(logs._Sink, "write", interrupted)
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogSettings(), stream)
        log = structlog.get_logger("x")
        thread = threading.Thread(target=log.info, args=("said",), kwargs={"number": 1})
        thread.daemon = True
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), "it waits for itself"
        sinks[0].close()
    assert lines_of(path.read_text()) == [("handler", 2), ("said", 1)]


def test_configured_again_it_has_one_thread_and_all_lines(
    sinks: list[logs._Sink], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        for number in range(10):
            logs.configure(LogSettings(), stream)
            structlog.get_logger("x").info("said", number=number)
        assert [sink._thread.is_alive() for sink in sinks] == [False] * 9 + [True]
        sinks[-1].close()
    assert lines_of(path.read_text()) == [("said", number) for number in range(10)]


def test_a_line_that_is_too_long_is_missed_though_nothing_follows(
    sinks: list[logs._Sink], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs.configure(LogSettings(), stream)
        structlog.get_logger("x").info("x" * logs.MAX_WAITING)
        wait_until(lambda: path.read_text().endswith("\n"))
    assert lines_of(path.read_text()) == [("log lines lost", 1)]


LAST_WORDS = """
import atexit, structlog
atexit.register(lambda: structlog.get_logger("x").error("last words"))
from trio_gateway import logs
from trio_gateway.settings import LogSettings
logs.configure(LogSettings())
structlog.get_logger("x").error("before")
"""


def test_what_is_logged_when_the_thread_has_ended() -> None:
    result = subprocess.run(  # noqa: S603  a program of ours
        [sys.executable, "-c", LAST_WORDS], capture_output=True, text=True, timeout=30, check=True
    )
    assert [event for event, _ in lines_of(result.stderr)] == ["before", "last words"]
