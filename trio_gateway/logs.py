"""Where log lines go and how they look: for people on a terminal, one JSON object a line elsewhere.

Tracebacks are plain text in both. structlog's own default prints the local variables of every
frame, and those hold keys and passwords.

Rule 1: who logs never waits. A pipe that nobody reads, a paused terminal or a hung disk would hold
the event loop, and with it every call; so a thread writes.
Rule 2: what cannot be written waits and is tried again, whole and in order. It is at most
`MAX_WAITING` bytes; what is logged beyond that is lost, counted, and the count is logged later.
Rule 3: a log call may interrupt another in the same thread, in a signal handler or a `__del__`. So
the only lock here is one that its owner may take again.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

import structlog
from attrs import frozen

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

RETRY_FULL: Final = 0.05
"""The same, to a full pipe that somebody has made non-blocking. A guess: 64 KiB fit in there, which
makes 1.3 MB/s. Waiting for room would take select(), which knows no descriptors above 1,023."""

FLUSH_TIMEOUT: Final = 0.5
"""Seconds that the end of the program waits for the last lines. A guess."""


class _Logger:
    """Writes whole lines, and knows the name that `get_logger` was given.

    structlog's own holds a lock meanwhile that its owner cannot take again: see rule 3.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self.name = name  # add_logger_name looks here

    def msg(self, line: str) -> None:
        """Write a line."""
        self._file.write(line + "\n")
        self._file.flush()

    debug = info = warning = error = critical = msg


@frozen
class _Loggers:
    """What structlog makes loggers with, for as long as this configuration lasts."""

    file: TextIO | _Sink

    def __call__(self, name: str = "") -> _Logger:
        return _Logger(cast("TextIO", self.file), name)

    def close(self) -> None:
        """Write what is left, if it waits anywhere."""
        if isinstance(self.file, _Sink):
            self.file.close()


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
    _close_the_one_before()
    sink = _sink(stream, processors)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=_Loggers(sink),
        # Cached loggers would ignore a later configuration, such as structlog.testing's.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast("TextIO", sink))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _close_the_one_before() -> None:
    """Two threads that write to one descriptor would cut each other's lines."""
    before = structlog.get_config()["logger_factory"]
    if isinstance(before, _Loggers):
        before.close()


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


def _sink(stream: TextIO, processors: list[Processor]) -> TextIO | _Sink:
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

    return _Sink(stream, notice)


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
        self._changed = threading.Condition()  # over a lock as rule 3 wants it
        self._leaving = threading.Event()
        self._over = False  # the thread takes no more lines
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> int:
        """Take a line; it may be lost."""
        data = self._encoded(text)
        with self._changed:
            if self._over:  # atexit functions log, too
                self._write_now(data)
            elif self._bytes + len(data) > MAX_WAITING:
                self._lost += 1
            else:
                self._waiting.append(data)
                self._bytes += len(data)
            self._changed.notify()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread is at it."""

    def close(self) -> None:
        """Write what is left: in `FLUSH_TIMEOUT` seconds, or not at all."""
        atexit.unregister(self.close)
        with self._changed:
            self._leaving.set()
            self._changed.notify()
        self._thread.join(FLUSH_TIMEOUT)

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, "backslashreplace")

    def _run(self) -> None:
        while lines := self._take():
            written = False
            with suppress(Exception):  # MemoryError: only the end of the program ends this thread
                written = self._write(b"".join(lines))
            if not written:
                self._leaving.wait(RETRY)
            with self._changed:
                self._bytes -= sum(map(len, lines))
                if not written:
                    self._lost += len(lines)
                    self._over = self._leaving.is_set()
                if self._over:
                    return

    def _take(self) -> list[bytes]:
        """Wait for lines and return all there are; none when the program ends."""
        with self._changed:
            while not (self._waiting or self._lost or self._leaving.is_set()):
                self._changed.wait()
            if self._lost:
                notice = b""
                with suppress(Exception):  # as in _run
                    notice = self._encoded(self._notice(self._lost))
                self._waiting.append(notice)
                self._bytes += len(notice)
                self._lost = 0
            lines, self._waiting = self._waiting, []
            self._over = not lines
            return lines

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes. False: the program ends and it cannot be."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody who shares it has made it so
                time.sleep(RETRY_FULL)
            except OSError:  # nobody to tell; a disk may have room again, a FIFO another reader
                if self._leaving.is_set():
                    return False
                self._leaving.wait(RETRY)
        return True

    def _write_now(self, data: bytes) -> None:
        """Write what is logged when the thread is gone, once."""
        if not self._stream.closed:  # else its number may be another's
            with suppress(OSError):
                os.write(self._descriptor, data)
