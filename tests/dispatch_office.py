"""The dispatcher with workers that are played by the test: no pipe, no thread, no libopus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from opus_reference import packets

from trio_gateway.settings import PoolSettings
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE
from trio_gateway.workers.dispatch import Dispatcher
from trio_gateway.workers.frame import Frame, StreamQueue
from trio_gateway.workers.lane import Lane
from trio_gateway.workers.slab import Slab
from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.opus import OpusState

__all__ = ["COST", "PACKET", "FakeState", "FakeWorker", "Office"]

PACKET = packets(16000, 1)[0]
COST = 50e-6  # seconds of a worker for a frame


class FakeState:
    """A codec state is an address to the dispatcher."""

    def __init__(self) -> None:
        self.address = id(self)


class FakeWorker(Lane):
    """A lane, and what is at the other end of its pipe."""

    def __init__(self, name: str = "worker", *, pipe_bytes: int = 65536) -> None:
        super().__init__(name, self.take)
        self.pipe = b""
        self.pipe_bytes = pipe_bytes
        self.writes = 0

    def take(self, data: bytes) -> int:
        taken = data[: self.pipe_bytes - len(self.pipe)]
        self.pipe += taken
        self.writes += 1
        return len(taken)

    @property
    def tickets(self) -> list[tuple[int, int, int, int, int, int]]:
        """What came: state, number, slot, length, samples, operation."""
        return list(TICKET.iter_unpack(self.pipe[: len(self.pipe) // TICKET.size * TICKET.size]))


class Office:
    """A dispatcher, its streams, and the results in the order of their arrival.

    A worker takes `room` frames, as long as nobody is told that they cost anything but COST.
    """

    def __init__(self, slots: int = 16, *, room: int = 4, **settings: Any) -> None:
        self.now = 100.0
        self.slab = Slab(slots)
        self.dispatcher = Dispatcher(
            self.slab,
            PoolSettings(deadline=0.150, in_flight=(room - 0.5) * COST, **settings),
            window=10,
            clock=lambda: self.now,
        )
        self.counters = self.dispatcher.counters
        self.results: list[tuple[str, Result]] = []

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.results]

    def hire(self, *workers: FakeWorker) -> None:
        for worker in workers:
            self.dispatcher.lanes.append(worker)
            self.report(worker, READY, 0)

    def stream(self, *, backlog: int = 50, encoder: bool = False) -> StreamQueue:
        make_state = cast("type[OpusState]", FakeState)
        stream = StreamQueue(make_state, 16000, backlog, 1400 if encoder else 0)
        stream.cost = COST
        return stream

    def stream_that_costs(self, seconds: float) -> StreamQueue:
        stream = self.stream()
        stream.cost = seconds
        return stream

    def submit(self, stream: StreamQueue, *names: str, operation: int = DECODE) -> list[Frame]:
        frames = []
        for name in names:
            frame = Frame(stream, operation, 1920, partial(self._done, name), PACKET)
            if operation == ENCODE:
                frame.packet, frame.pcm, frame.samples = b"", np.zeros(960, np.int16), 960
            elif operation == CONCEAL:
                frame.packet, frame.samples = b"", 320
            frames.append(frame)
            self.dispatcher.submit(frame)
        return frames

    def _done(self, name: str, result: Result) -> None:
        self.results.append((name, result))

    def report(
        self, worker: FakeWorker, number: int, result: int, codec_ns: int = round(COST * 1e9)
    ) -> None:
        data = COMPLETION.pack(number, result, codec_ns)
        self.dispatcher.completed_untrusted(worker, data)

    def finish(self, worker: FakeWorker, tickets: int = 1, result: int = 960) -> None:
        """The worker does its next tickets, one report each."""
        for _ in range(tickets):
            number, worker.pipe = worker.tickets[0][1], worker.pipe[TICKET.size :]
            self.report(worker, number, result)

    def at_rest(self) -> bool:
        return (self.counters.waiting, self.counters.in_flight, self.slab.used) == (0, 0, 0)
