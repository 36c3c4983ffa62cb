"""One connection of the embedded endpoint, whoever is at its other end.

Rule 1: a connection has one ending, the first; everything after it is clearing up.
Rule 2: `end` stops reading, and what is in the outbox still goes out and arrives, whatever the peer
        has said meanwhile, within `CLOSE_TIMEOUT` seconds. `abort` stops everything at once.
Rule 3: no peer holds the event loop longer than `TURN` seconds and one packet at a time (measured:
        12 ms for the worst one, a SUBSCRIBE of 64 KiB with 16,000 filters).
Rule 4: only whole packets keep a connection alive. One byte a minute is silence.
Rule 5: a stranger is held to one packet of `max_connect_bytes` in `STRANGER_READS` pieces; a client
        to its throttle. Time that a client is kept waiting is not its silence, but nobody is kept
        waiting for ever: what is behind a backlog may be the end of the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.broker.lingering import linger
from trio_gateway.broker.outbox import Outbox
from trio_gateway.core.mqtt_packet import Packet, Parser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.broker.complaints import Complaints
    from trio_gateway.broker.peer import Peer
    from trio_gateway.broker.throttle import Throttle, Unit
    from trio_gateway.settings import MqttSettings

__all__ = ["Connection"]

log = structlog.get_logger(__name__)

READ_BYTES = 16 * 1024
"""Asked of a stream at once. A guess: a tool list in one read. 16 MiB for 1,024 of them; behind TLS
twice that, for what is not decrypted yet is held as well."""

LEAST_READ = 256
"""Bytes that a read counts as, at least. Behind TLS the peer says how many bytes a record has, and
one byte takes 50 us, with the wait after it. At the default rate 256 such reads a second are
allowed, 1.5 % of a core (measured); a device says fewer than 5 things a second."""

STRANGER_READS = 64
"""Until CONNECT is there. A guess: eight times what 4 KiB need in segments of 536 bytes, the
smallest that IPv4 promises."""

TURN = 0.001
"""Seconds. A guess: a sixtieth of an audio frame."""

SEND_BYTES = 16 * 1024
"""Given to a socket at once: what `send_timeout` is for."""

CLOSE_TIMEOUT = 1.0
"""Seconds. A guess: a few round trips of a bad mobile network."""


class Connection:
    """Packets in, bytes out, over any stream; the stream is closed by whoever made it.

    Args:
        stream: Where the peer is.
        peer: Who that is.
        settings: The limits.
        complaints: Where crashes are told.

    Attributes:
        peer: Who is at the other end.
        ending: Why it ends; None while it does not. "eof", "reset", "connect_timeout", "dripping",
            "keepalive", "throttled", "slow_reader", or what `end` was told.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: Peer,
        settings: MqttSettings,
        complaints: Complaints,
    ) -> None:
        self.peer = peer
        self.ending: str | None = None
        self._stream = stream
        self._settings = settings
        self._complaints = complaints
        self._parser = Parser(settings.max_connect_bytes)
        self._throttle: Throttle | None = None
        self._reads_left = STRANGER_READS
        self._behind = 0.0  # seconds that it was kept waiting, beyond those in which it paused
        self._outbox = Outbox(settings.max_outbox_bytes)
        self._sending: trio.Nursery | None = None  # where that will be done; None when it is begun
        self._alive = trio.CancelScope()
        self._receiving = trio.CancelScope()
        self._patience = settings.connect_timeout
        self._patience_ends = trio.current_time() + self._patience
        self._impatience = "connect_timeout"
        self._heard = False
        self._turn_ends = 0.0

    async def run(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Send what comes into the outbox while `converse` reads and answers; return after it.

        `converse` raises nothing but Cancelled, and ends the connection.
        """
        with self._alive:
            async with trio.open_nursery() as self._sending:
                await converse()
                said_nothing = self._sending is not None
                self._outbox.close()
                self._alive.deadline = trio.current_time() + CLOSE_TIMEOUT
            # Of a peer that is gone or silent everything has been read.
            if not said_nothing and self.ending not in {"eof", "reset", "keepalive"}:
                await linger(self._stream)

    async def next_packet_untrusted(self) -> Packet | None:
        """Return what the peer says next, or None when the connection ends.

        Raises:
            BadPacket: As `Parser` does.
        """
        await self.yield_turn()
        while self.ending is None:
            packet = self._parser.next_packet_untrusted()
            if packet is None:
                await self._receive()
                continue
            self._heard = True
            await self.pay("messages", 1)
            if self.ending is None:
                return packet
        return None

    async def yield_turn(self) -> None:
        """Let other tasks run if this one has run for longer than `TURN`."""
        if trio.current_time() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = trio.current_time() + TURN

    async def pay(self, unit: Unit, cost: int) -> None:
        """Charge a client for so much, and wait until it has paid or the connection ends."""
        if self._throttle is None or self._throttle.charge(unit, cost) or self.ending is not None:
            return
        began = trio.current_time()
        deadline = began + self._settings.throttle_timeout - self._behind
        with trio.CancelScope(deadline=deadline) as self._receiving:
            await self._throttle.wait(unit)
        waited = trio.current_time() - began
        self._patience_ends += waited
        self._behind += waited
        if self._receiving.cancelled_caught:
            self.end("throttled")  # unless there is a reason already

    def charge_will(self, copies: int) -> None:
        """Charge a client that is gone for its will."""
        if self._throttle is not None:
            self._throttle.charge("messages", max(1, copies))

    @property
    def in_debt(self) -> bool:
        """Whether a client has said more than is paid."""
        return self._throttle is not None and self._throttle.in_debt("messages")

    def welcome(self, patience: float, throttle: Throttle) -> None:
        """From the next packet on it is a client's, who has proved who it is.

        Args:
            patience: After so many seconds without a packet it ends with "keepalive".
            throttle: How fast it may talk.
        """
        self._patience = patience
        self._impatience = "keepalive"
        self._throttle = throttle
        self._parser.max_packet_bytes = self._settings.max_packet_bytes

    def send(self, packet: bytes) -> bool:
        """Queue what is meant for this peer alone. False: the connection ends, perhaps by this.

        Nothing of it may get lost: a device that missed a `tts stop` is in a state nobody knows.
        So a peer that leaves no room, because it does not read, must begin a new connection.
        """
        if self.ending is None:
            if self._outbox.put(packet):
                self._see_to_sending()
            else:
                self.abort("slow_reader")
        return self.ending is None

    def offer(self, packet: bytes) -> bool:
        """Queue what another client has published. False: dropped, which QoS 0 allows.

        Disconnecting here would let any publisher throw out any subscriber.
        """
        if self.ending is not None or not self._outbox.offer(packet):
            return False
        self._see_to_sending()
        return True

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
        if self._throttle is None:
            if not self._reads_left:
                self.end("dripping")
                return
            self._reads_left -= 1
        now = trio.current_time()
        if self._heard:
            self._heard = False
            self._patience_ends = now + self._patience
        data = None
        # One look at least: after a stall, what we call late may have been here for long.
        deadline = max(self._patience_ends, now + TURN)
        with trio.CancelScope(deadline=deadline) as self._receiving:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.end("reset")
        self._turn_ends = trio.current_time() + TURN
        self._behind = max(0.0, self._behind - (trio.current_time() - now))
        if data:
            self._parser.receive_bytes(data)
            await self.pay("bytes", max(len(data), LEAST_READ))
        else:
            self.end(self._impatience if data is None else "eof")

    def _see_to_sending(self) -> None:
        # Not before there is something: a silent stranger costs one task and not two.
        if self._sending is not None:
            self._sending.start_soon(self._empty_outbox)
            self._sending = None

    async def _empty_outbox(self) -> None:
        try:
            while packets := await self._outbox.take():
                for start in range(0, len(packets), SEND_BYTES):
                    if not await self._send(memoryview(packets)[start : start + SEND_BYTES]):
                        self.abort("slow_reader")
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort("reset")
        except Exception as error:  # noqa: BLE001  it is told
            self._complaints.say(
                log.exception,
                "mqtt connection crashed",
                type(error).__name__,
                peer=self.peer.name,
            )
            self.abort("crashed")

    async def _send(self, data: memoryview) -> bool:
        """Return whether the peer took it in time."""
        with trio.move_on_after(self._settings.send_timeout) as scope:
            await self._stream.send_all(data)
        return not scope.cancelled_caught
