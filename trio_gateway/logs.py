"""Where log lines go and how they look: for people on a terminal, one JSON object a line elsewhere.

Tracebacks are plain text in both. structlog's own default prints the local variables of every
frame, and those hold keys and passwords.

Rule 1: who logs never waits. A pipe that nobody reads, a paused terminal or a hung disk would hold
the event loop, and with it every call; so a thread writes.
Rule 2: what cannot be written waits and is tried again, whole and in order. It is at most
`MAX_WAITING` bytes; what is logged beyond that is lost, counted, and the count is logged later.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import select
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor

    from trio_gateway.settings import LogSettings

__all__ = ["configure"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

MAX_WAITING: Final = 1 << 20
"""Bytes. A guess: 4,000 lines, which is the hello and the goodbye of 1,000 calls twice over."""

RETRY: Final = 1.0
"""Seconds between two attempts to write to what refuses. A guess."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that the end of the program waits for the last lines. A guess."""


class _Logger(structlog.WriteLogger):
    """Writes whole lines, and knows the name that `get_logger` was given."""

    def __init__(self, file: TextIO, name: str) -> None:
        super().__init__(file)
        self.name = name  # add_logger_name looks here


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog, and the standard library's logging behind it, for the whole program.

    Never called when a gateway is embedded: then the log belongs to the program around it.
    Libraries (paho, asyncio) are heard from warning on.

    Args:
        settings: Level and format.
        stream: Instead of standard error.
    """
    if stream is None:  # `2>&-`: there is no standard error
        stream = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115  until the program ends
    terminal = stream.isatty()
    text = settings.format == "text" or (settings.format == "auto" and terminal)
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _clock(text=text),
    ]
    render = _renderer(text=text, colours=terminal)
    processors = [*before, *render]
    sink = _sink(stream, processors)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda name="": _Logger(sink, name),
        # Cached loggers would ignore a later configuration, such as structlog.testing's.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _clock(*, text: bool) -> Processor:
    """People want to compare with the clock on the wall, programs with each other."""
    if text:
        return structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    return structlog.processors.TimeStamper(fmt="iso", utc=True)


def _renderer(*, text: bool, colours: bool) -> list[Any]:
    if text:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        _headline_first,
        structlog.processors.JSONRenderer(),
    ]


def _headline_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    """People read JSON lines too, from the left."""
    return {key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event)


def _sink(stream: TextIO, processors: list[Processor]) -> TextIO:
    """What may hold up its writer gets a thread; memory does not."""
    try:
        stream.fileno()
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return stream

    def notice(lost: int) -> str:
        line = io.StringIO()
        log = structlog.wrap_logger(
            _Logger(line, __name__),
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        )
        log.warning("log lines lost", lines=lost)
        return line.getvalue()

    sink = _Sink(stream, notice)
    atexit.register(sink.close)
    return cast("TextIO", sink)


class _Sink:
    """Lines in, from any thread; out through one thread.

    It writes to the descriptor and not to the stream: Python flushes its streams when it ends, and
    aborts if a thread is stuck inside of one.

    Args:
        stream: Where to.
        notice: Returns the line that says how many were lost.
    """

    def __init__(self, stream: TextIO, notice: Callable[[int], str]) -> None:
        self._stream = stream  # kept: if it were collected, its number might soon be a socket's
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding
        self._notice = notice
        self._waiting: list[bytes] = []
        self._bytes = 0  # those that are being written included
        self._lost = 0
        self._changed = threading.Condition()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take a line; it may be lost."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._bytes + len(data) > MAX_WAITING:
                self._lost += 1
            else:
                self._put(data)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread is at it."""

    def close(self) -> None:
        """Write what is left: in `FLUSH_TIMEOUT` seconds, or not at all."""
        with self._changed:
            self._leaving.set()
            self._changed.notify()
        self._thread.join(FLUSH_TIMEOUT)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._changed.notify()

    def _run(self) -> None:
        while data := self._take():
            if not self._write(data):
                return
            with self._changed:
                self._bytes -= len(data)
                if self._lost:
                    self._put(self._notice(self._lost).encode(self._encoding, "backslashreplace"))
                    self._lost = 0

    def _take(self) -> bytes:
        """Wait for lines and return all there are; none when the program ends."""
        with self._changed:
            while not self._waiting and not self._leaving.is_set():
                self._changed.wait()
            data = b"".join(self._waiting)
            self._waiting.clear()
            return data

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes. False: the program ends and it cannot be."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody who shares it has made it so
                select.select([], [self._descriptor], [])
            except OSError:  # nobody to tell; a disk may have room again, a FIFO another reader
                if self._leaving.is_set():
                    return False
                self._leaving.wait(RETRY)
        return True
