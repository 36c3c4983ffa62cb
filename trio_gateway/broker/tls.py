"""Peers behind TLS.

Rule 1: a handshake is the peer's own business. It happens in the peer's task, under the deadline
        for CONNECT, after the limits on connections, and nobody else waits for it. Until a byte has
        come, not even the certificate is looked at.
Rule 2: one handshake takes one step in one turn of the event loop, whatever the peers have sent in
        whatever pieces: every read of every handshake waits its turn. When 500 peers come at once,
        whatever is due meanwhile is 4 ms late at most (measured); it was 50 to 160 without this.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio_gateway.broker.certificate import Certificate

__all__ = ["TlsListener", "TlsStream"]

READ_BYTES = 16 * 1024
"""Asked of TCP at once: the largest TLS record. SSLStream itself would ask for 64 KiB."""

HANDSHAKE_BYTES = 4 * 1024
"""The same in a handshake. A client says about 0.5 KiB, with post-quantum keys 1.8."""

HANDSHAKE_READS = 64
"""In one handshake. A guess: eight times what a client needs in segments of 536 bytes, the smallest
that IPv4 promises. One who sends byte by byte would otherwise take 500 turns."""


class TlsListener(trio.abc.Listener["TlsStream"]):
    """Accepts peers that are to speak TLS.

    Args:
        transport: Accepts their TCP connections.
        certificate: Ours.
    """

    def __init__(self, transport: trio.SocketListener, certificate: Certificate) -> None:
        self._transport = transport
        self._certificate = certificate
        self._turns = trio.Lock()

    async def accept(self) -> TlsStream:
        """Return the next peer as soon as it has connected: its handshake is not awaited."""
        return TlsStream(await self._transport.accept(), self._certificate, self._turns)

    async def aclose(self) -> None:
        """Close the socket."""
        await self._transport.aclose()


class TlsStream(trio.abc.Stream):
    """A peer behind TLS. The handshake is part of the first use.

    Like HTTPS, this neither sends nor expects TLS' own goodbye (close_notify): devices just close,
    and MQTT has DISCONNECT to tell a farewell from a connection that was cut.

    Attributes:
        transport_stream: TCP below.
        failure: Why there is no TLS: as OpenSSL names it ("http_request",
            "tlsv1_alert_unknown_ca"), "unknown" if it does not; "eof", "reset", "dripping" for
            one that came in too many pieces; "unfinished" before the end of the handshake. None
            after that.
    """

    def __init__(self, tcp: trio.SocketStream, certificate: Certificate, turns: trio.Lock) -> None:
        self.transport_stream = tcp
        self.failure: str | None = "unfinished"
        self._certificate = certificate
        self._turns = turns
        self._tls: trio.SSLStream[_Below] | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        tls = self._tls or await self._shake_hands()
        return await tls.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        tls = self._tls or await self._shake_hands()
        await tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self.transport_stream.aclose()

    async def _shake_hands(self) -> trio.SSLStream[_Below]:
        below = _Below(self.transport_stream, self._turns)
        await trio.lowlevel.wait_readable(self.transport_stream.socket)
        await below.wait_turn()
        tls = trio.SSLStream(
            below, self._certificate.context(), server_side=True, https_compatible=True
        )
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as error:
            self.failure = "dripping" if below.dripping else _failure(error.__cause__)
            raise
        below.shaking = False
        self._tls = tls
        self.failure = None
        return tls


class _Below(trio.abc.Stream):
    """TCP, as SSLStream gets it: see Rule 2."""

    def __init__(self, tcp: trio.SocketStream, turns: trio.Lock) -> None:
        self.shaking = True
        self.dripping = False
        self._tcp = tcp
        self._turns = turns
        self._reads_left = HANDSHAKE_READS

    async def wait_turn(self) -> None:
        # Trio hands a lock over from one turn of the event loop to the next.
        async with self._turns:
            pass

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:  # noqa: ARG002  ours
        if not self.shaking:
            return await self._tcp.receive_some(READ_BYTES)
        if not self._reads_left:
            self.dripping = True
            raise trio.BrokenResourceError("a handshake in too many pieces")
        self._reads_left -= 1
        data = await self._tcp.receive_some(HANDSHAKE_BYTES)
        await self.wait_turn()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tcp.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tcp.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._tcp.aclose()


def _failure(cause: BaseException | None) -> str:
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLSyscallError)):
        return "eof"
    if isinstance(cause, ssl.SSLError):
        return cause.reason.lower() if cause.reason else "unknown"
    return "reset"
