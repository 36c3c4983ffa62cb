"""The audio plane's socket: every datagram of every session passes here.

Rule 1: `wait_readable`, then non-blocking reads until there is nothing left (1.9 us for a datagram;
`trio.socket.recvfrom` takes 9.6), at most `batch` of them before other tasks get a turn.
Rule 2: a datagram that cannot be used is counted by reason and costs nothing else: at most 6 us,
reading it included (measured; one that is used takes 10). What comes with a live ssrc from
elsewhere than its session's device is limited besides: see core/strangers.py.
Rule 3: sending never waits. A full socket buffer is a counted drop, and so is what the kernel drops
because its receive buffer is full.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import field, frozen

from trio_gateway.core.packet import ssrc_untrusted
from trio_gateway.core.strangers import Strangers
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

# Linux 4.12, asm-generic/socket.h; nine counters of a socket, the last one is what it has dropped.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")


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
    kernel_dropped: int | None = None
    """Came and were never read: the receive buffer was full. Modulo 2**32. None where the system
    does not tell (it takes Linux)."""


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
        plane = UdpPlane(sock, route, batch, settings)
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
    _check_buffer(sock, settings.receive_buffer_bytes)
    return sock


def _check_buffer(sock: socket.socket, asked: int) -> None:
    """Say so if the system has cut the receive buffer: a short one loses audio in every burst."""
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if sys.platform == "linux":
        granted //= 2  # what it reports is doubled, for its own bookkeeping (socket(7))
    if granted < asked:
        log.warning(
            "the udp receive buffer is smaller than asked for",
            asked_bytes=asked,
            granted_bytes=granted,
            fix=f"sysctl -w net.core.rmem_max={asked}",
        )


class UdpPlane:
    """Made by `open_udp`."""

    def __init__(
        self,
        sock: socket.socket,
        route: Callable[[int], DatagramReceiver | None],
        batch: Callable[[], AbstractContextManager[None]],
        settings: UdpSettings,
    ) -> None:
        host, port = sock.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        self._sock = sock
        self._route = route
        self._batch = batch
        self._batch_size = settings.batch
        self._strangers = Strangers(settings.strangers_per_session, settings.refused_per_address)
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
            kernel_dropped=self._kernel_dropped(),
        )

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            with self._batch():
                self._read_batch(trio.current_time())

    def _read_batch(self, now: float) -> None:
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
        ssrc = ssrc_untrusted(data)
        receiver = self._route(ssrc)
        if receiver is None:
            raise BadPacket("unknown_ssrc")
        if receiver.knows(addr):
            receiver.receive_datagram_untrusted(data, addr, now)
            return
        self._strangers.admit_untrusted(ssrc, addr, now)
        try:
            receiver.receive_datagram_untrusted(data, addr, now)
        except BadPacket:
            self._strangers.note_refused(addr, now)
            raise

    def _kernel_dropped(self) -> int | None:
        if sys.platform != "linux":
            return None
        try:
            numbers = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:  # closed, or an older kernel
            return None
        return int(_MEMINFO.unpack(numbers)[-1]) if len(numbers) == _MEMINFO.size else None
