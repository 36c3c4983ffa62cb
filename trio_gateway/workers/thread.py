"""Workers that are threads of the main interpreter. libopus runs without the GIL."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import astuple

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers import loop
from trio_gateway.workers.base import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.workers.base import Job

__all__ = ["ThreadRunner", "switching_every"]


@contextmanager
def switching_every(seconds: float | None) -> Iterator[None]:
    """Have `sys.setswitchinterval(seconds)` inside, or leave it alone for None.

    A worker that comes back from libopus waits this long, at worst, for a GIL that somebody holds.
    """
    before = sys.getswitchinterval()
    if seconds is not None:
        sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        if seconds is not None:
            sys.setswitchinterval(before)


class ThreadRunner(Runner):
    """The calling thread itself."""

    kind = "thread"

    def prepare(self) -> None:
        """Nothing to make."""

    def run(self, job: Job) -> None:
        """Run the loop here."""
        try:
            loop.run(*astuple(job))
        except BaseException as error:
            raise WorkerFailed(loop.describe(error)) from error

    def close(self) -> None:
        """Nothing to take down."""
