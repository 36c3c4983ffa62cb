"""Where log lines go and how they look: for people on a terminal, one JSON object a line elsewhere.

Tracebacks are plain text in both. structlog's own default prints the local variables of every
frame, and those hold keys and passwords.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from trio_gateway.settings import LogSettings

__all__ = ["configure"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


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
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    text = settings.format == "text" or (settings.format == "auto" and terminal)
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _clock(text=text),
    ]
    render = _renderer(text=text, colours=terminal)
    structlog.configure(
        processors=[*before, *render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda name="": _Logger(stream, name),
        # Cached loggers would ignore a later configuration, such as structlog.testing's.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
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
