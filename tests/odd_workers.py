"""Kinds of worker made for tests: they die, lie, hang or never start, and otherwise do their work.

They are threads, and take the place of "thread" in the table of kinds. A frame that is a trap for
them is known by its length, the only thing that a worker sees of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers import loop
from trio_gateway.workers.base import Runner
from trio_gateway.workers.codec import Codec
from trio_gateway.workers.wire import COMPLETION, READY, REQUEST_BYTES, TICKET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_gateway.workers.base import Job
    from trio_gateway.workers.loop import Perform

__all__ = ["Behaviour", "Trap", "kinds_of", "read_tickets", "report", "work"]

Behaviour: TypeAlias = "Callable[[Job], None]"


def kinds_of(*behaviours: Behaviour) -> Mapping[str, type[Runner]]:
    """A table of kinds: the first worker does the first of these, and so on; then the last."""
    left = list(behaviours)

    class Odd(Runner):
        kind = "thread"

        def prepare(self) -> None:
            pass

        def run(self, job: Job) -> None:
            behave = left.pop(0) if len(left) > 1 else left[0]
            try:
                behave(job)
            except Exception as error:
                raise WorkerFailed(loop.describe(error)) from error

        def close(self) -> None:
            pass

    return {"thread": Odd}


def work(job: Job, around: Callable[[Perform], Perform] = lambda perform: perform) -> None:
    """The real loop and the real libopus, with something around each call."""
    perform = around(Codec(job.library).perform)
    loop.work(perform, job.request_fd, job.reply_fd, job.slab, job.slot_bytes, job.packet_bytes)


class Trap:
    """What happens instead of libopus when a worker comes to a certain frame.

    Args:
        length: Bytes of the packet to decode, or samples of the frame to encode or conceal.
        act: Called in the worker's thread.
        times: How often; after that the frame is a frame.
    """

    def __init__(self, length: int, act: Callable[[], int], *, times: int = 1) -> None:
        self.length = length
        self.act = act
        self.left = times

    def __call__(self, job: Job) -> None:
        """Behave: work until the frame comes."""
        work(job, self._around)

    def _around(self, perform: Perform) -> Perform:
        def trapped(
            operation: int, state: Any, packet: Any, length: int, pcm: Any, samples: int
        ) -> int:
            if self.left and self.length in (length, samples):
                self.left -= 1
                return self.act()
            return perform(operation, state, packet, length, pcm, samples)

        return trapped


def report(job: Job, number: int = READY, result: int = 0) -> None:
    """Write one completion."""
    os.write(job.reply_fd, COMPLETION.pack(number, result, 0))


def read_tickets(job: Job) -> list[int]:
    """Wait for tickets; return their numbers, none at end-of-file."""
    return [ticket[1] for ticket in TICKET.iter_unpack(os.read(job.request_fd, REQUEST_BYTES))]
