"""The workers that there are, on their way to the number that there should be.

Rule 1: workers start one at a time, under a lock. Interpreters have to, on a CPython that crashes
when one of them imports ctypes at the wrong moment (codec.py, rule 2). And so nobody starts one
that somebody else has just started.
Rule 2: `target` is what there should be. A worker that dies is replaced while there are fewer.
Rule 3: a worker that was abandoned is replaced at once. What it was lent (runner, codec states,
slots) is nobody's until its thread returns. When the pool closes, such threads get what is left of
the time; who has not returned by then keeps its loan as long as the process lives.

A thread that is inside libopus for ever does no harm when the process ends: it is a daemon. With an
interpreter around it, CPython 3.13 ends normally, too; 3.14 crashes at the very end, and nothing
can prevent that but os._exit.
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
from trio_gateway.workers.runners import MAKE_TIMEOUT, Runners
from trio_gateway.workers.watch import LOOKS
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

# What threads that hang inside libopus may still write to, kept beyond the life of their pools.
_LENT: set[tuple[Worker, Slab]] = set()


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
        deaths: Workers that ended without having been asked to, or hung.
        hanging: Workers that were abandoned, and whose threads have not returned yet.
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
        self.hanging: set[Worker] = set()
        self.closing = False
        self._settings = settings
        self._dispatcher = dispatcher
        self._slab = slab
        self._library = library
        self._runners = Runners(kinds)
        self._somebody_returned = trio.Event()
        self._names = count(1)
        self._nursery: trio.Nursery
        self._starting = trio.Lock()
        self._resizing = trio.Lock()
        self._open = trio.CancelScope(shield=True)
        self._kept = trio.Event()

    async def open(self, nursery: trio.Nursery) -> None:
        """Start `min_workers`; with kind "auto" as threads, if all else fails.

        Args:
            nursery: Waits for all that is begun here, and is heard by none of it: a pool works
                while what is around it unwinds, and ends with `close`.

        Raises:
            WorkerFailed: They do not start.
        """
        # Not with start(): cancelled, it would wait for a task that does not hear of it.
        nursery.start_soon(self._keep)
        await self._kept.wait()
        try:
            await self.resize(self._settings.min_workers)
        except WorkerFailed as error:
            if self._settings.kind != "auto" or self.kind == "thread":
                raise
            log.warning("interpreters do not start here, taking threads", why=str(error))
            self.target = 0
            await self._end_all(trio.current_time() + MAKE_TIMEOUT)
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
                self._check_open()
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

        Shielded. Workers have the drain timeout, those that hang and all runners the same again;
        what is left then is lost, and said to be.
        """
        self.closing = True
        self.target = 0
        for worker in self.workers:
            worker.retire()
        now = trio.current_time()
        patience = self._settings.drain_timeout
        self._runners.hurry(now + patience)
        deadline = now + 2 * patience
        with trio.CancelScope(shield=True, deadline=deadline):
            async with self._starting:  # a start that is under way ends here, one way or another
                await self._end_all(deadline)
            while self.hanging:
                await self._somebody_returned.wait()
                await self._runners.take_down(deadline)
        self._open.cancel()
        if left := [*self.workers, *self.hanging]:
            log.error("workers left behind", workers=sorted(worker.name for worker in left))
        if self._runners.parked:
            log.error("runners left behind", runners=len(self._runners.parked))

    def _active(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.lane.closed]

    def _check_open(self) -> None:
        if self.closing:
            raise PoolClosed("the pool is closed")

    @enable_ki_protection
    async def _grow(self) -> None:
        async with self._starting:
            for _ in range(self.target - len(self._active())):
                runner = await self._runners.take(self.kind)
                try:
                    await self._nursery.start(self._supervise, runner)
                except WorkerFailed:
                    self._check_open()  # a pool that closes retires those that are starting
                    raise

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
                self._nursery.start_soon(self._have_back, worker)
                self.hanging.add(worker)
                _LENT.add((worker, self._slab))
            else:
                self._runners.parked.append(runner)
            if worker is not None:
                self.workers.remove(worker)
                worker.gone.set()
                if worker.lane.ready and worker.died:
                    self._count_death(worker)

    def _count_death(self, worker: Worker) -> None:
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
                hang_timeout=self._settings.hang_timeout,
            )
        except OSError as error:
            raise WorkerFailed(describe(error)) from error

    def _choose_core(self) -> int | None:
        if not self._settings.pin_workers:
            return None
        return least_used_core(worker.core for worker in self.workers)

    @enable_ki_protection
    async def _keep(self) -> None:
        """Hold the nursery of all workers, and look at them now and then until the pool is closed.

        At all at once: frames of one that hangs must not go to another one that does.
        """
        with self._open:
            async with trio.open_nursery() as self._nursery:
                self._kept.set()
                while True:
                    await trio.sleep(self._settings.hang_timeout / LOOKS)
                    now = trio.current_time()
                    for worker in tuple(self.workers):
                        worker.give_up_if_it_hangs(now)

    @enable_ki_protection
    async def _have_back(self, worker: Worker) -> None:
        """Wait for the thread of an abandoned worker, and take back what it was lent."""
        await worker.returned.wait()
        log.info("a worker that was given up has returned", worker=worker.name)
        _LENT.remove((worker, self._slab))
        self.hanging.remove(worker)
        self._dispatcher.give_back(worker.slots)
        self._runners.parked.append(worker.runner)
        self._somebody_returned.set()
        self._somebody_returned = trio.Event()

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

    async def _end_all(self, deadline: float) -> None:
        """Wait until all workers are gone, then take down their runners."""
        for worker in self.workers:
            worker.retire()
        while self.workers:
            await self.workers[0].gone.wait()
        await self._runners.take_down(deadline)
