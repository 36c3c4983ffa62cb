"""One worker: a Trio task that owns a thread, two pipes and a cancel scope.

Rule 1: draining is end-of-file. `retire` hands out no more, writes STOP, closes the write end. The
loop finishes what it was given, reads the end and returns; nothing can be lost.
Rule 2: a worker that is ready lives until it is retired. It does not hear the cancellation of what
is around the pool: the body of the pool may still need it while it unwinds.
Rule 3: what follows on `retire` is shielded, and bounded by the drain timeout.
Rule 4: a worker that does not come out of libopus, by then or within the hang timeout while it is
at work, is abandoned. Its thread cannot be ended; what it was lent is nobody else's until it is.
Rule 5: each end of a pipe has one owner, which closes it once. The thread has the worker's two ends
from the moment it runs, the task has the others.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers.affinity import pinned
from trio_gateway.workers.base import Job
from trio_gateway.workers.codec import STOP
from trio_gateway.workers.lane import Lane
from trio_gateway.workers.loop import describe
from trio_gateway.workers.slab import MAX_PACKET_BYTES, SLOT_BYTES
from trio_gateway.workers.statistics import WorkerStatistics
from trio_gateway.workers.watch import Watch
from trio_gateway.workers.wire import REQUEST_BYTES, TICKET

if TYPE_CHECKING:
    from trio_gateway.workers.base import Runner
    from trio_gateway.workers.dispatch import Dispatcher
    from trio_gateway.workers.statistics import WorkerState

__all__ = ["START_TIMEOUT", "Worker"]

# Seconds from the start of the loop to READY. Measured: 25 ms at most; 400 times that is a guess.
START_TIMEOUT = 10.0

_STOP = TICKET.pack(0, 0, 0, 0, 0, STOP)
_REPLY_BYTES = 65536  # a pipe's default capacity on Linux: one read takes all there is


class Worker:
    """A codec worker.

    Args:
        name: For logs, statistics and the thread's name.
        runner: Where the loop runs. Prepared; the worker runs it once.
        dispatcher: Gives it frames.
        slab: Address of slot 0.
        library: Path of libopus.
        core: The only one that it shall run on, if any.
        drain_timeout: Seconds between `retire` and giving the worker up.
        hang_timeout: Seconds that it may hold a ticket and report nothing.

    Attributes:
        retiring: It was asked to end while it lived.
        failure: Why it died, if that is known.
        gone: Set by whoever started it, when no frame will come of it any more.
        returned: Its thread has left the runner, abandoned or not.
        slots: Where the frames lie that it held when it was abandoned.
        abandoned: Its thread was given up, and may yet touch what it was lent.

    Raises:
        OSError: There are no descriptors left for its pipes.
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        dispatcher: Dispatcher,
        *,
        slab: int,
        library: str,
        core: int | None,
        drain_timeout: float,
        hang_timeout: float,
    ) -> None:
        self.name = name
        self.runner = runner
        self.core = core
        self.lane = Lane(name, self._write)
        self.retiring = False
        self.failure: str | None = None
        self.gone = trio.Event()
        self.returned = trio.Event()
        self.slots: list[int] = []
        self.abandoned = False
        self._dispatcher = dispatcher
        self._drain_timeout = drain_timeout
        self._watch = Watch(self.lane, hang_timeout)
        self._scope = trio.CancelScope()
        self._life = trio.CancelScope(shield=True)
        self._ended = trio.Event()
        self._started = False
        self._in_thread = True
        self._far_ends_taken = threading.Lock()  # by the one who closes them; never released
        self._request_read, self._request_write, self._reply_read, self._reply_write = _pipes()
        self._job = Job(
            self._request_read, self._reply_write, slab, SLOT_BYTES, MAX_PACKET_BYTES, library
        )

    @property
    def died(self) -> bool:
        """Whether it ended in any other way than by draining."""
        asked_to = self.retiring and self.failure is None and not self.abandoned
        return self._ended.is_set() and not asked_to

    def statistics(self) -> WorkerStatistics:
        """What it holds and has done."""
        state: WorkerState = "ready" if self.lane.ready else "starting"
        return WorkerStatistics(
            name=self.name,
            kind=self.runner.kind,
            state="draining" if self.lane.closed else state,
            in_flight=len(self.lane.held),
            frames=self.lane.frames,
            busy_s=self.lane.busy_s,
        )

    @enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until retired or dead; cancelled, only before it is ready.

        Raises:
            WorkerFailed: It never became ready.
        """
        self._scope.deadline = trio.current_time() + START_TIMEOUT
        self._dispatcher.lanes.append(self.lane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live, task_status)
            try:
                with self._scope:
                    await self._ended.wait()
            finally:
                self.retire()
        if not self._started:
            slow = self._scope.cancelled_caught
            why = f"not ready in {START_TIMEOUT:g} s" if slow else self.failure or "it just ended"
            raise WorkerFailed(f"{self.name} did not start: {why}")

    @enable_ki_protection
    def retire(self) -> None:
        """Hand out no more; end when what was handed out is done. May be called twice."""
        if self._request_write < 0:
            return
        self.retiring = not self._ended.is_set()
        self._life.deadline = trio.current_time() + self._drain_timeout
        self._dispatcher.close_lane(self.lane)
        if not self.lane.torn:
            self._write(_STOP)
        os.close(self._request_write)
        self._request_write = -1

    @enable_ki_protection
    def give_up_if_it_hangs(self, now: float) -> None:
        """Have a look, as often as `watch.py` wants it."""
        if self._watch.look(now) is None:
            return
        self._take_replies(trio.TASK_STATUS_IGNORED)  # perhaps it is we who have not listened
        silent = self._watch.look(now)
        if silent is not None:
            self.failure = self.failure or f"hangs: it has reported nothing for {silent:.1f} s"
            self.retire()
            self._life.cancel()

    @enable_ki_protection
    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, task_status)
                    await self._run_loop()
                    # Not at end-of-file: a process that somebody forked may hold the pipe open.
                    nursery.cancel_scope.cancel()
        finally:
            self._take_replies(task_status)  # what it said last
            self._dispatcher.lanes.remove(self.lane)
            # Asked once, and of the thread: when it was we who stood still, it may have left before
            # Trio could say so.
            self.abandoned = self._in_thread
            if self.abandoned:
                self.failure = self.failure or f"did not end in {self._drain_timeout:g} s"
            self.slots = self._dispatcher.lane_lost(self.lane, still_running=self.abandoned)
            self._stop_listening()
            self._ended.set()

    async def _run_loop(self) -> None:
        try:
            await trio.to_thread.run_sync(
                self._thread,
                trio.lowlevel.current_trio_token(),
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),
                thread_name=self.name,
            )
        except Exception as error:  # noqa: BLE001  WorkerFailed, or the thread cannot be started
            why = str(error) if isinstance(error, WorkerFailed) else describe(error)
            self.failure = self.failure or why
        finally:
            if self._far_ends_taken.acquire(blocking=False):  # no thread has run, none will
                self._close_far_ends()
                self._in_thread = False

    def _thread(self, token: trio.lowlevel.TrioToken) -> None:
        if self._far_ends_taken.acquire(blocking=False):
            try:
                with pinned(self.core):
                    self.runner.run(self._job)
            finally:
                self._close_far_ends()
                self._in_thread = False
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self.returned.set)

    def _close_far_ends(self) -> None:
        os.close(self._request_read)
        os.close(self._reply_write)

    @enable_ki_protection
    async def _hear(self, task_status: trio.TaskStatus[None]) -> None:
        with suppress(trio.ClosedResourceError):  # somebody else has read a lie
            while True:
                await trio.lowlevel.wait_readable(self._reply_read)
                if not self._take_replies(task_status):
                    return

    def _take_replies(self, task_status: trio.TaskStatus[None]) -> bool:
        """Read once. False when no more comes, or nothing that can be believed."""
        if self._reply_read < 0:
            return False
        try:
            data = os.read(self._reply_read, _REPLY_BYTES)
        except BlockingIOError:
            return True
        believed = True
        try:
            self._dispatcher.completed_untrusted(self.lane, data)
        except WorkerFailed as error:
            believed = False
            self.failure = str(error)
            self._stop_listening()  # or it might wait for ever for somebody to read more of it
            self.retire()
        # Too late, it is no start: nobody would replace a worker that is draining already.
        if self.lane.ready and not self._started and not self._scope.cancel_called:
            self._started = True
            task_status.started()
            self._scope.shield = True
            self._scope.deadline = inf
        return believed and bool(data)

    def _stop_listening(self) -> None:
        if self._reply_read >= 0:
            trio.lowlevel.notify_closing(self._reply_read)
            os.close(self._reply_read)
            self._reply_read = -1

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


def _pipes() -> tuple[int, int, int, int]:
    """Requests (read, write) and replies (read, write). Our ends do not block."""
    request_read, request_write = os.pipe()
    try:
        reply_read, reply_write = os.pipe()
    except OSError:
        os.close(request_read)
        os.close(request_write)
        raise
    os.set_blocking(request_write, False)
    os.set_blocking(reply_read, False)
    return request_read, request_write, reply_read, reply_write
