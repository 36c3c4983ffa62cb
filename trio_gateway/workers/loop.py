"""What a worker does: read tickets, call libopus, write completions, until end-of-file.

Rule 1: standard library only. This file is imported inside isolated interpreters.
Rule 2: a worker owns nothing. Codec states and the slab are memory that it is lent by address for
the length of one ticket.
Rule 3: what was finished is reported, also when something raises in the middle of a batch.
"""

from __future__ import annotations

import os
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, TypeAlias

from trio_gateway.workers.codec import STOP, Codec, Reference, reference
from trio_gateway.workers.wire import COMPLETION, READY, REQUEST_BYTES, TICKET

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Batch", "describe", "run", "work"]

# Completions leave at least this often during a batch: of the 8 ms of work that it holds the first
# results are seen after 2. Each time wakes the Trio thread, and of two cores it takes one
# from a worker. With 1 ms, decoding with threads reached 0.72 of the bare codec, with 2 ms 0.80;
# encoding at complexity 5 with interpreters 0.93 and 0.96.
FLUSH_NS: Final = 2_000_000

# Nanoseconds; what the field in a completion holds.
LONGEST: Final = 0xFFFF_FFFF

# References to codec states, cached by address: more streams than this and the cache starts anew.
STATES: Final = 4096

Perform: TypeAlias = "Callable[[int, Reference, Reference, int, Reference, int], int]"


def run(
    request_fd: int,
    reply_fd: int,
    slab: int,
    slot_bytes: int,
    packet_bytes: int,
    library: str,
) -> None:
    """Load libopus and work until the other end closes, or a STOP ticket comes.

    Args:
        request_fd: Blocking descriptor to read tickets from.
        reply_fd: Blocking descriptor to write completions to. Both stay the caller's to close.
        slab: Address of slot 0.
        slot_bytes: Distance between slots. A slot is a packet area followed by a PCM area.
        packet_bytes: Size of the packet area.
        library: Path of libopus.

    Raises:
        OSError: libopus cannot be loaded, or the Trio side closed its end of the replies.
    """
    work(Codec(library).perform, request_fd, reply_fd, slab, slot_bytes, packet_bytes)


def work(
    perform: Perform,
    request_fd: int,
    reply_fd: int,
    slab: int,
    slot_bytes: int,
    packet_bytes: int,
) -> None:
    """`run` with something that does what a ticket asks for, as `Codec.perform`."""
    batch = Batch(perform, reply_fd, slab, slot_bytes, packet_bytes)
    _write(reply_fd, COMPLETION.pack(READY, 0, 0))
    rest = b""
    while data := os.read(request_fd, REQUEST_BYTES):
        data = rest + data
        whole = len(data) - len(data) % TICKET.size
        if batch.work_off(data[:whole]):
            return
        rest = data[whole:]


class Batch:
    """Works tickets off, as many as came at once. Arguments as for `work`."""

    def __init__(
        self, perform: Perform, reply_fd: int, slab: int, slot_bytes: int, packet_bytes: int
    ) -> None:
        self._perform = perform
        self._reply_fd = reply_fd
        self._slab = slab
        self._slot_bytes = slot_bytes
        self._packet_bytes = packet_bytes
        self._slots: dict[int, tuple[Reference, Reference]] = {}
        self._states: dict[int, Reference] = {}

    def work_off(self, tickets: bytes) -> bool:
        """Do whole tickets in order. True when one of them was STOP."""
        perform, states, slots = self._perform, self._states, self._slots
        replies = bytearray()
        flushed = perf_counter_ns()
        try:
            for state, number, slot, length, samples, operation in TICKET.iter_unpack(tickets):
                if operation == STOP:
                    return True
                codec = states.get(state) or self._state(state)
                packet, pcm = slots.get(slot) or self._slot(slot)
                started = perf_counter_ns()
                result = perform(operation, codec, packet, length, pcm, samples)
                ended = perf_counter_ns()
                took = ended - started
                if took > LONGEST:  # noqa: PLR1730  min() is a call, for every frame
                    took = LONGEST
                replies += COMPLETION.pack(number, result, took)
                if ended - flushed > FLUSH_NS:
                    _write(self._reply_fd, replies)
                    replies.clear()
                    flushed = ended
        finally:
            _write(self._reply_fd, replies)
        return False

    def _slot(self, slot: int) -> tuple[Reference, Reference]:
        address = self._slab + slot * self._slot_bytes
        references = reference(address), reference(address + self._packet_bytes)
        self._slots[slot] = references
        return references

    def _state(self, state: int) -> Reference:
        if len(self._states) >= STATES:
            self._states.clear()
        self._states[state] = made = reference(state)
        return made


def _write(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def describe(error: BaseException) -> str:
    """`error` as ASCII without NUL, whatever its text holds and even if its methods raise."""
    try:
        return ascii(error)
    except BaseException:  # noqa: BLE001  a __repr__ may raise anything
        return ascii(type(error).__name__)
