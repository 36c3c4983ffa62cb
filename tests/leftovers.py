"""What a pool must not leave behind: descriptors, threads, interpreters, codec states."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trio_gateway.workers import opus
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

__all__ = [
    "interpreters",
    "no_codec_state_left",
    "nothing_left",
    "open_descriptors",
    "worker_threads",
]

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
def nothing_left(*, kept: Sized = ()) -> Iterator[None]:
    """Descriptors, threads and interpreters are as before; `kept` are interpreters to leave out."""
    before = open_descriptors(), interpreters() - len(kept)
    assert worker_threads() == []
    yield
    assert worker_threads() == []
    assert (open_descriptors(), interpreters() - len(kept)) == before


@contextmanager
def no_codec_state_left() -> Iterator[None]:
    """All codec states made meanwhile are gone. Streams that are still referred to have theirs."""
    alive: weakref.WeakSet[Noted] = weakref.WeakSet()
    original = opus.OpusState

    class Noted(original):  # type: ignore[valid-type,misc]
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            alive.add(self)

    opus.OpusState = Noted  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        opus.OpusState = original  # type: ignore[misc]
    if alive:
        gc.collect()  # an exception and its traceback hold each other
    assert len(alive) == 0
