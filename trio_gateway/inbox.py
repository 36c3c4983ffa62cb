"""What a device has said in JSON and its handler has not read yet.

Rule 1: the newest messages are kept, as many as fit by number and by bytes; the rest is counted. A
handler need not read any (the echo never does), and a device can send what it likes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from trio_gateway.core.control import encode

if TYPE_CHECKING:
    from trio_gateway.core.control import Message

__all__ = ["Inbox"]


class Inbox:
    """Of one session.

    Args:
        max_messages: Kept at most.
        max_bytes: Kept at most, as JSON; the last message is kept whatever its size.

    Attributes:
        dropped: Messages that were not read in time.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.dropped = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._readers = trio.lowlevel.ParkingLot()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Keep a message, and as many of those before it as fit."""
        size = len(encode(message))
        self._messages.append((message, size))
        self._bytes += size
        while len(self._messages) > self._max_messages or (
            self._bytes > self._max_bytes and len(self._messages) > 1
        ):
            self._bytes -= self._messages.popleft()[1]
            self.dropped += 1
        self._readers.unpark_all()

    async def get(self) -> Message:
        """Wait for the oldest one.

        Raises:
            trio.EndOfChannel: It was closed, and everything was read.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._closed:
                raise trio.EndOfChannel
            await self._readers.park()
        message, size = self._messages.popleft()
        self._bytes -= size
        return message

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._readers.unpark_all()
