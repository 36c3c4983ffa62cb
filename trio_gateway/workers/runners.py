"""The places where workers run: made, parked, used again, taken down at the end.

Rule 1: a runner is parked when its worker has ended and used again, because interpreters are dear:
3.13 leaks 3 MB with each that is destroyed.
Rule 2: what blocks is done in a thread and bounded. A runner that is not made in time is given up,
and taken down by the thread that makes it, should it ever come that far.
"""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.errors import WorkerFailed
from trio_gateway.groups import sole_errors
from trio_gateway.workers.loop import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_gateway.workers.base import Runner

__all__ = ["MAKE_TIMEOUT", "Runners"]

log = structlog.get_logger(__name__)

# Seconds for a runner to be made. Measured: 25 ms for an interpreter; 400 times that is a guess.
MAKE_TIMEOUT = 10.0


class Runners:
    """Those that no worker has.

    Args:
        kinds: Kinds of worker by name.

    Attributes:
        parked: Ready to be used again.
    """

    def __init__(self, kinds: Mapping[str, type[Runner]]) -> None:
        self.parked: list[Runner] = []
        self._kinds = kinds
        self._making = trio.CancelScope(shield=True)
        self._latest = inf

    async def take(self, kind: str) -> Runner:
        """A parked one, or a new one of this kind.

        Cancelled, it makes it all the same, and parks it: an interpreter should not be left alone
        while it is made.

        Raises:
            WorkerFailed: It cannot be made.
        """
        for runner in reversed(self.parked):
            if runner.kind == kind:
                self.parked.remove(runner)
                return runner
        runner = self._kinds[kind]()
        settled = threading.Lock()  # by the first: the thread when it is made, or we, who give up

        def make() -> None:
            runner.prepare()
            if not settled.acquire(blocking=False):
                runner.close()

        self._making = trio.CancelScope(shield=True)
        self._making.deadline = min(trio.current_time() + MAKE_TIMEOUT, self._latest)
        try:
            await _in_a_thread(make, self._making)
        except WorkerFailed:
            raise
        except Exception as error:  # no thread, no memory, no descriptors
            raise WorkerFailed(describe(error)) from error
        except BaseException:  # cancelled, or Ctrl-C
            if not settled.acquire(blocking=False):
                self.parked.append(runner)
            raise
        if settled.acquire(blocking=False):
            raise WorkerFailed(f"{runner.kind}: not made in {MAKE_TIMEOUT:g} s")
        return runner

    def hurry(self, deadline: float) -> None:
        """Give up one that is not made by then."""
        self._latest = deadline
        self._making.deadline = min(self._making.deadline, deadline)

    async def take_down(self, deadline: float) -> None:
        """Take down those that are parked. One that is not done by then is left to its thread."""
        while self.parked:
            runner = self.parked.pop()
            scope = trio.CancelScope(shield=True, deadline=deadline)
            try:
                await _in_a_thread(runner.close, scope)
            except WorkerFailed as error:
                log.warning("runner not taken down", kind=runner.kind, why=str(error))
            if scope.cancelled_caught:
                log.warning("runner not taken down", kind=runner.kind, why="it takes too long")


async def _in_a_thread(work: Callable[[], None], scope: trio.CancelScope) -> None:
    """Nothing but `scope` ends this early. A Ctrl-C that wakes the main task waits, too."""
    failure: Exception | None = None

    async def perform() -> None:
        nonlocal failure
        with scope:
            try:
                await trio.to_thread.run_sync(
                    work, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
            except Exception as error:  # noqa: BLE001  raised below, and not in a group
                failure = error

    with sole_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(perform)
    if failure is not None:
        raise failure
