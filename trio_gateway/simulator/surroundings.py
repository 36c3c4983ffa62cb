"""What devices share: one timer and one reader for all of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from trio_gateway.simulator.lines import DatagramLine, DatagramLines
from trio_gateway.timers import Timers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["RealSurroundings"]


@define(eq=False)
class RealSurroundings:
    """Real time and real sockets; implements `handset.Surroundings`."""

    _timers: Timers = field(init=False)
    _lines: DatagramLines = field(init=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep them going. Whoever lives in them has to be gone when this is left."""
        self._timers, self._lines = Timers(), DatagramLines()
        with self._lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._timers.run)
                nursery.start_soon(self._lines.run)
                yield
                nursery.cancel_scope.cancel()

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        """See Surroundings."""
        self._timers.call_at(deadline, callback)

    async def open_line(
        self, server: tuple[str, int], receive: Callable[[bytes], None]
    ) -> DatagramLine:
        """See Surroundings."""
        return await self._lines.open(server, receive)

    async def next_turn(self) -> None:
        """See Surroundings."""
        await trio.lowlevel.checkpoint()
