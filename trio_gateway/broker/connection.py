"""One connection of the embedded endpoint, whoever is at its other end.

Rule 1: a connection has one ending, the first; everything after it is clearing up.
Rule 2: `end` stops reading, and what is in the outbox still goes out, for `CLOSE_TIMEOUT` seconds.
        `abort` stops everything at once.
Rule 3: no peer holds the event loop longer than `TURN` seconds and one packet at a time (measured:
        12 ms for the worst one, a SUBSCRIBE of 64 KiB with 16,000 filters).
Rule 4: only whole packets keep a connection alive. One byte a minute is silence.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.broker.outbox import Outbox
from trio_gateway.core.mqtt_packet import Packet, Parser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.settings import MqttSettings

__all__ = ["Connection"]

log = structlog.get_logger(__name__)

READ_BYTES = 16 * 1024
"""Asked of a socket at once. A guess: a tool list in one read, 16 MiB for 1,024 of them."""

TURN = 0.001
"""Seconds. A guess: a sixtieth of an audio frame."""

CLOSE_TIMEOUT = 1.0
"""Seconds. A guess: a few round trips of a bad mobile network."""


class Connection:
    """Packets in, bytes out, over any stream; the stream is closed by whoever made it.

    Args:
        stream: Where the peer is.
        settings: The limits.

    Attributes:
        peer: Where from, for the log.
        ending: Why it ends; None while it does not. "eof", "reset", "connect_timeout", "keepalive",
            "slow_reader", or what `end` was told.
    """

    def __init__(self, stream: trio.abc.Stream, settings: MqttSettings) -> None:
        self.peer = _peer_of(stream)
        self.ending: str | None = None
        self._stream = stream
        self._parser = Parser(settings.max_packet_bytes)
        self._outbox = Outbox(settings.max_outbox_bytes)
        self._alive = trio.CancelScope()
        self._receiving = trio.CancelScope()
        self._patience = settings.connect_timeout
        self._patience_ends = trio.current_time() + self._patience
        self._impatience = "connect_timeout"
        self._heard = False
        self._turn_ends = 0.0

    async def run(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Send what comes into the outbox while `converse` reads and answers; return after it.

        `converse` raises nothing but Cancelled.
        """
        with self._alive:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._empty_outbox)
                await converse()
                self._outbox.close()
                self._alive.deadline = trio.current_time() + CLOSE_TIMEOUT

    async def next_packet_untrusted(self) -> Packet | None:
        """Return what the peer says next, or None when the connection ends.

        Raises:
            BadPacket: As `Parser` does.
        """
        await self.yield_turn()
        while self.ending is None:
            packet = self._parser.next_packet_untrusted()
            if packet is not None:
                self._heard = True
                return packet
            await self._receive()
        return None

    async def yield_turn(self) -> None:
        """Let other tasks run if this one has run for longer than `TURN`."""
        if trio.current_time() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = trio.current_time() + TURN

    def keep_alive(self, patience: float) -> None:
        """From the next packet on, end with "keepalive" after `patience` seconds without one."""
        self._patience = patience
        self._impatience = "keepalive"

    def send(self, packet: bytes) -> bool:
        """Queue what is meant for this peer alone. False: the connection ends, perhaps by this.

        Nothing of it may get lost: a device that missed a `tts stop` is in a state nobody knows.
        So a peer that leaves no room, because it does not read, must begin a new connection.
        """
        if self.ending is None and not self._outbox.put(packet):
            self.abort("slow_reader")
        return self.ending is None

    def offer(self, packet: bytes) -> bool:
        """Queue what another client has published. False: dropped, which QoS 0 allows.

        Disconnecting here would let any publisher throw out any subscriber.
        """
        return self.ending is None and self._outbox.offer(packet)

    def end(self, reason: str) -> None:
        """Read no more, send what is queued. Without effect if it is ending already."""
        if self.ending is None:
            self.ending = reason
            self._receiving.cancel()

    def abort(self, reason: str) -> None:
        """End now, whatever is queued."""
        self.end(reason)
        self._alive.cancel()

    async def _receive(self) -> None:
        now = trio.current_time()
        if self._heard:
            self._heard = False
            self._patience_ends = now + self._patience
        data = None
        with trio.CancelScope(deadline=self._patience_ends) as self._receiving:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.end("reset")
        self._turn_ends = trio.current_time() + TURN
        if data:
            self._parser.receive_bytes(data)
        else:
            self.end(self._impatience if data is None else "eof")

    async def _empty_outbox(self) -> None:
        try:
            while packets := await self._outbox.take():
                await self._stream.send_all(packets)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort("reset")
        except Exception:
            log.exception("mqtt connection crashed", peer=self.peer)
            self.abort("crashed")


def _peer_of(stream: trio.abc.Stream) -> str:
    """Return "host:port" of a socket's other end; what has no address is named by its kind."""
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):  # gone already
            host, port = stream.socket.getpeername()[:2]
            return f"{host}:{port}"
    return type(stream).__name__
