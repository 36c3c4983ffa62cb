"""The worker pool: streams on one side, workers that come and go on the other.

async with open_worker_pool(PoolSettings(min_workers=2)) as pool:
    with pool.decoder(16000) as decoder:
        pcm = await decoder.decode(packet)
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from trio_gateway.errors import PoolClosed, WorkerFailed
from trio_gateway.groups import sole_errors
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.dispatch import Dispatcher
from trio_gateway.workers.interpreter import InterpreterRunner
from trio_gateway.workers.opus import decoder_state, encoder_state, library_path, load_codec
from trio_gateway.workers.slab import MAX_PACKET_BYTES, Slab
from trio_gateway.workers.statistics import PoolStatistics
from trio_gateway.workers.stream import Decoder, Encoder
from trio_gateway.workers.supervisor import Supervisor
from trio_gateway.workers.thread import ThreadRunner, switching_every

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from trio_gateway.workers.base import Runner
    from trio_gateway.workers.opus import Application
    from trio_gateway.workers.stream import Stream

__all__ = ["KINDS", "WorkerPool", "open_worker_pool"]

KINDS: Mapping[str, type[Runner]] = {
    "thread": ThreadRunner,
    "interpreter": InterpreterRunner,
}

# With its 16-byte header, UDP and IP it stays below the 1,500 bytes of an Ethernet frame.
UNFRAGMENTED_BYTES = 1400


def open_worker_pool(
    settings: PoolSettings | None = None,
    *,
    window: float = 10.0,
    kinds: Mapping[str, type[Runner]] = KINDS,
) -> AbstractAsyncContextManager[WorkerPool]:
    """A pool with `settings.min_workers` workers, ready.

    On leaving, workers finish the frames they hold; frames that no worker holds yet end with
    PoolClosed. That takes at most twice `settings.drain_timeout` seconds, also when cancelled.
    While the body unwinds after a cancellation, the workers still work.

    Args:
        settings: Defaults to `PoolSettings()`.
        window: Seconds that the latencies in `statistics()` look back.
        kinds: The worker kinds there are, by name.

    Raises:
        WorkerFailed: The workers cannot start (no libopus, no interpreters).
    """
    return _Uninterrupted(_open(settings or PoolSettings(), kinds, window))


@asynccontextmanager
async def _open(
    settings: PoolSettings, kinds: Mapping[str, type[Runner]], window: float
) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(settings, kinds, window)
    with sole_errors():
        async with trio.open_nursery() as nursery:
            try:
                await pool._supervisor.open(nursery)  # noqa: SLF001  the first half of this function
                with switching_every(settings.switch_interval if pool.kind == "thread" else None):
                    yield pool
            finally:
                await pool._close()  # noqa: SLF001  the other half
                nursery.cancel_scope.cancel()


class _Uninterrupted(AbstractAsyncContextManager["WorkerPool"]):
    """Come and go whole: a Ctrl-C between the lines of contextlib would leave workers behind.

    The body of the `with` is interrupted as ever.
    """

    def __init__(self, inner: AbstractAsyncContextManager[WorkerPool]) -> None:
        self._inner = inner

    @enable_ki_protection
    async def __aenter__(self) -> WorkerPool:
        return await self._inner.__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


class WorkerPool:
    """Made by `open_worker_pool`.

    Attributes:
        library: Path of the libopus in use.
    """

    def __init__(
        self, settings: PoolSettings, kinds: Mapping[str, type[Runner]], window: float
    ) -> None:
        self.library = library_path(settings.libopus)
        try:
            self._codec = load_codec(self.library)
        except (OSError, AttributeError) as error:
            raise WorkerFailed(f"no usable libopus: {error}") from error
        self._settings = settings
        self._slab = Slab(settings.slots)
        self._dispatcher = Dispatcher(self._slab, settings, window=window, clock=perf_counter)
        self._supervisor = Supervisor(settings, kinds, self._dispatcher, self._slab, self.library)
        self._streams: set[Stream] = set()

    @property
    def kind(self) -> str:
        """The kind of its workers."""
        return self._supervisor.kind

    @property
    def target(self) -> int:
        """Workers that there should be."""
        return self._supervisor.target

    def decoder(self, rate: int = 16000) -> Decoder:
        """A new Opus decoder, mono; it mixes stereo packets down.

        Args:
            rate: Hz; 8000, 12000, 16000, 24000 or 48000.

        Raises:
            PoolClosed: The pool is closing.
            ValueError: `rate` is impossible.
        """
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
        application: Application = "audio",
        complexity: int = 7,
        bitrate: int | None = None,
        max_packet_bytes: int = UNFRAGMENTED_BYTES,
    ) -> Encoder:
        """A new Opus encoder, mono, variable bit rate.

        Args:
            rate: Hz; 8000, 12000, 16000, 24000 or 48000.
            application: "audio" or "voip": see `encoder_state`.
            complexity: 0 to 10. From 7 on libopus looks at the sound and codes speech as speech.
            bitrate: bit/s; None leaves it to libopus.
            max_packet_bytes: No packet is longer. 1,400 bytes cap 60 ms at 187 kbit/s, and keep a
                packet in one piece on an Ethernet.

        Raises:
            PoolClosed: The pool is closing.
            ValueError: `rate` or `max_packet_bytes` is impossible.
            CodecError: libopus refuses `complexity` or `bitrate`.
        """
        self._check_open()
        if not 0 < max_packet_bytes <= MAX_PACKET_BYTES:
            raise ValueError(f"max_packet_bytes {max_packet_bytes}: not 1 to {MAX_PACKET_BYTES}")
        stream = Encoder(
            self._dispatcher,
            partial(
                encoder_state,
                self._codec,
                rate,
                application=application,
                complexity=complexity,
                bitrate=bitrate,
            ),
            rate,
            max_backlog=self._settings.backlog_frames,
            max_packet_bytes=max_packet_bytes,
            on_close=self._streams.discard,
        )
        self._streams.add(stream)
        return stream

    def batch(self) -> AbstractContextManager[None]:
        """Hand out at the end of the `with` what is submitted inside, in one write per worker.

        Nothing may be awaited inside: until the end no stream of the pool gets on.
        """
        return self._dispatcher

    async def resize(self, workers: int) -> None:
        """Have `workers` workers: returns when new ones are ready and surplus ones have drained.

        Cancelled, it leaves as many as there are by then.

        Raises:
            ValueError: `workers` is not from 1 to `max_workers`.
            WorkerFailed: A new one did not start; those that did stay.
            PoolClosed: The pool is closing.
        """
        if not 1 <= workers <= self._settings.max_workers:
            raise ValueError(f"{workers} workers; 1 to {self._settings.max_workers} are allowed")
        await self._supervisor.resize(workers)

    def statistics(self) -> PoolStatistics:
        """The pool's numbers at this moment."""
        now = perf_counter()
        counters = self._dispatcher.counters
        counters.until(now)
        return PoolStatistics(
            kind=self._supervisor.kind,
            workers=tuple(worker.statistics() for worker in self._supervisor.workers),
            target=self._supervisor.target,
            streams=len(self._streams),
            waiting=counters.waiting,
            in_flight=counters.in_flight,
            frames=counters.decoded + counters.encoded + counters.concealed + counters.failed,
            decoded=counters.decoded,
            encoded=counters.encoded,
            concealed=counters.concealed,
            failed=counters.failed,
            dropped=counters.dropped,
            late=counters.late,
            deaths=self._supervisor.deaths,
            hanging=len(self._supervisor.hanging),
            latency=counters.latency.summary(now),
            codec=counters.codec.summary(now),
            busy_s=counters.busy_s,
            pending_frame_s=counters.pending_frame_s,
            waiting_frame_s=counters.waiting_frame_s,
            slots=self._slab.slots,
            slots_used=self._slab.used,
        )

    def _check_open(self) -> None:
        if self._supervisor.closing:
            raise PoolClosed("the pool is closed")

    async def _close(self) -> None:
        self._supervisor.closing = True
        for stream in list(self._streams):
            stream.shut(lambda: PoolClosed("the pool is closing"))
        # A second Ctrl-C is thrown into the main task wherever it waits, shields or not. Where it
        # waits for a nursery, it keeps the exception until the children are done.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervisor.close)
