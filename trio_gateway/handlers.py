"""The handlers that run now, so that one that does not end can be called by its name.

Trio cannot abandon a task. What it can tell is where the task waits, which is what its author has
to know.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio_gateway.session import Session

__all__ = ["Handlers"]

log = structlog.get_logger(__name__)

PATIENCE = 0.25
"""Seconds from a handler's cancellation until it is said to hang, when a drain has ended its call.
A guess: closing a connection takes a round trip."""


class Handlers:
    """Those that `watched` ones have begun."""

    def __init__(self) -> None:
        self._tasks: dict[Session, trio.lowlevel.Task] = {}
        self._none = trio.Event()

    def watched(
        self, handler: Callable[[Session], Awaitable[None]]
    ) -> Callable[[Session], Awaitable[None]]:
        """The same handler, and known here while it runs."""

        async def watched(session: Session) -> None:
            self._tasks[session] = trio.lowlevel.current_task()
            try:
                await handler(session)
            finally:
                del self._tasks[session]
                if not self._tasks:
                    self._none.set()

        return watched

    async def wait_gone(self, patience: float = PATIENCE) -> None:
        """Return when there are none, or, after so many seconds, with a word on each in the log.

        Cancelled, it says so at once, and does not call it hanging: they had no time.
        """
        self._none = trio.Event()
        try:
            if self._tasks:
                with trio.move_on_after(patience):
                    await self._none.wait()
        except trio.Cancelled:
            self._name_them(log.warning, "handler still running when cut short")
            raise
        self._name_them(log.error, "handler does not end")

    def _name_them(self, say: Callable[..., object], event: str) -> None:
        for session, task in self._tasks.items():
            say(
                event,
                session=session.id,
                device=session.device.text,
                stack="".join(_stacks(task)),
            )


def _stacks(task: trio.lowlevel.Task) -> Iterator[str]:
    """Where a task waits, and where its children do."""
    yield f"{task.name}\n"
    yield from traceback.StackSummary.extract(task.iter_await_frames()).format()
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _stacks(child)
