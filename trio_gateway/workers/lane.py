"""The dispatcher's end of one worker: tickets out, completions in, and what is between the two."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_gateway.workers.frame import Frame
    from trio_gateway.workers.opus import OpusState

__all__ = ["Lane"]


class Lane:
    """What the dispatcher knows of a worker.

    Args:
        name: For logs and statistics.
        write: Takes bytes, returns how many were taken (0 when the pipe is full).

    Attributes:
        ready: The worker has said that it is.
        closed: It gets no more tickets.
        lied: It has reported what cannot be true.
        torn: Part of a ticket has left and the rest will not: nothing may be written after it.
        decodes_only: Encoders' frames go elsewhere.
        held: Frames whose tickets it has, oldest first. It works on them in this order.
        load: Seconds that what it holds will take; infinite while it takes nothing.
        handed: Tickets that it was ever given.
        frames: Tickets that it finished.
        busy_s: Seconds inside libopus.
        put_aside: Codec states that it may touch as long as its thread has not returned.
    """

    def __init__(self, name: str, write: Callable[[bytes], int]) -> None:
        self.name = name
        self.ready = False
        self.closed = False
        self.lied = False
        self.torn = False
        self.decodes_only = False
        self.held: deque[Frame] = deque()
        self.load = inf
        self.handed = 0
        self.frames = 0
        self.busy_s = 0.0
        self.put_aside: list[OpusState] = []
        self._write = write
        self._outgoing = bytearray()
        self._incoming = b""

    def open(self) -> None:
        """Take tickets from now on, unless it was closed before it was ready."""
        self.ready = True
        if not self.closed:
            self.load = 0.0

    def close(self) -> None:
        """Take no more."""
        self.closed = True
        self.load = inf

    def hand(self, frame: Frame, slot: int, length: int, cost: float) -> None:
        """Append a ticket for `frame`; `flush` sends it."""
        frame.slot = slot
        frame.cost = cost
        frame.number = number = self.handed % READY
        self.handed += 1
        self.load += cost
        self.held.append(frame)
        self._outgoing += TICKET.pack(
            frame.stream.state.address, number, slot, length, frame.samples, frame.operation
        )

    def finished(self, codec_s: float) -> Frame:
        """Let go of the oldest frame, which took so many seconds."""
        frame = self.held.popleft()
        self.frames += 1
        self.busy_s += codec_s
        self.load -= frame.cost
        if not self.held and not self.closed:
            self.load = 0.0  # and not what rounding left
        return frame

    def flush(self) -> None:
        """Send what has been handed out. What the pipe does not take goes with the next flush."""
        if self._outgoing:
            del self._outgoing[: self._write(bytes(self._outgoing))]

    def recall(self) -> list[Frame]:
        """Take back the frames whose tickets have not left whole: no worker will start them."""
        unsent = -(-len(self._outgoing) // TICKET.size)
        self.torn = len(self._outgoing) % TICKET.size != 0
        self._outgoing.clear()
        return [self.held.pop() for _ in range(unsent)][::-1]

    def completions_untrusted(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Whole records (number, result, codec_ns) of what was read, the rest kept."""
        data = self._incoming + data
        whole = len(data) - len(data) % COMPLETION.size
        self._incoming = data[whole:]
        return COMPLETION.iter_unpack(data[:whole])
