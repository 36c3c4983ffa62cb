"""Many UDP sockets, one reader: cheaper than a task for each.

An epoll descriptor is itself readable when one of its sockets is, so one `wait_readable` serves
them all: a wake-up costs Trio 30 us, and under load it brings many datagrams.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING, Any, Final, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["DatagramLine", "DatagramLines"]

_BATCH: Final = 64  # datagrams read from one socket before the others have their turn
_MAX_DATAGRAM_BYTES: Final = 2048  # a longer one is cut, and then refused for its length


class DatagramLine:
    """A socket that talks to one address and to nobody else, as the firmware's does."""

    def __init__(
        self, sock: socket.socket, receive: Callable[[bytes], None], lines: DatagramLines
    ) -> None:
        self._socket = sock
        self._receive = receive
        self._lines = lines

    def send(self, datagram: bytes) -> None:
        """Send, or lose it as a network would."""
        try:
            self._socket.send(datagram)
        except OSError:  # full buffer, or a port that is closed (ECONNREFUSED)
            self._lines.unsent += 1

    def close(self) -> None:
        """Nothing more is received."""
        self._lines._forget(self._socket)  # noqa: SLF001  one object in two classes
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ECONNREFUSED once more: the silence will tell
                continue
            self._receive(data)
            if self._socket.fileno() < 0:  # closed by what it received
                return


class DatagramLines:
    """All lines of one simulator.

    Attributes:
        unsent: Datagrams that the system did not take.
    """

    def __init__(self) -> None:
        self.unsent = 0
        self._selector: Any = selectors.DefaultSelector()  # epoll or kqueue: has a fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    async def open(self, server: tuple[str, int], receive: Callable[[bytes], None]) -> DatagramLine:
        """Open a line.

        Args:
            server: Host (name or address) and port.
            receive: Called with each datagram in the Trio thread. Must not raise.

        Raises:
            OSError: There is no such host, or no way to it.
        """
        found = await trio.socket.getaddrinfo(*server, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        line = DatagramLine(sock, receive, self)
        self._selector.register(sock, selectors.EVENT_READ, line)
        return line

    async def run(self) -> None:
        """Receive, for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            # Whoever woke with us goes first: when this process was kept from running, `tts start`
            # and the audio that followed 60 ms later wait together, and Trio's order is random.
            await trio.lowlevel.checkpoint()
            for key, _ in self._selector.select(0):
                key.data._read()  # noqa: SLF001

    def _forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
