"""The buffer pool: one anonymous mapping, cut into slots that hold one frame each.

A slot is a packet area followed by a PCM area. Workers get addresses into it; the Trio side copies
a frame in when it hands out a ticket and copies the result out when the completion comes. The most
recently used slot is used next, so a quiet pool lives in a few pages that stay in the cache, and
pages never touched cost no memory.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PACKET_BYTES", "PCM_BYTES", "SLOT_BYTES", "Slab"]

# 120 ms of 20 ms frames at their longest, 6 x 1,275 bytes and a header (RFC 6716 section 3.2).
MAX_PACKET_BYTES: Final = 8192
# 120 ms at 48 kHz, int16, is 11,520: the longest packet (RFC 6716 section 2.1.4). Whole pages.
PCM_BYTES: Final = 12288
SLOT_BYTES: Final = MAX_PACKET_BYTES + PCM_BYTES


class _Views(dict[int, "NDArray[np.int16]"]):
    """The PCM area of each slot that was ever used: a view costs a third of a copy to make."""

    def __init__(self, samples: NDArray[np.int16]) -> None:
        self._samples = samples

    def __missing__(self, slot: int) -> NDArray[np.int16]:
        end = (slot + 1) * SLOT_BYTES // 2
        self[slot] = view = self._samples[end - PCM_BYTES // 2 : end]
        return view


class Slab:
    """`slots` slots of memory, and which of them are free."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._map = mmap.mmap(-1, slots * SLOT_BYTES)
        self._bytes = memoryview(self._map)
        self._pcm = _Views(np.frombuffer(self._map, dtype=np.int16))
        anchor = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(anchor)
        self._free = list(range(slots - 1, -1, -1))

    @property
    def used(self) -> int:
        """Slots that hold a frame."""
        return self.slots - len(self._free)

    def acquire(self) -> int | None:
        """A free slot, or None when all are in use."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def put_packet(self, slot: int, packet: bytes) -> None:
        """Copy an Opus packet in."""
        start = slot * SLOT_BYTES
        self._bytes[start : start + len(packet)] = packet

    def packet(self, slot: int, length: int) -> bytes:
        """Copy an Opus packet out."""
        start = slot * SLOT_BYTES
        return bytes(self._bytes[start : start + length])

    def put_pcm(self, slot: int, pcm: NDArray[np.int16]) -> None:
        """Copy int16 samples in."""
        self._pcm[slot][: len(pcm)] = pcm

    def pcm(self, slot: int, samples: int) -> NDArray[np.int16]:
        """Copy int16 samples out."""
        return self._pcm[slot][:samples].copy()
