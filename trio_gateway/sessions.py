"""All sessions: devices' messages and datagrams find their session here, hellos make new ones.

Rule 1: a device has one session at most. A new hello replaces it: the old one says goodbye with its
own id and is cancelled; nothing that names the old id reaches the new one.
Rule 2: whatever goes wrong in a session ends that session with a goodbye, and nothing else.
Rule 3: a hello is always answered: with a session, or with an alert and a goodbye that say why not.
"""

from __future__ import annotations

import math
import secrets
import uuid
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio
from attrs import asdict, define, frozen

from trio_gateway.core.control import (
    AudioParams,
    alert,
    encode,
    goodbye,
    hello_answer,
    parse_hello_untrusted,
)
from trio_gateway.core.identity import DeviceId
from trio_gateway.core.link import AudioLink
from trio_gateway.errors import BadMessage, BadPacket
from trio_gateway.session import Session, SessionStatistics
from trio_gateway.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.core.control import Hello, Message
    from trio_gateway.interfaces import Address, ControlFront, DatagramReceiver, DatagramSender
    from trio_gateway.session import EndReason
    from trio_gateway.settings import Settings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Handler", "Sessions", "SessionsStatistics"]

log = structlog.get_logger(__name__)

Handler: TypeAlias = "Callable[[Session], Awaitable[None]]"

KEY_BYTES = 16  # AES-128
_POLL = 0.05  # seconds between looks at what is still busy during a drain; a guess


@frozen(kw_only=True)
class SessionsStatistics:
    """All sessions, those that are over included; counters never go back."""

    active: int
    """Sessions open now."""
    opened: int
    refused: dict[str, int]
    """Hellos that got no session, by reason."""
    closed: dict[str, int]
    """Sessions that ended, by reason."""
    stale: int
    """Messages that named a session that is over."""
    frames_up: int
    """Frames decoded, lost ones not counted."""
    frames_down: int
    """Frames sent."""
    lost: int
    """Uplink frames that never came."""
    concealed: int
    """Of them those that were filled in."""
    failed: int
    """Frames that libopus refused."""
    dropped: int
    """Frames given up in overload."""
    received: int
    """Datagrams with a live ssrc."""


@define(eq=False)
class _Live:
    """A session and its place in the timers."""

    session: Session
    timers: Timers
    fail: Callable[[_Live, Exception], None]
    armed: float = math.inf

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """See DatagramReceiver."""
        try:
            self.session.receive_datagram_untrusted(data, addr, now)
        except BadPacket:
            raise
        except Exception as error:  # noqa: BLE001  rule 2
            self.fail(self, error)
        finally:
            self.arm()

    def deliver(self, message: Message, now: float) -> None:
        """Take a message of its device."""
        try:
            self.session.deliver(message, now)
        except Exception as error:  # noqa: BLE001  rule 2
            self.fail(self, error)
        self.arm()

    def arm(self) -> None:
        """Have `_wake` called when the session wants it; a wake-up that comes early is harmless."""
        due = self.session.get_timer()
        if due < self.armed and self.session.end_reason is None:
            self.armed = due
            self.timers.call_at(due, self._wake)

    def _wake(self) -> None:
        self.armed = math.inf
        now = trio.current_time()
        if self.session.end_reason is None and now >= self.session.get_timer():
            try:
                self.session.handle_timer(now)
            except Exception as error:  # noqa: BLE001  rule 2
                self.fail(self, error)
        self.arm()


class Sessions:
    """Implements `ControlSink`, and the UDP plane's `route`.

    Args:
        settings: The whole tree: sessions are where its parts meet.
        pool: Codec workers.
    """

    def __init__(self, settings: Settings, pool: WorkerPool) -> None:
        self._settings = settings
        self._pool = pool
        self._control: ControlFront | None = None
        self._audio: DatagramSender | None = None
        self._public: tuple[str, int] = ("", 0)
        self._nursery: trio.Nursery | None = None
        self._handler: Handler | None = None
        self._draining = False
        self._by_device: dict[str, _Live] = {}
        self._by_ssrc: dict[int, _Live] = {}
        self._timers = Timers()
        self._opened = 0
        self._refused: Counter[str] = Counter()
        self._closed: Counter[EndReason] = Counter()
        self._stale = 0
        self._past: Counter[str] = Counter()

    def attach(
        self, *, control: ControlFront, audio: DatagramSender, public: tuple[str, int]
    ) -> None:
        """Say how devices are reached, and which UDP host and port they are told."""
        self._control, self._audio, self._public = control, audio, public

    async def serve(
        self, handler: Handler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Give every new session to `handler`, until `drain` has ended the last one, or cancelled.

        Raises:
            RuntimeError: It is being served already.
        """
        if self._nursery is not None:
            raise RuntimeError("these sessions are being served already")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._timers.run)
                self._handler, self._nursery = handler, nursery
                task_status.started()
        finally:
            self._nursery = self._handler = None

    async def drain(self, grace: float) -> None:
        """Take no more hellos; end each session when it is quiet, all after `grace` seconds."""
        self._draining = True
        with trio.move_on_after(grace):
            while self._by_device:
                now = trio.current_time()
                for live in list(self._by_device.values()):
                    if live.session.is_quiet(now):
                        self._end(live, "shutdown")
                await trio.sleep(_POLL)
        for live in list(self._by_device.values()):
            self._end(live, "shutdown")
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    @property
    def serving(self) -> bool:
        """Whether a hello gets a session."""
        return self._handler is not None and not self._draining

    def route(self, ssrc: int) -> DatagramReceiver | None:
        """The session of an ssrc."""
        return self._by_ssrc.get(ssrc)

    @property
    def live(self) -> tuple[Session, ...]:
        """The sessions that are open."""
        return tuple(live.session for live in self._by_device.values())

    # ControlSink

    def device_connected(self, client_id: str) -> None:
        """See ControlSink."""
        log.debug("device connected", device=client_id)

    def device_disconnected(self, client_id: str) -> None:
        """See ControlSink."""
        live = self._by_device.get(client_id)
        if live is not None:
            self._end(live, "disconnected")

    def deliver(self, client_id: str, message: Message) -> None:
        """See ControlSink."""
        if self._control is None:  # not wired yet: the device asks again
            return
        kind = message.get("type")
        live = self._by_device.get(client_id)
        if kind == "hello":
            self._hello(client_id, message, live)
        elif live is None:
            # A goodbye is not answered with a goodbye: firmware answers each, and would for ever.
            if kind not in ("goodbye", "mcp"):
                self._stale += 1
                self._send(client_id, goodbye(_session_id(message)))
        elif _session_id(message) not in ("", live.session.id):
            self._stale += 1
        elif kind in ("goodbye", "udp_timeout"):
            self._end(live, "goodbye")
        else:
            live.deliver(message, trio.current_time())

    def statistics(self) -> SessionsStatistics:
        """The numbers at this moment."""
        totals = Counter(self._past)
        for live in self._by_device.values():
            totals.update(_counts(live.session.statistics()))
        return SessionsStatistics(
            active=len(self._by_device),
            opened=self._opened,
            refused=dict(self._refused),
            closed={str(reason): number for reason, number in self._closed.items()},
            stale=self._stale,
            frames_up=totals["decoded"],
            frames_down=totals["sent"],
            lost=totals["lost"],
            concealed=totals["concealed"],
            failed=totals["failed"],
            dropped=totals["dropped"],
            received=totals["received"],
        )

    # Hello and goodbye

    def _hello(self, client_id: str, message: Message, live: _Live | None) -> None:
        if live is not None:
            self._end(live, "replaced")
        try:
            hello = parse_hello_untrusted(message)
        except BadMessage as bad:
            self._refuse(client_id, bad.reason, f"This device's hello is not understood: {bad}")
            return
        if self._nursery is None or self._handler is None or not self.serving:
            self._refuse(client_id, "not_serving", "The gateway is not taking calls right now.")
        elif len(self._by_device) >= self._settings.sessions.max_sessions:
            self._refuse(client_id, "full", "All lines are busy. Please try again later.")
        else:
            self._open(client_id, hello, self._handler, self._nursery)

    def _open(self, client_id: str, hello: Hello, handler: Handler, nursery: trio.Nursery) -> None:
        assert self._audio is not None  # noqa: S101  deliver() has checked
        audio = self._settings.audio
        key = secrets.token_bytes(KEY_BYTES)
        link = AudioLink(
            key,
            self._new_ssrc(),
            frame_s=hello.audio.frame_ms / 1000,
            reorder_wait=audio.reorder_wait,
            max_gap_frames=audio.max_gap_frames,
        )
        session = Session(
            str(uuid.uuid4()),
            DeviceId.parse(client_id),
            hello,
            link,
            settings=self._settings,
            pool=self._pool,
            sender=self._audio,
            send=lambda payload: self._send_bytes(client_id, payload),
            now=trio.current_time(),
        )
        live = _Live(session, self._timers, self._fail)
        self._by_device[client_id] = self._by_ssrc[link.ssrc] = live
        self._opened += 1
        live.arm()
        host, port = self._public
        down = AudioParams(rate=audio.downlink_rate, frame_ms=audio.downlink_frame_ms)
        self._send(client_id, hello_answer(session.id, down, host, port, key=key, nonce=link.nonce))
        log.info("session opened", device=client_id, session=session.id)
        nursery.start_soon(self._run, live, handler)

    async def _run(self, live: _Live, handler: Handler) -> None:
        reason: EndReason = "backend_ended"
        try:
            with live.session.scope:
                await handler(live.session)
        except Exception as error:
            # A handler is somebody else's code: its errors end its own call.
            reason = "backend_failed"
            if live.session.end_reason is None:
                log.exception("handler failed", session=live.session.id)
            else:  # it noticed the end before the cancellation reached it
                log.debug("handler failed", session=live.session.id, why=repr(error))
        except BaseException:
            reason = "shutdown"
            raise
        finally:
            self._end(live, reason)

    def _end(self, live: _Live, reason: EndReason) -> None:
        """End a session, once."""
        session = live.session
        if self._by_ssrc.pop(session.link.ssrc, None) is None:
            return
        if self._by_device.get(session.device.text) is live:
            del self._by_device[session.device.text]
        session.end(reason)
        self._past.update(_counts(session.statistics()))
        ended = session.end_reason or reason
        self._closed[ended] += 1
        if ended != "disconnected":
            self._send(session.device.text, goodbye(session.id))
        log.info("session closed", device=session.device.text, session=session.id, reason=ended)

    def _fail(self, live: _Live, error: Exception) -> None:
        """Something of ours broke on what one device sent: a bug, and still only its own call."""
        log.error("session failed", session=live.session.id, exc_info=error)
        self._end(live, "failed")

    def _refuse(self, client_id: str, reason: str, text: str) -> None:
        """Stock firmware knows no error message: a person sees the alert, the device hangs up."""
        self._refused[reason] += 1
        log.info("hello refused", device=client_id, reason=reason)
        self._send(client_id, alert("Error", text, "sad"))
        self._send(client_id, goodbye(""))

    def _send(self, client_id: str, message: Message) -> None:
        self._send_bytes(client_id, encode(message))

    def _send_bytes(self, client_id: str, payload: bytes) -> bool:
        assert self._control is not None  # noqa: S101  deliver() has checked
        return self._control.send(client_id, payload)

    def _new_ssrc(self) -> int:
        while (ssrc := secrets.randbits(32)) in self._by_ssrc or not ssrc:
            pass
        return ssrc


def _session_id(message: Message) -> str:
    value = message.get("session_id")
    return value if isinstance(value, str) else ""


def _counts(statistics: SessionStatistics) -> dict[str, int]:
    return asdict(statistics)
