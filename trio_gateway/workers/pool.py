"""The worker pool: streams on one side, workers that come and go on the other.

async with open_worker_pool(PoolSettings(min_workers=2)) as pool:
    with pool.decoder(16000) as decoder:
        pcm = await decoder.decode(packet)
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.errors import PoolClosed, WorkerFailed
from trio_gateway.groups import sole_errors
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.dispatch import Dispatcher
from trio_gateway.workers.interpreter import InterpreterHost, interpreters_work
from trio_gateway.workers.opus import decoder_state, encoder_state, library_path, load_codec
from trio_gateway.workers.slab import MAX_PACKET_BYTES, Slab
from trio_gateway.workers.statistics import PoolStatistics
from trio_gateway.workers.stream import Decoder, Encoder
from trio_gateway.workers.thread import ThreadHost
from trio_gateway.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractContextManager

    from trio_gateway.workers.base import Host
    from trio_gateway.workers.stream import _Stream

__all__ = ["KINDS", "WorkerPool", "open_worker_pool"]

log = structlog.get_logger(__name__)

KINDS: Mapping[str, type[Host]] = {
    "thread": ThreadHost,
    "interpreter": InterpreterHost,
}

# With its 16-byte header, UDP and IP it stays below the 1,500 bytes of an Ethernet frame.
UNFRAGMENTED_BYTES = 1400

# What a thread that hangs inside libopus may still write to: kept as long as the process.
_ABANDONED: list[object] = []

RETRY = 1.0  # seconds before a failed replacement is tried again; a guess


@asynccontextmanager
async def open_worker_pool(
    settings: PoolSettings | None = None,
    *,
    window: float = 10.0,
    kinds: Mapping[str, type[Host]] = KINDS,
) -> AsyncIterator[WorkerPool]:
    """A pool with `settings.min_workers` workers, ready.

    On leaving, workers finish the frames they hold; frames that no worker holds yet end with
    PoolClosed. That takes at most `settings.drain_timeout` seconds, also when cancelled.

    Args:
        settings: Defaults to `PoolSettings()`.
        window: Seconds that the latencies in `statistics()` look back.
        kinds: The worker kinds there are, by name.

    Raises:
        WorkerFailed: The workers cannot start (no libopus, no interpreters).
    """
    settings = settings or PoolSettings()
    pool = WorkerPool(settings, kinds, window)
    with sole_errors():
        async with trio.open_nursery() as nursery:
            try:
                await pool._open(nursery)  # noqa: SLF001  the first half of this function
                yield pool
            finally:
                await pool._close()  # noqa: SLF001  the other half


class WorkerPool:
    """Made by `open_worker_pool`."""

    def __init__(
        self,
        settings: PoolSettings,
        kinds: Mapping[str, type[Host]],
        window: float,
    ) -> None:
        name = settings.kind
        if name == "auto":
            name = "interpreter" if interpreters_work() else "thread"
        self.kind = name
        self.library = library_path(settings.libopus)
        self._settings = settings
        self._kinds = kinds
        try:
            self._codec = load_codec(self.library)
        except (OSError, AttributeError) as error:
            raise WorkerFailed(f"no usable libopus: {error}") from error
        self._nursery: trio.Nursery
        self._slab = Slab(settings.slots)
        self._dispatcher = Dispatcher(
            self._slab, deadline=settings.deadline, window=window, clock=trio.current_time
        )
        self._workers: list[Worker] = []
        self._parked: list[Host] = []
        self._streams: set[_Stream] = set()
        self._names = count(1)
        self._target = 0
        self._deaths = 0
        self._closing = False
        # Interpreters start one at a time (measurements: "Interpreters", trap 1).
        self._starting = trio.Lock()
        self._resizing = trio.Lock()

    def decoder(self, rate: int = 16000) -> Decoder:
        """A new Opus decoder, mono, at `rate` Hz (8000, 12000, 16000, 24000 or 48000)."""
        self._check_open()
        stream = Decoder(
            self._dispatcher,
            partial(decoder_state, self._codec, rate),
            rate,
            max_backlog=self._settings.backlog_frames,
            max_packet_bytes=0,
            on_close=self._streams.discard,
        )
        self._streams.add(stream)
        return stream

    def encoder(
        self,
        rate: int = 24000,
        *,
        complexity: int = 5,
        bitrate: int | None = None,
        max_packet_bytes: int = UNFRAGMENTED_BYTES,
    ) -> Encoder:
        """A new Opus encoder, mono, variable bit rate.

        Args:
            rate: Hz; 8000, 12000, 16000, 24000 or 48000.
            complexity: 0 to 10. 5 costs half of 10 and a listener hears no difference in speech.
            bitrate: bit/s; None leaves it to libopus.
            max_packet_bytes: No packet is longer.
        """
        self._check_open()
        if not 0 < max_packet_bytes <= MAX_PACKET_BYTES:
            raise ValueError(
                f"max_packet_bytes {max_packet_bytes}: not 1 to {MAX_PACKET_BYTES}"
            )
        stream = Encoder(
            self._dispatcher,
            partial(encoder_state, self._codec, rate, complexity=complexity, bitrate=bitrate),
            rate,
            max_backlog=self._settings.backlog_frames,
            max_packet_bytes=max_packet_bytes,
            on_close=self._streams.discard,
        )
        self._streams.add(stream)
        return stream

    def batch(self) -> AbstractContextManager[None]:
        """Hand out at the end of the `with` what is submitted inside, in one write per worker."""
        return self._dispatcher.batch()

    async def resize(self, workers: int) -> None:
        """Have `workers` workers: returns when new ones are ready and surplus ones have drained.

        Raises:
            ValueError: `workers` is not from 1 to `max_workers`.
            WorkerFailed: A new one did not start; those that did stay.
            PoolClosed: The pool is closing.
        """
        if not 1 <= workers <= self._settings.max_workers:
            raise ValueError(f"{workers} workers; 1 to {self._settings.max_workers} are allowed")
        async with self._resizing:
            self._check_open()
            self._target = workers
            while len(self._active()) < workers:
                await self._start_worker()
            surplus = sorted(self._active(), key=lambda worker: len(worker.lane.held))
            for worker in surplus[: len(surplus) - workers]:
                worker.retire()
                await worker.gone.wait()

    def statistics(self) -> PoolStatistics:
        """The pool's numbers at this moment."""
        now = trio.current_time()
        dispatcher = self._dispatcher
        counters = dispatcher.counters
        dispatcher.count_until(now)
        return PoolStatistics(
            kind=self.kind,
            workers=tuple(worker.statistics() for worker in self._workers),
            target=self._target,
            streams=len(self._streams),
            waiting=dispatcher.waiting,
            in_flight=dispatcher.in_flight,
            frames=counters.decoded + counters.encoded + counters.concealed + counters.failed,
            decoded=counters.decoded,
            encoded=counters.encoded,
            concealed=counters.concealed,
            failed=counters.failed,
            dropped=counters.dropped,
            late=counters.late,
            deaths=self._deaths,
            latency=dispatcher.latency.summary(now),
            codec=dispatcher.codec.summary(now),
            busy_s=counters.busy_s,
            pending_frame_s=counters.pending_frame_s,
            waiting_frame_s=counters.waiting_frame_s,
            slots=self._slab.slots,
            slots_used=self._slab.used,
        )

    async def _open(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        try:
            await self.resize(self._settings.min_workers)
        except WorkerFailed as error:
            if self._settings.kind != "auto" or self.kind == "thread":
                raise
            log.warning("interpreters do not start here, taking threads", why=str(error))
            self.kind = "thread"
            await self.resize(self._settings.min_workers)

    def _check_open(self) -> None:
        if self._closing:
            raise PoolClosed("the pool is closed")

    def _active(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.retiring]

    async def _start_worker(self) -> None:
        async with self._starting:
            self._check_open()
            host = self._parked.pop() if self._parked else await self._make_host()
            try:
                worker = Worker(
                    f"{self.kind}-{next(self._names)}",
                    host,
                    self._dispatcher,
                    capacity=self._settings.in_flight,
                    slab=self._slab.address,
                    library=self.library,
                    drain_timeout=self._settings.drain_timeout,
                )
            except OSError as error:  # no descriptors left for its pipes
                self._parked.append(host)
                raise WorkerFailed(ascii(error)) from error
            await self._nursery.start(self._run_worker, worker)

    async def _make_host(self) -> Host:
        host = self._kinds[self.kind]()
        await trio.to_thread.run_sync(host.prepare)
        return host

    async def _run_worker(
        self, worker: Worker, *, task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._workers.append(worker)
        try:
            await worker.run(task_status=task_status)
        finally:
            self._workers.remove(worker)
            if worker.abandoned:
                _ABANDONED.append((worker, self._slab, self._dispatcher))
            else:
                self._parked.append(worker.host)
            worker.gone.set()
        if worker.died:
            self._deaths += 1
            log.error("worker died", worker=worker.name, why=worker.failure, hangs=worker.abandoned)
            if not self._closing:
                self._nursery.start_soon(self._replace)

    async def _replace(self) -> None:
        while not self._closing and len(self._active()) < self._target:
            try:
                await self._start_worker()
            except PoolClosed:
                return
            except WorkerFailed as error:
                log.warning("worker not replaced, will retry", why=str(error), seconds=RETRY)
                await trio.sleep(RETRY)

    async def _close(self) -> None:
        self._closing = True
        for stream in list(self._streams):
            stream._shut(PoolClosed("the pool is closing"))  # noqa: SLF001  streams are its own
        workers = list(self._workers)
        for worker in workers:
            worker.retire()
        with trio.CancelScope(
            shield=True, deadline=trio.current_time() + 2 * self._settings.drain_timeout
        ):
            for worker in workers:
                await worker.gone.wait()
            for host in self._parked:
                await trio.to_thread.run_sync(host.close)
        self._nursery.cancel_scope.cancel()
