"""How many connections this process can hold, whatever the settings say.

Who floods an endpoint that runs out of file descriptors keeps everybody out: `accept` fails, so
nobody can be preferred to anybody, and the rest of the program cannot open a file either.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import structlog

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from trio_gateway.settings import MqttSettings

__all__ = ["room_for_pending"]

log = structlog.get_logger(__name__)

SPARE = 128
"""For all that is no connection of ours. A guess: 8 workers have 32."""

PENDING_SHARE = 4
"""Strangers get at most a quarter of too few descriptors. A guess: clients are worth more."""


def room_for_pending(settings: MqttSettings) -> int:
    """Return `max_pending`, or what there can be of it; say so if that is less."""
    limit = _most_open_files()
    wanted = settings.max_clients + settings.max_pending + SPARE
    if limit >= wanted:
        return settings.max_pending
    room = min(settings.max_pending, max(1, int(limit) // PENDING_SHARE))
    log.warning(
        "too few file descriptors for all connections that the settings allow",
        limit=limit,
        wanted=wanted,
        max_pending=room,
        fix="raise `ulimit -n`, or lower mqtt.max_clients and mqtt.max_pending",
    )
    return room


def _most_open_files() -> float:
    if sys.platform == "win32":
        return math.inf  # sockets are not files there
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
