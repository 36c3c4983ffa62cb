"""What a pool must not leave behind: descriptors, threads, interpreters."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["interpreters", "nothing_left", "open_descriptors", "worker_threads"]

_DESCRIPTORS = Path("/dev/fd")


def open_descriptors() -> int:
    return len(list(_DESCRIPTORS.iterdir()))


def worker_threads() -> list[str]:
    """Trio's idle threads stay for their own while; a worker's has the worker's name."""
    kinds = tuple(f"{kind}-" for kind in KINDS)
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(kinds)]


def interpreters() -> int:
    """How many there are; the main one is one of them."""
    if not interpreters_work():
        return 1
    import _interpreters  # noqa: PLC0415  private, as in workers/interpreter.py

    return len(_interpreters.list_all())


@contextmanager
def nothing_left() -> Iterator[None]:
    before = open_descriptors(), interpreters()
    assert worker_threads() == []
    yield
    assert worker_threads() == []
    assert (open_descriptors(), interpreters()) == before
