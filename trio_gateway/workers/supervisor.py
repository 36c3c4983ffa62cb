"""The workers that there are, on their way to the number that there should be.

Rule 1: workers start one at a time, under a lock. Interpreters have to, on a CPython that crashes
when one of them imports ctypes at the wrong moment (codec.py, rule 2). And so nobody starts one
that somebody else has just started.
Rule 2: `target` is what there should be. A worker that dies is replaced while there are fewer.
Rule 3: the runner of a worker that has ended is parked and used again. That of a worker that hangs
is lost, with all that it was lent.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import structlog
import trio
from trio.lowlevel import enable_ki_protection

from trio_gateway.errors import PoolClosed, WorkerFailed
from trio_gateway.workers.affinity import least_used_core
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.loop import describe
from trio_gateway.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_gateway.settings import PoolSettings
    from trio_gateway.workers.base import Runner
    from trio_gateway.workers.dispatch import Dispatcher
    from trio_gateway.workers.slab import Slab

__all__ = ["Supervisor"]

log = structlog.get_logger(__name__)

# Seconds before a start that failed is tried again, or a worker that never worked is replaced: a
# guess, long enough that a broken library costs nothing.
RETRY = 1.0

# What a thread that hangs inside libopus may still write to: kept as long as the process.
_ABANDONED: list[object] = []


class Supervisor:
    """The workers of a pool.

    Args:
        settings: The pool's.
        kinds: Kinds of worker by name.
        dispatcher: Gives them frames.
        slab: Where the frames lie.
        library: Path of libopus.

    Attributes:
        kind: Of the workers that it starts.
        workers: All that live, draining ones too.
        target: How many there should be; draining ones do not count.
        deaths: Workers that ended without having been asked to, or hung when they were.
    """

    def __init__(
        self,
        settings: PoolSettings,
        kinds: Mapping[str, type[Runner]],
        dispatcher: Dispatcher,
        slab: Slab,
        library: str,
    ) -> None:
        self.kind: str = settings.kind
        if self.kind == "auto":
            self.kind = "interpreter" if interpreters_work() else "thread"
        self.workers: list[Worker] = []
        self.target = 0
        self.deaths = 0
        self.closing = False
        self._settings = settings
        self._kinds = kinds
        self._dispatcher = dispatcher
        self._slab = slab
        self._library = library
        self._parked: list[Runner] = []
        self._names = count(1)
        self._nursery: trio.Nursery
        self._starting = trio.Lock()
        self._resizing = trio.Lock()

    async def open(self, nursery: trio.Nursery) -> None:
        """Start `min_workers` in `nursery`; with kind "auto" as threads, if all else fails.

        Raises:
            WorkerFailed: They do not start.
        """
        self._nursery = nursery
        try:
            await self.resize(self._settings.min_workers)
        except WorkerFailed as error:
            if self._settings.kind != "auto" or self.kind == "thread":
                raise
            log.warning("interpreters do not start here, taking threads", why=str(error))
            self.target = 0
            await self._end_all()
            self.kind = "thread"
            await self.resize(self._settings.min_workers)

    async def resize(self, workers: int) -> None:
        """Return when there are `workers` workers, the new ones ready and the others gone.

        Raises:
            WorkerFailed: One did not start; those that did stay.
            PoolClosed: Too late.
        """
        async with self._resizing:
            self._check_open()
            before, self.target = self.target, workers
            try:
                await self._grow()
                while len(active := self._active()) > self.target:
                    surplus = min(active, key=lambda worker: len(worker.lane.held))
                    surplus.retire()
                    await surplus.gone.wait()
            except BaseException:
                # What there is by now stays, and those who died meanwhile are still replaced.
                if not self.closing:
                    self.target = max(min(before, workers), len(self._active()))
                raise

    @enable_ki_protection
    async def close(self) -> None:
        """Retire all and take down their runners.

        Shielded. Workers have the drain timeout, and runners the same again; what is left then is
        lost, and said to be.
        """
        self.closing = True
        self.target = 0
        for worker in self.workers:
            worker.retire()
        patience = 2 * self._settings.drain_timeout
        with trio.CancelScope(shield=True, deadline=trio.current_time() + patience) as scope:
            async with self._starting:  # a start that is under way ends here, one way or another
                await self._end_all()
        if scope.cancelled_caught:
            log.error("workers left behind", workers=len(self.workers), runners=len(self._parked))

    def _active(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.lane.closed]

    def _check_open(self) -> None:
        if self.closing:
            raise PoolClosed("the pool is closed")

    @enable_ki_protection
    async def _grow(self) -> None:
        async with self._starting:
            for _ in range(self.target - len(self._active())):
                runner = self._parked.pop() if self._parked else await self._make_runner()
                await self._nursery.start(self._supervise, runner)

    async def _make_runner(self) -> Runner:
        runner = self._kinds[self.kind]()
        try:
            # Not to be cancelled: an interpreter that is abandoned crashes the process at its end.
            await trio.to_thread.run_sync(runner.prepare, limiter=trio.CapacityLimiter(1))
        except WorkerFailed:
            raise
        except Exception as error:  # no thread, no memory, no descriptors
            raise WorkerFailed(describe(error)) from error
        return runner

    @enable_ki_protection
    async def _supervise(
        self, runner: Runner, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a worker from start to end."""
        worker = None
        try:
            self._check_open()
            worker = self._make_worker(runner)
            self.workers.append(worker)
            await worker.run(task_status=task_status)
        finally:
            if worker is not None and worker.abandoned:
                _ABANDONED.append((worker, self._slab))
            else:
                self._parked.append(runner)
            if worker is not None:
                self.workers.remove(worker)
                worker.gone.set()
        if worker.died:
            self.deaths += 1
            log.error("worker died", worker=worker.name, why=worker.failure, hangs=worker.abandoned)
            self._nursery.start_soon(self._replace, 0.0 if worker.lane.handed else RETRY)

    def _make_worker(self, runner: Runner) -> Worker:
        try:
            return Worker(
                f"{runner.kind}-{next(self._names)}",
                runner,
                self._dispatcher,
                slab=self._slab.address,
                library=self._library,
                core=self._choose_core(),
                drain_timeout=self._settings.drain_timeout,
            )
        except OSError as error:
            raise WorkerFailed(describe(error)) from error

    def _choose_core(self) -> int | None:
        if not self._settings.pin_workers:
            return None
        return least_used_core(worker.core for worker in self.workers)

    async def _replace(self, delay: float) -> None:
        while not self.closing:
            await trio.sleep(delay)
            try:
                await self._grow()
            except WorkerFailed as error:
                log.warning("worker not replaced, will retry", why=str(error), seconds=RETRY)
                delay = RETRY
            except PoolClosed:
                return
            else:
                return

    async def _end_all(self) -> None:
        """Wait until all workers are gone, then take down their runners."""
        while self.workers:
            self.workers[0].retire()
            await self.workers[0].gone.wait()
        while self._parked:
            runner = self._parked.pop()
            try:
                await trio.to_thread.run_sync(runner.close, limiter=trio.CapacityLimiter(1))
            except WorkerFailed as error:
                log.warning("runner not taken down", kind=runner.kind, why=str(error))
