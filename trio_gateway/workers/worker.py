"""One worker: a Trio task that owns a thread, two pipes and a cancel scope.

Rule 1: draining is end-of-file. `retire` hands out no more, writes STOP, closes the write end. The
loop finishes what it was given, reads the end and returns; nothing can be lost.
Rule 2: cancelling the scope is the same as `retire`. What follows is shielded, and bounded by the
drain timeout: a worker that is still inside libopus then is abandoned, its memory never reused.
Rule 3: each end of a pipe has one owner. The thread closes its two ends when the loop has returned,
the task closes the others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers.base import Job
from trio_gateway.workers.codec import STOP
from trio_gateway.workers.dispatch import Lane
from trio_gateway.workers.slab import MAX_PACKET_BYTES, SLOT_BYTES
from trio_gateway.workers.statistics import WorkerStatistics
from trio_gateway.workers.wire import REQUEST_BYTES, TICKET

if TYPE_CHECKING:
    from trio_gateway.workers.base import Host
    from trio_gateway.workers.dispatch import Dispatcher
    from trio_gateway.workers.statistics import WorkerState

__all__ = ["Worker"]

log = structlog.get_logger(__name__)

_STOP = TICKET.pack(0, 0, 0, 0, 0, STOP)
_REPLY_BYTES = 65536  # a pipe's default capacity on Linux: one read takes all there is


class Worker:
    """A codec worker.

    Args:
        name: For logs, statistics and the thread's name.
        host: Where the loop runs. Prepared; the worker runs it once.
        dispatcher: Gives it frames.
        capacity: Tickets it may hold.
        slab: Address of slot 0.
        library: Path of libopus.
        drain_timeout: Seconds between `retire` and giving the worker up.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        dispatcher: Dispatcher,
        *,
        capacity: int,
        slab: int,
        library: str,
        drain_timeout: float,
    ) -> None:
        self.name = name
        self.host = host
        self.scope = trio.CancelScope()
        self.lane = Lane(name, capacity, self._write)
        self.retiring = False
        self.abandoned = False
        self.failure: str | None = None
        self.gone = trio.Event()  # set by the pool when it has let go of the worker
        self._dispatcher = dispatcher
        self._drain_timeout = drain_timeout
        self._life = trio.CancelScope(shield=True)
        self._ended = trio.Event()
        self._request_read, self._request_write = os.pipe()
        self._reply_read, self._reply_write = os.pipe()
        os.set_blocking(self._request_write, False)
        os.set_blocking(self._reply_read, False)
        self._job = Job(
            self._request_read, self._reply_write, slab, SLOT_BYTES, MAX_PACKET_BYTES, library
        )

    @property
    def died(self) -> bool:
        """Whether it ended in any other way than by draining."""
        return self._ended.is_set() and (self.failure is not None or not self.retiring)

    def statistics(self) -> WorkerStatistics:
        """What it holds and has done."""
        state: WorkerState = "ready" if self.lane.ready else "starting"
        return WorkerStatistics(
            name=self.name,
            kind=self.host.kind,
            state="draining" if self.retiring else state,
            in_flight=len(self.lane.held),
            frames=self.lane.frames,
            busy_s=self.lane.busy_s,
        )

    async def run(self, *, task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until retired, cancelled, or dead. Started when the loop has said that it is ready.

        Raises:
            WorkerFailed: It never became ready.
        """
        self._dispatcher.lanes.append(self.lane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live, task_status)
            try:
                with self.scope:
                    await self._ended.wait()
            finally:
                self.retire()
        if not self.lane.ready and not self.scope.cancelled_caught:
            raise WorkerFailed(f"{self.name} did not start: {self.failure or 'no reason given'}")

    def retire(self) -> None:
        """Hand out no more; end when what was handed out is done. May be called twice."""
        self.lane.closed = True
        if self.retiring:
            return
        self.retiring = not self._ended.is_set()
        self._life.deadline = trio.current_time() + self._drain_timeout
        self.lane.flush()
        self._write(_STOP)
        os.close(self._request_write)
        self._request_write = -1

    async def _live(self, task_status: trio.TaskStatus[Worker]) -> None:
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_host)
                    await self._read_replies(task_status)
        finally:
            self.abandoned = self._life.cancelled_caught
            self._dispatcher.lanes.remove(self.lane)
            self._dispatcher.lane_lost(self.lane, still_running=self.abandoned)
            os.close(self._reply_read)
            self._ended.set()

    async def _run_host(self) -> None:
        try:
            await trio.to_thread.run_sync(
                self._thread,
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),
                thread_name=self.name,
            )
        except WorkerFailed as error:
            self.failure = str(error)

    def _thread(self) -> None:
        try:
            self.host.run(self._job)
        finally:
            os.close(self._request_read)
            os.close(self._reply_write)

    async def _read_replies(self, task_status: trio.TaskStatus[Worker]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._reply_read)
            data = os.read(self._reply_read, _REPLY_BYTES)
            if not data:
                return
            was_ready = self.lane.ready
            try:
                self._dispatcher.completed_untrusted(self.lane, data)
            except WorkerFailed as error:
                self.failure = str(error)
                self.retire()
                return
            if self.lane.ready and not was_ready:
                task_status.started(self)

    def _write(self, data: bytes) -> int:
        """Write as much as the pipe takes. A closed pipe takes all: end-of-file tells the rest."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._request_write, data[written : written + REQUEST_BYTES])
        except BlockingIOError:
            return written
        except BrokenPipeError:
            return len(data)
        return written
