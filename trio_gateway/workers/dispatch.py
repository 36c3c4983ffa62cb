"""Which frame goes to which worker, and when.

Rule 1: a stream has at most one ticket in flight. So one worker at most works on its state, and its
frames finish in the order they came, whatever happens to the set of workers.
Rule 2: a frame keeps its own copy of the input until its result is in, so a frame whose worker died
can be done again.
Rule 3: the choice of worker is late. Frames wait in their streams, not in front of a worker.
Rule 4: decoders before encoders: a listener forgives a late reply sooner than a lost word.

No I/O and no clock here: a lane writes through a callable, `now` comes in.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trio_gateway.core.window import Window
from trio_gateway.errors import FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE
from trio_gateway.workers.opus import codec_error
from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_gateway.workers.opus import OpusState
    from trio_gateway.workers.slab import Slab

__all__ = ["Counters", "Dispatcher", "Done", "Frame", "Lane", "Result", "StreamQueue"]

Result: TypeAlias = NDArray[np.int16] | bytes | Exception
Done: TypeAlias = "Callable[[Result], None]"


class Frame:
    """One frame on its way through the pool."""

    __slots__ = ("data", "done", "lost_workers", "number", "operation", "samples", "slot", "stream",
                 "submitted")  # fmt: skip

    def __init__(  # one line for each thing a frame is made of
        self,
        stream: StreamQueue,
        operation: int,
        data: bytes | NDArray[np.int16] | None,
        samples: int,
        done: Done,
    ) -> None:
        self.stream = stream
        self.operation = operation
        self.data = data
        self.samples = samples
        self.done = done
        self.submitted = 0.0
        self.number = -1
        self.slot = -1
        self.lost_workers = 0


class StreamQueue:
    """What the dispatcher knows of a stream: its codec state and its frames to do."""

    __slots__ = ("backlog", "busy", "closed", "frame_samples", "make_state", "max_backlog",
                 "max_packet_bytes", "queued", "state")  # fmt: skip

    def __init__(
        self,
        make_state: Callable[[], OpusState],
        *,
        max_backlog: int,
        max_packet_bytes: int,
        frame_samples: int,
    ) -> None:
        self.make_state = make_state
        self.state = make_state()
        self.backlog: deque[Frame] = deque()
        self.max_backlog = max_backlog
        self.max_packet_bytes = max_packet_bytes
        self.frame_samples = (
            frame_samples  # of the last good frame: what to conceal a lost one with
        )
        self.queued = False  # stands in one of the dispatcher's queues
        self.busy = False  # has a ticket in flight
        self.closed = False


class Lane:
    """What the dispatcher knows of a worker.

    Args:
        name: For logs and statistics.
        capacity: Tickets it may hold.
        write: Takes bytes, returns how many were taken (0 when the pipe is full or closed).
    """

    def __init__(self, name: str, capacity: int, write: Callable[[bytes], int]) -> None:
        self.name = name
        self.capacity = capacity
        self.ready = False
        self.closed = False
        self.held: deque[Frame] = deque()
        self.frames = 0
        self.busy_s = 0.0
        self._write = write
        self._next = 0
        self._outgoing = bytearray()
        self._incoming = b""

    @property
    def room(self) -> int:
        """Tickets that it takes at this moment."""
        return self.capacity - len(self.held) if self.ready and not self.closed else 0

    def hand(self, frame: Frame, slot: int, length: int) -> None:
        """Append a ticket for `frame`; `flush` sends it."""
        frame.slot = slot
        frame.number = self._next
        self._next = (self._next + 1) % READY
        self.held.append(frame)
        self._outgoing += TICKET.pack(
            frame.stream.state.address, frame.number, slot, length, frame.samples, frame.operation
        )

    def flush(self) -> None:
        """Send what has been handed out. What the pipe does not take goes with the next flush."""
        if self._outgoing:
            del self._outgoing[: self._write(bytes(self._outgoing))]

    def completions_untrusted(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Whole records (number, result, codec_ns) of what was read, the rest kept."""
        data = self._incoming + data
        whole = len(data) - len(data) % COMPLETION.size
        self._incoming = data[whole:]
        return COMPLETION.iter_unpack(data[:whole])


class Counters:
    """Cumulative numbers of one dispatcher; PoolStatistics says what each one means."""

    def __init__(self) -> None:
        self.decoded = 0
        self.encoded = 0
        self.concealed = 0
        self.failed = 0
        self.dropped = 0
        self.late = 0
        self.busy_s = 0.0
        self.pending_frame_s = 0.0
        self.waiting_frame_s = 0.0


class Dispatcher:
    """Hands frames to lanes and results to whoever asked.

    Args:
        slab: Where frames lie while a worker has them.
        deadline: Seconds after which a frame counts as late.
        window: Seconds that latencies are remembered.
        clock: Returns the current time in seconds.
    """

    def __init__(
        self, slab: Slab, *, deadline: float, window: float, clock: Callable[[], float]
    ) -> None:
        self.counters = Counters()
        self.latency = Window(window)
        self.codec = Window(window)
        self.lanes: list[Lane] = []
        self.waiting = 0
        self.in_flight = 0
        self.put_aside: list[OpusState] = []
        self._slab = slab
        self._deadline = deadline
        self._clock = clock
        self._decoders: deque[StreamQueue] = deque()
        self._encoders: deque[StreamQueue] = deque()
        self._batches = 0
        self._counted_at = clock()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hand out at the end what is submitted inside, with one write for each worker."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            if not self._batches:
                self._hand_out()

    def submit(self, frame: Frame) -> None:
        """Take a frame. When its stream's backlog is full, the oldest frame there is dropped."""
        stream = frame.stream
        frame.submitted = now = self._clock()
        self.count_until(now)
        stream.backlog.append(frame)
        self.waiting += 1
        if len(stream.backlog) > stream.max_backlog:
            self._drop(stream.backlog.popleft(), FrameDropped("the stream's backlog is full"))
        self._enqueue(stream)
        if not self._batches:
            self._hand_out()

    def withdraw(self, frame: Frame) -> None:
        """Nobody waits for this frame any more. In flight it finishes, for its state's sake."""
        frame.done = _nobody
        if frame in frame.stream.backlog:
            self.count_until(self._clock())
            frame.stream.backlog.remove(frame)
            self.waiting -= 1
            self.counters.dropped += 1

    def discard(self, stream: StreamQueue, why: Exception) -> None:
        """Drop all frames of `stream` that no worker holds."""
        self.count_until(self._clock())
        while stream.backlog:
            self._drop(stream.backlog.popleft(), why)

    def completed_untrusted(self, lane: Lane, data: bytes) -> None:
        """Take what a worker reported.

        Raises:
            WorkerFailed: That cannot be true; the worker is not to be trusted with anything.
        """
        now = self._clock()
        self.count_until(now)
        with self.batch():
            for number, result, codec_ns in lane.completions_untrusted(data):
                if number == READY and not lane.ready:
                    lane.ready = True
                    continue
                if not lane.held or lane.held[0].number != number:
                    raise WorkerFailed(
                        f"{lane.name} reports ticket {number}, which it does not hold"
                    )
                if result > _limit(lane.held[0]):
                    raise WorkerFailed(f"{lane.name} reports an impossible result, {result}")
                frame = lane.held.popleft()
                lane.frames += 1
                lane.busy_s += codec_ns * 1e-9
                self._finish(frame, result, codec_ns * 1e-9, now)

    def lane_lost(self, lane: Lane, *, still_running: bool) -> None:
        """A worker is gone. The first frame it held is the suspect; the rest were never started.

        Args:
            lane: The worker's.
            still_running: It hangs and may yet touch its slots and the states of what it held: they
                are put aside for good, and the streams go on with copies.
        """
        self.count_until(self._clock())
        lane.closed = True
        with self.batch():
            for index, frame in enumerate(lane.held):
                if still_running:
                    self.put_aside.append(frame.stream.state)
                    frame.stream.state = frame.stream.state.copy()
                else:
                    self._slab.release(frame.slot)
                self._take_back(frame, suspect=index == 0)
            lane.held.clear()

    def _take_back(self, frame: Frame, *, suspect: bool) -> None:
        stream = frame.stream
        self.in_flight -= 1
        self.waiting += 1
        stream.busy = False
        if suspect:
            stream.state.reset()
            frame.lost_workers += 1
            if frame.operation != ENCODE:
                frame.operation = CONCEAL
                frame.samples = stream.frame_samples
        if stream.closed:
            self._drop(frame, PoolClosed("the worker was lost after its stream was closed"))
        elif frame.lost_workers > 1:  # it took two workers with it; it will not get a third
            self._drop(frame, WorkerFailed("two workers were lost with this frame"))
        else:
            stream.backlog.appendleft(frame)
        self._enqueue(stream)

    def _enqueue(self, stream: StreamQueue) -> None:
        if stream.backlog and not stream.queued and not stream.busy:
            stream.queued = True
            encoding = stream.backlog[0].operation == ENCODE
            (self._encoders if encoding else self._decoders).append(stream)

    def _hand_out(self) -> None:
        touched = set()
        while (queue := self._decoders or self._encoders) and (lane := self._least_loaded()):
            slot = self._slab.acquire()
            if slot is None:
                break
            stream = queue.popleft()
            stream.queued = False
            if not stream.backlog:  # withdrawn meanwhile
                self._slab.release(slot)
                continue
            frame = stream.backlog.popleft()
            stream.busy = True
            self.waiting -= 1
            self.in_flight += 1
            lane.hand(frame, slot, self._fill(slot, frame))
            touched.add(lane)
        for lane in touched:
            lane.flush()

    def _least_loaded(self) -> Lane | None:
        best = None
        room = 0
        for lane in self.lanes:
            if lane.room > room:
                best, room = lane, lane.room
        return best

    def _fill(self, slot: int, frame: Frame) -> int:
        """Copy the input in. Returns the ticket's length field."""
        data = frame.data
        if frame.operation == ENCODE:
            assert isinstance(data, np.ndarray)  # noqa: S101  stream.py has checked
            self._slab.put_pcm(slot, data)
            return frame.stream.max_packet_bytes
        if data is None or frame.operation == CONCEAL:
            return 0
        assert isinstance(data, bytes)  # noqa: S101  stream.py has checked
        self._slab.put_packet(slot, data)
        return len(data)

    def _finish(self, frame: Frame, result: int, codec_s: float, now: float) -> None:
        value = self._take(frame, result)
        self._slab.release(frame.slot)
        self.in_flight -= 1
        self.counters.busy_s += codec_s
        self.codec.record(codec_s, now)
        self.latency.record(now - frame.submitted, now)
        if now - frame.submitted > self._deadline:
            self.counters.late += 1
        frame.stream.busy = False
        self._enqueue(frame.stream)
        frame.done(value)

    def _take(self, frame: Frame, result: int) -> Result:
        """Copy the output out, and count it."""
        if result < 0:
            self.counters.failed += 1
            return codec_error(result)
        if frame.operation == ENCODE:
            self.counters.encoded += 1
            return self._slab.packet(frame.slot, result)
        if frame.operation == DECODE:
            self.counters.decoded += 1
            frame.stream.frame_samples = result
        else:
            self.counters.concealed += 1
        return self._slab.pcm(frame.slot, result)

    def _drop(self, frame: Frame, why: Exception) -> None:
        self.waiting -= 1
        self.counters.dropped += 1
        frame.done(why)

    def count_until(self, now: float) -> None:
        """Bring the integrals over time up to `now`."""
        elapsed = now - self._counted_at
        self._counted_at = now
        self.counters.waiting_frame_s += elapsed * self.waiting
        self.counters.pending_frame_s += elapsed * (self.waiting + self.in_flight)


def _limit(frame: Frame) -> int:
    return frame.stream.max_packet_bytes if frame.operation == ENCODE else frame.samples


def _nobody(_: Result) -> None:
    """The caller was cancelled."""
