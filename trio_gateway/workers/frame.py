"""What the dispatcher works with: a frame on its way, and the line of frames of one stream."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.workers.opus import OpusState

__all__ = [
    "DECODING",
    "ENCODING",
    "DecodeDone",
    "Done",
    "EncodeDone",
    "Frame",
    "Result",
    "StreamQueue",
]

Result: TypeAlias = NDArray[np.int16] | bytes | Exception
Done: TypeAlias = "Callable[[Result], None]"
DecodeDone: TypeAlias = "Callable[[NDArray[np.int16] | Exception], None]"
EncodeDone: TypeAlias = "Callable[[bytes | Exception], None]"

# Seconds inside libopus for 60 ms, before a stream has been measured. Slow machines are the
# reason for the high side: a worker then gets a little less until the first result is in.
DECODING: Final = 50e-6
ENCODING: Final = 400e-6


@define(eq=False)
class StreamQueue:
    """A stream's codec state and its frames to do.

    Attributes:
        make_state: Makes a codec state that has heard nothing.
        rate: Hz.
        max_backlog: Frames that may wait.
        max_packet_bytes: Room for a packet; 0 for a decoder.
        encodes: What it does with its frames.
        cost: Seconds that libopus takes for one, as far as is known.
        measured: Whether that is more than a guess.
        state: The codec state. Its address is in the ticket of the one frame that is in flight.
        backlog: Frames that no worker holds, oldest first.
        queued: It stands in one of the dispatcher's queues.
        busy: One of its frames is in flight.
        closed: It takes no more frames.
        why: Makes the exception for those that it gives up then.
    """

    make_state: Callable[[], OpusState]
    rate: int
    max_backlog: int
    max_packet_bytes: int
    encodes: bool = field(init=False)
    cost: float = field(init=False)
    measured: bool = field(default=False, init=False)
    state: OpusState = field(init=False)
    backlog: deque[Frame] = field(factory=deque, init=False)
    queued: bool = field(default=False, init=False)
    busy: bool = field(default=False, init=False)
    closed: bool = field(default=False, init=False)
    why: Callable[[], Exception] = field(default=Exception, init=False)

    @encodes.default
    def _(self) -> bool:
        return self.max_packet_bytes > 0

    @cost.default
    def _(self) -> float:
        return ENCODING if self.encodes else DECODING

    @state.default
    def _(self) -> OpusState:
        return self.make_state()


@define(eq=False)
class Frame:
    """One frame on its way through the pool.

    Attributes:
        stream: Whose it is.
        operation: See codec.py.
        samples: Per channel: the room for DECODE, else the exact length.
        done: Gets the result, once.
        packet: Input of a decoder.
        pcm: Input of an encoder.
        submitted: Seconds, on the dispatcher's clock.
        number: Of its ticket.
        slot: Where it lies while it is in flight.
        cost: Seconds of a worker's time that were set aside for it.
        lost_workers: How often a worker was lost that may have been at work on it.
    """

    stream: StreamQueue
    operation: int
    samples: int
    done: Done
    packet: bytes = b""
    pcm: NDArray[np.int16] | None = None
    lost_workers: int = field(default=0, init=False)
    # Set when it is submitted, or handed out.
    submitted: float = field(init=False)
    number: int = field(init=False)
    slot: int = field(init=False)
    cost: float = field(init=False)
