"""Workers on cores of their own. Linux: for sched_setaffinity(2), pid 0 is the calling thread."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["least_used_core", "pinned"]


log = structlog.get_logger(__name__)


def least_used_core(taken: Iterable[int | None]) -> int | None:
    """The core with the fewest of these, among those that the calling thread may use.

    Args:
        taken: The core of each worker that there is.
    """
    if sys.platform != "linux":
        return None
    cores = list(taken)
    return min(sorted(os.sched_getaffinity(0)), key=cores.count)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep the calling thread on one core, or where it may be anyway for None.

    Its old cores are its own again afterwards: Trio uses the thread for other things. A core that
    was taken from this program meanwhile is a warning and no more.
    """
    if core is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        log.warning("worker not pinned", core=core, why=error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):  # taken away, too: it stays where it is
            os.sched_setaffinity(0, before)
