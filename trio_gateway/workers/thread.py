"""Workers that are threads of the main interpreter. libopus runs without the GIL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import astuple

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers import loop
from trio_gateway.workers.base import Runner

if TYPE_CHECKING:
    from trio_gateway.workers.base import Job

__all__ = ["ThreadRunner"]


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
