"""Messages on their way to an external broker: bounded in bytes and in age, oldest first.

Why they wait at all while the broker is away: a restart takes a second, live calls go on over UDP
meanwhile, and a `tts stop` or `goodbye` that arrives a second late is right. One that arrives a
minute late speaks of a state that has passed, so age is bounded too.
"""

from __future__ import annotations

from collections import deque

import trio
from attrs import define, field

__all__ = ["Outbox", "Outgoing"]

# Bytes that a queued message costs beside its text: four objects and a place in a deque.
_OVERHEAD = 300


@define(eq=False)
class Outgoing:
    """One message.

    Attributes:
        topic: Where to.
        payload: What.
        queued_at: When it was queued, in Trio's seconds.
        handed: Whether the MQTT library has it, which sends it if the connection lasts.
        sent: Whether the kernel has it. The broker may not: QoS 0 promises no more.
    """

    topic: str
    payload: bytes = field(repr=False)  # a hello's answer holds the session's key
    queued_at: float
    handed: bool = False
    sent: bool = False

    @property
    def cost(self) -> int:
        """Bytes that it occupies, roughly."""
        return len(self.topic) + len(self.payload) + _OVERHEAD


class Outbox:
    """A queue between `send`, which never waits, and the one task that publishes.

    Args:
        max_bytes: A message that would exceed it is refused: what was accepted earlier stays.
        max_age: Seconds after which a message is not worth sending any more.
    """

    def __init__(self, max_bytes: int, max_age: float) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._queue: deque[Outgoing] = deque()
        self._filled = trio.Event()
        self.bytes = 0
        self.stale = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, topic: str, payload: bytes, now: float) -> bool:
        """Queue a message, or return False because there is no room."""
        self._drop_stale(now)
        message = Outgoing(topic, payload, now)
        if self.bytes + message.cost > self._max_bytes:
            return False
        self._queue.append(message)
        self.bytes += message.cost
        self._filled.set()
        return True

    def take(self, limit: int, now: float) -> list[Outgoing]:
        """Remove and return the oldest messages that are still worth sending, `limit` at most."""
        self._drop_stale(now)
        batch = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
        self.bytes -= sum(message.cost for message in batch)
        return batch

    def put_back(self, messages: list[Outgoing]) -> None:
        """Return what was taken and did not go out; it is first again, whatever the bound says."""
        for message in reversed(messages):
            message.handed = False
            self._queue.appendleft(message)
            self.bytes += message.cost
        if messages:
            self._filled.set()

    async def wait(self) -> None:
        """Return when there is a message, and after a checkpoint in any case."""
        if self._queue:
            await trio.lowlevel.checkpoint()
            return
        self._filled = trio.Event()
        await self._filled.wait()

    def _drop_stale(self, now: float) -> None:
        while self._queue and now - self._queue[0].queued_at > self._max_age:
            self.bytes -= self._queue.popleft().cost
            self.stale += 1
