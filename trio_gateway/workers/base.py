"""What a kind of worker is: a place where the loop of loop.py can run.

A kind is one file with one subclass, and one entry in pool.py's table. The pool never asks which
kind it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from attrs import frozen

__all__ = ["Job", "Runner"]


@frozen
class Job:
    """The arguments of `loop.run`: ints and a path, so they pass into any interpreter."""

    request_fd: int
    reply_fd: int
    slab: int
    slot_bytes: int
    packet_bytes: int
    library: str


class Runner(ABC):
    """A place to run the loop. All its methods block, each is called in a thread of its own."""

    kind: ClassVar[str]

    @abstractmethod
    def prepare(self) -> None:
        """Make the place. Called once, before the first `run`.

        Raises:
            WorkerFailed: It cannot be made; nothing is left of it.
        """

    @abstractmethod
    def run(self, job: Job) -> None:
        """Run the loop to its end. May be called again once it has returned.

        Raises:
            WorkerFailed: The loop raised. Nothing else may leave this method.
        """

    @abstractmethod
    def close(self) -> None:
        """Take the place down. Only while no `run` is under way.

        Raises:
            WorkerFailed: It cannot be taken down.
        """
