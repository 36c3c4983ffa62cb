"""Where it was measured: what a number without its machine is not worth."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict

from trio_gateway.bench.jobs import DECODE_RATE, ENCODE_RATE, FRAME_MS
from trio_gateway.bench.load import BUSY_PERIOD, BUSY_SLICE
from trio_gateway.metrics.cpu import usable_cores
from trio_gateway.workers.opus import library_path

if TYPE_CHECKING:
    from trio_gateway.settings import Settings

__all__ = ["cores", "facts", "headline"]


def cores() -> int:
    """Whole CPU cores that this process may use; at least 1."""
    return max(1, int(usable_cores()))


def facts(settings: Settings) -> dict[str, Any]:
    """The Python, the machine, and the settings in force, as JSON takes them."""
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        },
        "machine": {
            "platform": platform.platform(),
            "cpu": _cpu(),
            "cores": usable_cores(),
            "load_average": os.getloadavg()[0],
        },
        "settings": {
            "libopus": library_path(settings.pool.libopus),
            "frame_ms": FRAME_MS,
            "decode_rate": DECODE_RATE,
            "encode_rate": ENCODE_RATE,
            "bitrate": settings.audio.bitrate,
            "busy_slice_s": BUSY_SLICE,
            "busy_period_s": BUSY_PERIOD,
            "pool": asdict(settings.pool),
        },
    }


def headline() -> str:
    """The same in a line. Load of others is named, since it spoils every number but the ratios."""
    load = os.getloadavg()[0]
    return (
        f"Python {platform.python_version()}, {cores()} cores ({_cpu()}), load average {load:.1f}"
    )


def _cpu() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
