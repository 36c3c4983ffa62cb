"""The audio plane's socket: every datagram of every session passes here.

Rule 1: `wait_readable`, then non-blocking reads until there is nothing left (1.9 us for a datagram;
`trio.socket.recvfrom` takes 9.6), at most `batch` of them before other tasks get a turn.
Rule 2: a datagram that cannot be used is counted by reason and costs nothing else.
Rule 3: sending never waits. A full socket buffer is a counted drop.
"""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import field, frozen

from trio_gateway.core.packet import ssrc_untrusted
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from trio_gateway.interfaces import Address, DatagramReceiver
    from trio_gateway.settings import UdpSettings

__all__ = ["UdpPlane", "UdpStatistics", "open_udp"]

log = structlog.get_logger(__name__)

# Longer ones are cut by the kernel, then refused for their length. Ethernet frames hold 1,500.
MAX_DATAGRAM_BYTES = 2048


@frozen(kw_only=True)
class UdpStatistics:
    """Counters since the socket was opened."""

    received: int
    """Datagrams read."""
    refused: dict[str, int] = field(factory=dict)
    """Of them those that no session took, by reason."""
    sent: int = 0
    send_dropped: int = 0
    """Not sent: the socket's buffer was full, or there is no way to the address."""


@asynccontextmanager
async def open_udp(
    settings: UdpSettings,
    *,
    route: Callable[[int], DatagramReceiver | None],
    batch: Callable[[], AbstractContextManager[None]],
) -> AsyncIterator[UdpPlane]:
    """Bind the socket and read from it until the context is left.

    Args:
        settings: Where to listen, and how much to read at once.
        route: Finds the receiver of an ssrc, or None.
        batch: Wraps the handling of all datagrams of one wake-up (the pool's `batch`).

    Raises:
        OSError: The address cannot be bound.
    """
    with await _bind(settings) as sock:
        plane = UdpPlane(sock, route, batch, settings.batch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plane._read)  # noqa: SLF001  the running half of this object
            yield plane
            nursery.cancel_scope.cancel()


async def _bind(settings: UdpSettings) -> socket.socket:
    family, kind, protocol, _, address = (
        await trio.socket.getaddrinfo(
            settings.listen.host,
            settings.listen.port,
            type=socket.SOCK_DGRAM,
            flags=socket.AI_PASSIVE,
        )
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.receive_buffer_bytes)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class UdpPlane:
    """Made by `open_udp`."""

    def __init__(
        self,
        sock: socket.socket,
        route: Callable[[int], DatagramReceiver | None],
        batch: Callable[[], AbstractContextManager[None]],
        batch_size: int,
    ) -> None:
        host, port = sock.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        self._sock = sock
        self._route = route
        self._batch = batch
        self._batch_size = batch_size
        self._received = 0
        self._refused: Counter[str] = Counter()
        self._sent = 0
        self._send_dropped = 0

    def send(self, data: bytes, addr: Address) -> bool:
        """Send one datagram now, or drop and count it."""
        try:
            self._sock.sendto(data, addr)
        except OSError:
            self._send_dropped += 1
            return False
        self._sent += 1
        return True

    def statistics(self) -> UdpStatistics:
        """The counters."""
        return UdpStatistics(
            received=self._received,
            refused=dict(self._refused),
            sent=self._sent,
            send_dropped=self._send_dropped,
        )

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            now = trio.current_time()
            with self._batch():
                for _ in range(self._batch_size):
                    try:
                        data, addr = self._sock.recvfrom(MAX_DATAGRAM_BYTES)
                    except BlockingIOError:
                        break
                    except OSError as error:  # what ICMP said about an earlier datagram of ours
                        log.debug("udp socket error", why=str(error))
                        break
                    self._received += 1
                    try:
                        self._receive_untrusted(data, addr, now)
                    except BadPacket as bad:
                        self._refused[bad.reason] += 1

    def _receive_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        receiver = self._route(ssrc_untrusted(data))
        if receiver is None:
            raise BadPacket("unknown_ssrc")
        receiver.receive_datagram_untrusted(data, addr, now)
