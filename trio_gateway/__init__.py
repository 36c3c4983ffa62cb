"""A voice gateway for MQTT devices that scales its own codec workers.

Names are loaded when they are first used (PEP 562): a codec worker imports this package inside an
isolated interpreter, where numpy, cryptography and psutil refuse to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_gateway.gateway import Gateway, open_gateway
    from trio_gateway.session import Session
    from trio_gateway.settings import PoolSettings, Settings
    from trio_gateway.utterance import Utterance
    from trio_gateway.workers.pool import WorkerPool, open_worker_pool
    from trio_gateway.workers.statistics import PoolStatistics
    from trio_gateway.workers.stream import Decoder, Encoder

__all__ = [
    "Decoder",
    "Encoder",
    "Gateway",
    "PoolSettings",
    "PoolStatistics",
    "Session",
    "Settings",
    "Utterance",
    "WorkerPool",
    "open_gateway",
    "open_worker_pool",
]

_HOMES = {
    "Decoder": "workers.stream",
    "Encoder": "workers.stream",
    "Gateway": "gateway",
    "PoolSettings": "settings",
    "PoolStatistics": "workers.statistics",
    "Session": "session",
    "Settings": "settings",
    "Utterance": "utterance",
    "WorkerPool": "workers.pool",
    "open_gateway": "gateway",
    "open_worker_pool": "workers.pool",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
