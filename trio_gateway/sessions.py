"""All sessions: devices' messages and datagrams find their session here, hellos make new ones.

Rule 1: a device has one session at most. A new hello replaces it: the old one says goodbye with its
own id and is cancelled; nothing that names the old id reaches the new one.
Rule 2: whatever goes wrong in a session ends that session with a goodbye, and nothing else.
Rule 3: a hello is always answered: with a session, or with an alert and a goodbye that say why not.
"""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from trio_gateway.core.admission import Capacity
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
from trio_gateway.errors import BadMessage
from trio_gateway.live import LiveSession
from trio_gateway.reservations import Reservations
from trio_gateway.session import Session
from trio_gateway.tally import SessionsStatistics, Tally
from trio_gateway.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.core.admission import Shortage
    from trio_gateway.core.control import Hello, Message
    from trio_gateway.interfaces import ControlFront, DatagramReceiver, DatagramSender
    from trio_gateway.session import EndReason
    from trio_gateway.settings import Settings
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["Handler", "Sessions"]

log = structlog.get_logger(__name__)

Handler: TypeAlias = "Callable[[Session], Awaitable[None]]"

KEY_BYTES = 16  # AES-128
_BUSY = "All lines are busy. Please try again later."
_POLL = 0.05  # seconds between looks at what is still busy during a drain; a guess


class Sessions:
    """Implements `ControlSink`, and the UDP plane's `route`.

    Args:
        settings: The whole tree: sessions are where its parts meet.
        pool: Codec workers.
        cores: That this process may use; calls reserve them.
    """

    def __init__(self, settings: Settings, pool: WorkerPool, *, cores: float) -> None:
        self._settings = settings
        self._pool = pool
        self._reservations = Reservations(_capacity(settings, cores))
        self._control: ControlFront | None = None
        self._audio: DatagramSender | None = None
        self._public: tuple[str, int] = ("", 0)
        self._nursery: trio.Nursery | None = None
        self._handler: Handler | None = None
        self._draining = False
        self._by_device: dict[str, LiveSession] = {}
        self._by_ssrc: dict[int, LiveSession] = {}
        self._timers = Timers()
        self._opened = 0
        self._refused: Counter[str] = Counter()
        self._closed: Counter[EndReason] = Counter()
        self._stale = 0
        self._tally = Tally()

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
        self._draining = False
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
                        live.session.end("shutdown")
                await trio.sleep(_POLL)
        for live in list(self._by_device.values()):
            live.session.end("shutdown")
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
            live.session.end("disconnected")

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
            live.session.end("goodbye")
        else:
            live.deliver(message, trio.current_time())

    def statistics(self) -> SessionsStatistics:
        """The numbers at this moment."""
        total = self._tally.total()
        return SessionsStatistics(
            active=len(self._by_device),
            leaving=len(self._tally) - len(self._by_device),
            opened=self._opened,
            refused=dict(self._refused),
            closed={str(reason): number for reason, number in self._closed.items()},
            stale=self._stale,
            up=total.up,
            down=total.down,
            messages_dropped=total.messages_dropped,
            reserved_cores=self._reservations.total.cores,
        )

    # Hello and goodbye

    def _hello(self, client_id: str, message: Message, live: LiveSession | None) -> None:
        if live is not None:
            live.session.end("replaced")
        try:
            hello = parse_hello_untrusted(message)
        except BadMessage as bad:
            self._refuse(client_id, bad.reason, f"This device's hello is not understood: {bad}")
            return
        nursery, most = self._nursery, self._settings.sessions.max_sessions
        if nursery is None or self._handler is None or self._draining:
            self._refuse(client_id, "not_serving", "The gateway is not taking calls right now.")
        elif len(self._by_device) >= most:
            self._refuse(client_id, "full", _BUSY)
        # Twice: handlers of sessions that are over may take a moment to leave, not for ever.
        elif (handlers := len(self._tally)) >= 2 * most:
            leaving = handlers - len(self._by_device)
            self._refuse(client_id, "handlers", _BUSY, handlers_that_do_not_end=leaving)
        elif (shortage := self._shortage(hello)) is not None:
            self._refuse(client_id, "no_capacity", _BUSY, short_of=shortage)
        else:
            try:
                self._open(client_id, hello, self._handler, nursery)
            except Exception:
                log.exception("session not opened", device=client_id)
                if (opened := self._by_device.get(client_id)) is not None:
                    opened.session.end("failed")
                self._refuse(client_id, "failed", "The gateway has failed. Please try again.")

    def _shortage(self, hello: Hello) -> Shortage | None:
        return self._reservations.shortage(
            up_s=hello.audio.frame_ms / 1000,
            down_s=self._settings.audio.downlink_frame_ms / 1000,
            duplex=hello.speaks_while_listening,
            now=trio.current_time(),
        )

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
        host, port = self._public
        down = AudioParams(rate=audio.downlink_rate, frame_ms=audio.downlink_frame_ms)
        session_id = str(uuid.uuid4())
        answer = hello_answer(session_id, down, host, port, key=key, nonce=link.nonce)
        session = Session(
            session_id,
            DeviceId.parse(client_id),
            hello,
            link,
            settings=self._settings,
            pool=self._pool,
            sender=self._audio,
            send=partial(self._send_bytes, client_id),
            on_end=lambda reason: self._ended(session, reason),
            now=trio.current_time(),
        )
        self._reservations.add(session)
        self._by_device[client_id] = self._by_ssrc[link.ssrc] = LiveSession(session, self._timers)
        nursery.start_soon(self._run, session, handler)  # from here on it can end, and be found
        self._tally.begin(session)
        self._opened += 1
        self._send(client_id, answer)
        log.info("session opened", device=client_id, session=session.id)

    async def _run(self, session: Session, handler: Handler) -> None:
        # A handler is somebody else's code: its errors end its own call.
        reason: EndReason = "backend_ended"
        try:
            with session.scope:
                await handler(session)
        except Exception as error:  # noqa: BLE001  see above
            reason = "backend_failed"
            _log_failure(session, error)
        except BaseExceptionGroup as group:  # from its nursery, while everybody is cancelled
            reason = "shutdown"
            failures, others = group.split(Exception)
            if failures is not None:
                _log_failure(session, failures)
            if others is not None:
                raise others from None
        except BaseException:
            reason = "shutdown"
            raise
        finally:
            session.end(reason)
            self._tally.settle(session)

    def _ended(self, session: Session, reason: EndReason) -> None:
        live = self._by_ssrc.pop(session.link.ssrc)
        self._reservations.discard(session)
        live.timer.cancel()
        if self._by_device.get(session.device.text) is live:
            del self._by_device[session.device.text]
        self._closed[reason] += 1
        if reason != "disconnected":
            self._send(session.device.text, goodbye(session.id))
        log.info("session closed", device=session.device.text, session=session.id, reason=reason)

    def _refuse(self, client_id: str, reason: str, text: str, **why: str | int) -> None:
        """Stock firmware knows no error message: a person sees the alert, the device hangs up."""
        self._refused[reason] += 1
        log.info("hello refused", device=client_id, reason=reason, **why)
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


def _capacity(settings: Settings, cores: float) -> Capacity | None:
    share = settings.sessions.max_reserved
    if share is None:
        return None
    return Capacity(cores=cores, workers=settings.pool.max_workers, share=share)


def _session_id(message: Message) -> str:
    value = message.get("session_id")
    return value if isinstance(value, str) else ""


def _log_failure(session: Session, error: Exception) -> None:
    if session.end_reason is None:
        log.error("handler failed", session=session.id, exc_info=error)
    else:  # it noticed the end before the cancellation reached it
        log.debug("handler failed", session=session.id, why=repr(error))
