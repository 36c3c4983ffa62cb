"""A session, as a handler sees it: one device, from its hello to its goodbye.

A handler is an async function that gets one:

    async def parrot(session: Session) -> None:
        async for utterance in session.utterances():
            await session.play(await utterance.collect())
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import trio
from attrs import frozen

from trio_gateway.core.admission import Costs, Price
from trio_gateway.core.control import encode, mcp, tts
from trio_gateway.errors import KeystreamExhausted, SessionClosed
from trio_gateway.inbox import Inbox
from trio_gateway.mcp import McpClient
from trio_gateway.playback import Playback
from trio_gateway.uplink import Uplink
from trio_gateway.utterance import AudioIn, Utterances

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.core.control import Hello, Message
    from trio_gateway.core.fates import DownlinkStatistics, UplinkStatistics
    from trio_gateway.core.identity import DeviceId
    from trio_gateway.core.link import AudioLink
    from trio_gateway.interfaces import Address, DatagramSender
    from trio_gateway.playback import Source
    from trio_gateway.settings import Settings
    from trio_gateway.uplink import ListenMode
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["EndReason", "Session", "SessionStatistics"]

EndReason = Literal[
    "goodbye",
    "replaced",
    "idle",
    "exhausted",
    "backend_ended",
    "backend_failed",
    "failed",
    "shutdown",
    "disconnected",
]

QUIET = 1.0
"""Seconds without a datagram after which nobody speaks any more: shutdown need not wait for this
call. A guess: sixteen frames."""

ANSWER = 5.0
"""Seconds after `listen stop` in which an answer may begin: shutdown waits so long for one. A
guess: a chat server takes one to three, and a handler may not answer at all."""


@frozen(kw_only=True)
class SessionStatistics:
    """What became of one session's frames and messages."""

    up: UplinkStatistics
    down: DownlinkStatistics
    messages_dropped: int
    """Messages that the handler did not read in time."""


class Session:
    """Made by the gateway for each hello that it accepts, and given to the handler.

    Attributes:
        id: The session id that both sides name.
        device: Who it is.
        hello: What the device said it can do and will send.
        audio: Its audio, frame by frame.
    """

    def __init__(
        self,
        session_id: str,
        device: DeviceId,
        hello: Hello,
        link: AudioLink,
        *,
        settings: Settings,
        pool: WorkerPool,
        sender: DatagramSender,
        send: Callable[[bytes], bool],
        on_end: Callable[[EndReason], None],
        now: float,
    ) -> None:
        self.id = session_id
        self.device = device
        self.hello = hello
        self.link = link
        self.scope = trio.CancelScope()
        self.end_reason: EndReason | None = None
        self._send_bytes = send
        self._on_end = on_end
        self._settings = settings
        self._uplink = Uplink(
            link, pool, hello.audio, settings.audio, backlog=settings.sessions.audio_backlog
        )
        self._playback = Playback(
            link,
            sender,
            pool,
            settings.audio,
            lookahead=settings.sessions.lookahead_frames,
            address_known=self._uplink.address_known,
            tts=self._tts,
        )
        self._mcp = McpClient(lambda payload: self.send(mcp(self.id, payload)))
        self._inbox = Inbox(settings.sessions.inbox_messages, settings.sessions.inbox_bytes)
        self._duplex = hello.speaks_while_listening
        self._message_at = now  # the last one, either way
        self._heard_at = now  # from the device
        self._datagram_at = -math.inf
        self._asked_at = -math.inf
        self.audio = AudioIn(self._uplink, settings.audio)

    # What handlers use.

    def utterances(self) -> Utterances:
        """What the device's user says, one after the other: `async for utterance in ...`."""
        return Utterances(self._uplink, self._settings.audio)

    async def play(self, source: Source, rate: int | None = None) -> bool:
        """Speak to the device, after whatever it is playing already.

        Args:
            source: Samples of any length, mono, shape (n,) or (n, 1): int16, or float32 or float64
                with full scale at 1.0 (clipped beyond, NaN is silence), whatever format the session
                hears; or an async iterable of such chunks (a generator is closed in the end).
            rate: Of the source, in Hz; by default that of `session.audio`.

        Returns:
            True when the device has played it to the end, False when its user interrupted; that
            ends what plays and what waits for its turn.

        Raises:
            TypeError, ValueError: The samples have another type or shape.
            KeystreamExhausted: Nothing more can be encrypted with the session's key, after 49.7
                days. The session has ended, and the device makes a new one with its next hello.
            SessionClosed: The session has ended.
        """
        self._check_open()
        self._asked_at = -math.inf
        try:
            return await self._playback.play(source, self.audio.rate if rate is None else rate)
        except KeystreamExhausted:
            self.end("exhausted")
            raise

    def send(self, message: Message) -> None:
        """Send a JSON message to the device.

        Raises:
            SessionClosed: The session has ended.
        """
        self._check_open()
        payload = encode(message)
        self._message_at = trio.current_time()
        self._send_bytes(payload)

    async def receive(self) -> Message:
        """Wait for the device's next JSON message: listen, abort, mcp or whatever else it says.

        The newest are kept for a handler that does not read them: `sessions.inbox_messages`, and of
        those `sessions.inbox_bytes`.

        Raises:
            trio.EndOfChannel: The session has ended and everything was read.
        """
        return await self._inbox.get()

    async def call_tool(self, name: str, arguments: Message, *, timeout: float = 10.0) -> Any:  # noqa: ASYNC109  it ends in a ToolCallError that says so
        """Call an MCP tool of the device.

        Args:
            name: "self.audio_speaker.set_volume", ...
            arguments: What the tool's schema asks for.
            timeout: Seconds to wait for the device. The default is a guess.

        Returns:
            The JSON-RPC `result`.

        Raises:
            ToolCallError: The device answered with an error, or not in time.
            SessionClosed: The session ended first.
        """
        return await self._mcp.request(
            "tools/call", {"name": name, "arguments": arguments}, timeout=timeout
        )

    def close(self) -> None:
        """End the session, as if the handler had returned."""
        self.end("backend_ended")

    def statistics(self) -> SessionStatistics:
        """What became of its frames and messages."""
        return SessionStatistics(
            up=self._uplink.statistics(),
            down=self._playback.statistics(),
            messages_dropped=self._inbox.dropped,
        )

    # What the gateway uses.

    def deliver(self, message: Message, now: float) -> None:
        """Take a message that names this session, or none."""
        self._message_at = self._heard_at = now
        kind = message.get("type")
        if kind == "listen":
            self._listen(message, now)
        elif kind == "abort":
            self._playback.abort()
        elif kind == "mcp" and self._mcp.receive_untrusted(message.get("payload")):
            return
        self._inbox.put(message)

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram with this session's ssrc.

        Raises:
            BadPacket: It is refused.
        """
        self._uplink.receive_datagram_untrusted(data, addr, now)
        # Not `now`: anybody can send what is not believed.
        self._datagram_at = self.link.heard_at
        self._heard_at = max(self._heard_at, self._datagram_at)

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self._uplink.get_timer(), self._idle_at())

    def handle_timer(self, now: float) -> None:
        """Do what is due by `now`."""
        self._uplink.handle_timer(now)
        if now >= self._idle_at():
            self.end("idle")

    def is_quiet(self, now: float) -> bool:
        """Whether nothing would be cut off if the session ended now."""
        speaking = now < self._datagram_at + QUIET
        answering = now < self._asked_at + ANSWER
        playing = self._playback.playing and self._uplink.address_known.is_set()
        return not (speaking or answering or playing)

    def end(self, reason: EndReason) -> None:
        """End it, once: stop playing, cancel the handler, say so."""
        if self.end_reason is None:
            self.end_reason = reason
            self._playback.close()
            self._uplink.close()
            self._mcp.close()
            self._inbox.close()
            self.scope.cancel()
            self._on_end(reason)

    def price(self, otherwise: Costs) -> Price:
        """What it reserves; `otherwise`, where no frame of its own has been measured."""
        decode_s, encode_s = self.costs
        costs = Costs(
            otherwise.decode_s if decode_s is None else decode_s,
            otherwise.encode_s if encode_s is None else encode_s,
        )
        return Price.of(
            costs,
            up_s=self._uplink.frame_ms / 1000,
            down_s=self._playback.frame_ms / 1000,
            duplex=self._duplex,
        )

    @property
    def costs(self) -> tuple[float | None, float | None]:
        """Seconds that decoding and encoding a frame took lately; None before any."""
        return self._uplink.cost, self._playback.cost

    def settle(self) -> None:
        """The handler has left: what it did not read, nobody will."""
        self._uplink.settle()

    def _check_open(self) -> None:
        if self.end_reason is not None:
            raise SessionClosed(f"the session has ended: {self.end_reason}")

    def _idle_at(self) -> float:
        # What we say counts, too: it keeps the device's side of the channel open.
        sessions = self._settings.sessions
        last = max(self._message_at, self._datagram_at, self._playback.sent_at)
        return min(last + sessions.idle_timeout, self._heard_at + sessions.unheard_timeout)

    def _listen(self, message: Message, now: float) -> None:
        state = message.get("state")
        if state == "start":
            mode = _mode(message)
            self._duplex = self._duplex or mode == "realtime"
            self._uplink.begin_talk(mode, now)
        elif state == "stop":
            self._asked_at = now
            self._uplink.end_talk(now)

    def _tts(self, state: str) -> None:
        if self.end_reason is None:
            self.send(tts(self.id, "start" if state == "start" else "stop"))


def _mode(message: Message) -> ListenMode:
    mode = message.get("mode")
    return mode if mode in ("manual", "realtime") else "auto"
