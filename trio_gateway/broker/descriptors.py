"""How many connections this process can hold, whatever the settings say.

Who floods an endpoint that runs out of file descriptors keeps everybody out: `accept` fails, so
nobody can be preferred to anybody, and the rest of the program cannot open a file either.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import structlog
from attrs import evolve

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from trio_gateway.settings import MqttSettings

__all__ = ["within_descriptors"]

log = structlog.get_logger(__name__)

SPARE = 128
"""For all that is no connection of ours. A guess: 8 workers have 32. Of fewer than 256, a half."""

PENDING_SHARE = 4
"""Strangers get a quarter of too few descriptors, and what clients could not use. A guess."""


def within_descriptors(settings: MqttSettings) -> MqttSettings:
    """Return the settings, with lower bounds on connections if there cannot be so many."""
    limit = _most_open_files()
    wanted = settings.max_clients + settings.max_pending + SPARE
    if limit >= wanted:
        return settings
    room = int(max(limit - SPARE, limit // 2))
    pending = max(1, room // PENDING_SHARE, room - settings.max_clients)
    pending = min(pending, settings.max_pending)
    lower = evolve(
        settings,
        max_pending=pending,
        max_pending_per_address=min(settings.max_pending_per_address, pending),
        max_clients=min(settings.max_clients, max(1, room - pending)),
    )
    log.warning(
        "too few file descriptors for all connections that the settings allow",
        limit=limit,
        wanted=wanted,
        max_clients=lower.max_clients,
        max_pending=lower.max_pending,
        fix="raise `ulimit -n`, or lower mqtt.max_clients and mqtt.max_pending",
    )
    return lower


def _most_open_files() -> float:
    if sys.platform == "win32":
        return math.inf  # sockets are not files there
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
