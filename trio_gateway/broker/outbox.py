"""What waits to be sent to one client.

Rule 1: the bytes that wait or are being sent are never more than `max_bytes`.
Rule 2: of these, what other clients publish may take half. So nobody can fill a client's outbox but
        the client itself, by not reading what is meant for it.
"""

from __future__ import annotations

import trio

__all__ = ["Outbox"]


class Outbox:
    """Bytes in, from anywhere in the Trio thread; out, to one task, all that waits at a time.

    Args:
        max_bytes: See Rule 1.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting = bytearray()
        self._sending = 0
        self._closed = False
        self._changed = trio.Event()

    @property
    def total_bytes(self) -> int:
        """What waits or is being sent."""
        return len(self._waiting) + self._sending

    def put(self, packet: bytes) -> bool:
        """Add a packet that is the client's own: an answer, or from the gateway. False: no room."""
        return self._put(packet, self._max_bytes)

    def offer(self, packet: bytes) -> bool:
        """Add a packet that another client has published. False: no room for such."""
        return self._put(packet, self._max_bytes // 2)

    def close(self) -> None:
        """Let `take` return b"" once it has returned the rest; nothing can be added any more."""
        self._closed = True
        self._changed.set()

    async def take(self) -> bytearray:
        """Return all that waits, as soon as there is something; the last call's bytes are sent.

        Empty bytes mean that the outbox is closed and everything has been taken.
        """
        self._sending = 0
        while not self._waiting and not self._closed:
            self._changed = trio.Event()
            await self._changed.wait()
        taken, self._waiting = self._waiting, bytearray()
        self._sending = len(taken)
        return taken

    def _put(self, packet: bytes, limit: int) -> bool:
        if self._closed or self.total_bytes + len(packet) > limit:
            return False
        self._waiting += packet
        self._changed.set()
        return True
