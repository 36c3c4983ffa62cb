"""Which frame goes to which worker, and when.

Rule 1: a stream has at most one ticket in flight. So one worker at most works on its state, and its
frames finish in the order they came, whatever happens to the set of workers.
Rule 2: a frame keeps its input until its result is in, so a frame whose worker died can be done
again.
Rule 3: the choice of worker is late. Frames wait in their streams, and a worker holds as much work
as hides the hand-over, counted in seconds, whatever libopus takes for a frame on this machine.
Rule 4: decoders before encoders: a listener forgives a late reply sooner than a lost word.
Rule 5: a change of state is whole or it is not. Ctrl-C waits (Trio's protection), and a callback
that raises is logged: that is its owner's bug, and the frames behind it are other people's.
Rule 6: a batch is one moment: everything in it happens at the time at which it began.

No I/O and no clock here: a lane writes through a callable, and the clock is one, too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
from trio.lowlevel import enable_ki_protection

from trio_gateway.errors import FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.workers.codec import DECODE, ENCODE
from trio_gateway.workers.loss import after_loss
from trio_gateway.workers.opus import codec_error
from trio_gateway.workers.statistics import Counters
from trio_gateway.workers.wire import READY

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.settings import PoolSettings
    from trio_gateway.workers.frame import Frame, Result, StreamQueue
    from trio_gateway.workers.lane import Lane
    from trio_gateway.workers.slab import Slab

__all__ = ["MAX_TICKETS", "Dispatcher"]

log = structlog.get_logger(__name__)

# A worker never holds more. 6 KiB of tickets: Linux gives a pipe 64, or 4 to who has many.
MAX_TICKETS: Final = 256

# A stream's cost follows its last frames: 1/8, as TCP's round-trip time does (RFC 6298).
_SMOOTHING: Final = 1 / 8


class Dispatcher:
    """Hands frames to lanes and results to whoever asked.

    Args:
        slab: Where frames lie while a worker has them.
        settings: `in_flight`, `deadline`, `decode_first`, `decode_workers`.
        window: Seconds that latencies are remembered.
        clock: Returns the current time in seconds.

    Attributes:
        counters: Its numbers.
        lanes: The workers.
    """

    def __init__(
        self, slab: Slab, settings: PoolSettings, *, window: float, clock: Callable[[], float]
    ) -> None:
        self.counters = Counters(window, clock())
        self.lanes: list[Lane] = []
        self._slab = slab
        self._settings = settings
        self._in_flight = settings.in_flight
        self._deadline = settings.deadline
        self._clock = clock
        self._now = clock()
        self._decoders: deque[StreamQueue] = deque()
        self._encoders: deque[StreamQueue] = deque() if settings.decode_first else self._decoders
        self._batches = 0

    # The callers' side

    @enable_ki_protection
    def __enter__(self) -> None:
        """Begin a batch: what is submitted inside is handed out at its end, a write per worker."""
        if not self._batches:
            self._now = now = self._clock()
            self.counters.until(now)
        self._batches += 1

    @enable_ki_protection
    def __exit__(self, *_: object) -> None:
        self._batches -= 1
        if not self._batches:
            self.counters.settle(self._now)
            self._hand_out()

    @enable_ki_protection
    def submit(self, frame: Frame) -> None:
        """Take a frame. When its stream's backlog is full, the oldest frame there is dropped.

        Its callback is never called from in here.

        Raises:
            PoolClosed: Its stream takes no more frames.
        """
        if not self._batches:
            with self:
                self.submit(frame)
            return
        frame.submitted = self._now
        stream = frame.stream
        while len(stream.backlog) >= stream.max_backlog:
            self._drop(stream.backlog.popleft(), FrameDropped("the stream's backlog is full"))
        if stream.closed:  # asked here: whoever was just told of a drop may have closed it
            raise PoolClosed("this stream or its pool is closed")
        stream.backlog.append(frame)
        self.counters.waiting += 1
        if not (stream.busy or stream.queued):
            self._enqueue(stream)

    @enable_ki_protection
    def withdraw(self, frame: Frame) -> None:
        """Nobody waits for this frame any more. In flight it finishes, for its state's sake."""
        frame.done = _nobody
        if frame in frame.stream.backlog:
            with self:
                frame.stream.backlog.remove(frame)
                self._drop(frame, FrameDropped("the caller was cancelled"))

    @enable_ki_protection
    def close_stream(self, stream: StreamQueue, why: Callable[[], Exception]) -> None:
        """Take no more frames of `stream`, drop those that no worker holds."""
        stream.closed, stream.why = True, why
        with self:
            while stream.backlog:
                self._drop(stream.backlog.popleft(), why())

    # The workers' side

    @enable_ki_protection
    def completed_untrusted(self, lane: Lane, data: bytes) -> None:
        """Take what a worker reported.

        Raises:
            WorkerFailed: That cannot be true; the worker is not to be trusted with anything.
        """
        with self:
            for number, result, codec_ns in lane.completions_untrusted(data):
                if number == READY and not lane.ready:
                    lane.open()
                    self._reserve()
                    continue
                lie = _lie(lane, number, result)
                if lie is not None:
                    lane.close()
                    lane.lied = True
                    self._reserve()
                    raise WorkerFailed(f"{lane.name} {lie}")
                codec_s = codec_ns * 1e-9
                self._finish(lane.finished(codec_s), result, codec_s)
            lane.flush()  # what a full pipe had not taken: this worker has just read from it

    @enable_ki_protection
    def close_lane(self, lane: Lane) -> None:
        """Hand this worker no more, and take back what has not reached it."""
        lane.close()
        lane.flush()
        with self:
            self._reserve()
            for frame in lane.recall():
                self._slab.release(frame.slot)
                self._take_back(frame, suspect=False)

    @enable_ki_protection
    def lane_lost(self, lane: Lane, *, still_running: bool) -> list[int]:
        """A worker is gone.

        One that raised has reported all that it finished: the first frame it held is the suspect,
        the rest were never started and are done elsewhere as if nothing had happened. One that lied
        or hangs may have begun any of them.

        Args:
            lane: The worker's.
            still_running: It hangs, and may yet touch the slots and the states of what it held:
                they are put aside.

        Returns:
            The slots that were put aside, for `give_back` when the worker is gone after all.
        """
        self.close_lane(lane)  # what has not left is not among those that it may have begun
        held, lane.held = lane.held, deque()
        put_aside = []
        with self:
            for index, frame in enumerate(held):
                if still_running:
                    put_aside.append(frame.slot)
                    lane.put_aside.append(frame.stream.state)
                else:
                    self._slab.release(frame.slot)
                self._take_back(frame, suspect=index == 0 or still_running or lane.lied)
        return put_aside

    @enable_ki_protection
    def give_back(self, slots: list[int]) -> None:
        """Use slots again that were put aside."""
        with self:
            for slot in slots:
                self._slab.release(slot)

    def _reserve(self) -> None:
        """Keep the first lanes for decoders, but never all of them."""
        open_lanes = [lane for lane in self.lanes if lane.ready and not lane.closed]
        reserved = min(self._settings.decode_workers, len(open_lanes) - 1)
        for index, lane in enumerate(open_lanes):
            lane.decodes_only = index < reserved

    # Between the two

    def _enqueue(self, stream: StreamQueue) -> None:
        stream.queued = True
        (self._encoders if stream.encodes else self._decoders).append(stream)

    @enable_ki_protection
    def _hand_out(self) -> None:
        """Whatever makes room or work ends here: a frame, a result, a worker come or gone."""
        touched: set[Lane] = set()
        for queue in (self._decoders, self._encoders):
            while queue and (lane := self._least_loaded(queue[0])):
                stream = queue[0]
                if stream.backlog:  # else it was dropped meanwhile
                    slot = self._slab.acquire()
                    if slot is None:
                        break
                    self._hand(stream, lane, slot)
                    touched.add(lane)
                queue.popleft()
                stream.queued = False
        for lane in touched:
            lane.flush()

    def _least_loaded(self, stream: StreamQueue) -> Lane | None:
        best = None
        least = self._in_flight
        for lane in self.lanes:
            if lane.load < least and not (lane.decodes_only and stream.encodes):
                best, least = lane, lane.load
        return best

    def _hand(self, stream: StreamQueue, lane: Lane, slot: int) -> None:
        frame = stream.backlog.popleft()
        if frame.pcm is not None:
            self._slab.put_pcm(slot, frame.pcm)
            length = stream.max_packet_bytes
        else:
            self._slab.put_packet(slot, frame.packet)
            length = len(frame.packet)
        stream.busy = True
        counters = self.counters
        counters.waiting -= 1
        counters.in_flight += 1
        # The floor keeps it to MAX_TICKETS, however cheap they are.
        lane.hand(frame, slot, length, max(stream.cost, self._in_flight / MAX_TICKETS))

    def _finish(self, frame: Frame, result: int, codec_s: float) -> None:
        value = self._take(frame, result)
        self._slab.release(frame.slot)
        latency = self._now - frame.submitted
        self.counters.took(latency, codec_s)
        if latency > self._deadline:
            self.counters.late += 1
        stream = frame.stream
        stream.cost += (codec_s - stream.cost) * _SMOOTHING
        stream.measured = True
        stream.busy = False
        if stream.backlog:
            self._enqueue(stream)
        _tell(frame, value)

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
        else:
            self.counters.concealed += 1
        return self._slab.pcm(frame.slot, result)

    def _take_back(self, frame: Frame, *, suspect: bool) -> None:
        stream = frame.stream
        self.counters.in_flight -= 1
        self.counters.waiting += 1
        stream.busy = False
        frame.lost_workers += suspect
        if stream.closed:
            self._drop(frame, stream.why())
        elif suspect and (refusal := after_loss(frame)) is not None:
            self._drop(frame, refusal)
        else:
            stream.backlog.appendleft(frame)
        if stream.backlog and not stream.queued:
            self._enqueue(stream)

    def _drop(self, frame: Frame, why: Exception) -> None:
        self.counters.waiting -= 1
        self.counters.dropped += 1
        _tell(frame, why)


def _lie(lane: Lane, number: int, result: int) -> str | None:
    """What is impossible about this report, if anything is."""
    if not lane.held or lane.held[0].number != number:
        return f"reports ticket {number}, which is not its next one"
    frame = lane.held[0]
    limit = frame.stream.max_packet_bytes or frame.samples
    if result == 0 or result > limit:
        return f"reports {result} for a frame of at most {limit}"
    return None


def _tell(frame: Frame, result: Result) -> None:
    try:
        frame.done(result)
    except Exception:
        log.exception("a callback raised; it must not")


def _nobody(_: Result) -> None:
    """The caller was cancelled."""
