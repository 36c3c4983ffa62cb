"""A session, as a handler sees it: one device, from its hello to its goodbye.

async def parrot(session: Session) -> None:
    async for utterance in session.utterances():
        await session.play(await utterance.collect())
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import trio
from attrs import frozen

from trio_gateway.core.control import encode, mcp, tts
from trio_gateway.core.voice import VoiceActivity
from trio_gateway.errors import SessionClosed
from trio_gateway.mcp import McpClient
from trio_gateway.playback import Playback
from trio_gateway.uplink import Talk, TalkEnd, Uplink

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trio_gateway.core.control import Hello, Message
    from trio_gateway.core.identity import DeviceId
    from trio_gateway.core.link import AudioLink
    from trio_gateway.interfaces import Address, DatagramSender
    from trio_gateway.playback import Source
    from trio_gateway.settings import Settings
    from trio_gateway.uplink import ListenMode
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["AudioIn", "EndReason", "Session", "SessionStatistics", "Utterance"]

EndReason = Literal[
    "goodbye",
    "replaced",
    "idle",
    "backend_ended",
    "backend_failed",
    "failed",
    "shutdown",
    "disconnected",
]

MAX_UTTERANCE = 60.0  # seconds; a guess: nobody speaks longer without a breath, but a radio does

# A call without a datagram for this long, nothing to play and nothing to answer is quiet: shutdown
# need not wait for it. A guess: sixteen frames.
QUIET = 1.0


@frozen(kw_only=True)
class SessionStatistics:
    """Frames of one session by what became of them."""

    received: int
    """Datagrams that were taken."""
    lost: int
    """Frames that never came, as far as the sequence tells."""
    decoded: int
    concealed: int
    """Lost frames that libopus filled in."""
    failed: int
    """Frames that libopus refused, either way."""
    dropped: int
    """Frames given up in overload, either way."""
    sent: int
    """Frames sent to the device."""


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
        now: float,
    ) -> None:
        self.id = session_id
        self.device = device
        self.hello = hello
        self.link = link
        self.scope = trio.CancelScope()
        self.end_reason: EndReason | None = None
        self._send_bytes = send
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
        self._inbox: deque[Message] = deque(maxlen=settings.sessions.inbox_messages)
        self._inbox_news = trio.Event()
        self.inbox_dropped = 0
        self._heard_at = now
        self._datagram_at = -math.inf
        self._unanswered = False
        self.audio = AudioIn(self._uplink)

    # What handlers use.

    def utterances(self) -> Utterances:
        """What the device's user says, one talk after the other: `async for utterance in ...`."""
        return Utterances(self._uplink, self._settings)

    async def play(self, source: Source, rate: int | None = None) -> bool:
        """Speak to the device, after whatever it is playing already.

        Args:
            source: Samples of any length, mono, shape (n,): int16, or float32 or float64 with full
                scale at 1.0; or an async iterable of such chunks.
            rate: Of the source, in Hz; by default that of `session.audio`.

        Returns:
            True when the device has played it to the end, False when its user interrupted.

        Raises:
            ValueError: The samples have another type or shape.
            SessionClosed: The session has ended.
        """
        if self.end_reason is not None:
            raise SessionClosed(f"the session has ended: {self.end_reason}")
        self._unanswered = False
        return await self._playback.play(source, rate or self.audio.rate)

    def send(self, message: Message) -> None:
        """Send a JSON message to the device.

        Raises:
            SessionClosed: The session has ended.
        """
        if self.end_reason is not None:
            raise SessionClosed(f"the session has ended: {self.end_reason}")
        self._send_bytes(encode(message))

    async def receive(self) -> Message:
        """Wait for the device's next JSON message: listen, abort, mcp or whatever else it says.

        The newest `sessions.inbox_messages` are kept for a handler that does not read them.

        Raises:
            trio.EndOfChannel: The session has ended and everything was read.
        """
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self.end_reason is not None:
                raise trio.EndOfChannel
            self._inbox_news = trio.Event()
            await self._inbox_news.wait()
        return self._inbox.popleft()

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
        """What became of its frames."""
        uplink, playback = self._uplink, self._playback
        link = self.link.statistics()
        return SessionStatistics(
            received=link.received,
            lost=link.lost + link.skipped,
            decoded=uplink.decoded,
            concealed=uplink.concealed,
            failed=uplink.failed + playback.failed,
            dropped=uplink.dropped + playback.dropped,
            sent=playback.sent,
        )

    # What the gateway uses.

    def deliver(self, message: Message, now: float) -> None:
        """Take a message that names this session, or none."""
        self._heard_at = now
        kind = message.get("type")
        if kind == "listen":
            self._listen(message, now)
        elif kind == "abort":
            self._playback.abort()
        elif kind == "mcp" and self._mcp.receive_untrusted(message.get("payload")):
            return
        if len(self._inbox) == self._inbox.maxlen:
            self.inbox_dropped += 1
        self._inbox.append(message)
        self._inbox_news.set()

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram with this session's ssrc.

        Raises:
            BadPacket: It is refused.
        """
        self._uplink.receive_datagram_untrusted(data, addr, now)
        self._heard_at = self._datagram_at = now

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        idle = self._heard_at + self._settings.sessions.idle_timeout
        return min(self._uplink.get_timer(), idle)

    def handle_timer(self, now: float) -> None:
        """Do what is due by `now`."""
        self._uplink.handle_timer(now)
        if now >= self._heard_at + self._settings.sessions.idle_timeout:
            self.end("idle")

    def is_quiet(self, now: float) -> bool:
        """Whether nothing would be cut off if the session ended now."""
        speaking = now - self._datagram_at < QUIET
        return not (speaking or self._playback.playing or self._unanswered)

    def end(self, reason: EndReason) -> None:
        """End it, once: stop playing, cancel the handler."""
        if self.end_reason is None:
            self._playback.close()
            self.end_reason = reason
            self._uplink.close()
            self._mcp.close()
            self._inbox_news.set()
            self.scope.cancel()

    def _listen(self, message: Message, now: float) -> None:
        state = message.get("state")
        if state == "start":
            self._uplink.begin_talk(_mode(message))
        elif state == "stop":
            self._unanswered = True
            self._uplink.end_talk(now)

    def _tts(self, state: str) -> None:
        if self.end_reason is None:
            self.send(tts(self.id, "start" if state == "start" else "stop"))


class AudioIn:
    """A device's audio: `async for frame in session.audio`, int16 of shape (samples,).

    Ends with the session. One task at a time may read it, or its utterances.

    Attributes:
        rate: Hz.
        frame_ms: Milliseconds in a frame.
    """

    def __init__(self, uplink: Uplink) -> None:
        self.rate = uplink.rate
        self.frame_ms = uplink.frame_ms
        self._uplink = uplink

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.int16]:
        while True:
            try:
                item = await self._uplink.next()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(item, np.ndarray):
                return item


class Utterances:
    """Iterates over a session's utterances. The rest of one that was not read is skipped."""

    def __init__(self, uplink: Uplink, settings: Settings) -> None:
        self._uplink = uplink
        self._settings = settings
        self._current: Utterance | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Utterance:
        if self._current is not None:
            async for _ in self._current:
                pass
        try:
            while not isinstance(item := await self._uplink.next(), Talk):
                pass
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        self._current = Utterance(self._uplink, self._settings, item)
        return self._current


class Utterance:
    """What is said between `listen start` and `listen stop`.

    In auto mode it also ends when the voice pauses for `audio.voice_pause`. An async iterator over
    its frames, int16 of shape (samples,), while it lasts.

    Attributes:
        mode: "auto", "manual" or "realtime".
    """

    def __init__(self, uplink: Uplink, settings: Settings, talk: Talk) -> None:
        self.mode = talk.mode
        self._implied = talk.implied
        self._uplink = uplink
        self._voice = VoiceActivity(
            threshold_dbfs=settings.audio.voice_threshold_dbfs, pause=settings.audio.voice_pause
        )
        self._frames_left = math.inf
        if talk.mode != "realtime":
            self._frames_left = MAX_UTTERANCE * 1000 // uplink.frame_ms
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.int16]:
        while not self._ended:
            item = await self._next()
            if isinstance(item, np.ndarray):
                return item
            if isinstance(item, Talk) and self._implied:  # the `listen start` of what we hear
                self.mode, self._implied = item.mode, False
                continue
            self._ended = True
            if isinstance(item, Talk):  # a new start without a stop
                self._uplink.unread(item)
        raise StopAsyncIteration

    async def collect(self) -> NDArray[np.int16]:
        """Wait for its end; return all of it, shape (samples,)."""
        frames = [frame async for frame in self]
        return np.concatenate(frames) if frames else np.empty(0, np.int16)

    async def _next(self) -> NDArray[np.int16] | Talk | TalkEnd:
        if self._frames_left <= 0:
            return TalkEnd()
        ends_at = self._voice.ends_at() if self.mode == "auto" else math.inf
        with trio.move_on_at(ends_at):
            try:
                item = await self._uplink.next()
            except trio.EndOfChannel:
                return TalkEnd()
            if isinstance(item, np.ndarray):
                self._frames_left -= 1
                if self.mode == "auto":
                    self._voice.hear(item, trio.current_time())
            return item
        return TalkEnd()


def _mode(message: Message) -> ListenMode:
    mode = message.get("mode")
    return mode if mode in ("manual", "realtime") else "auto"
