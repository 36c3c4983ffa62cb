"""A session among the others: the border that none of its exceptions crosses, and its timer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from trio_gateway.core.control import Message
    from trio_gateway.interfaces import Address
    from trio_gateway.session import Session
    from trio_gateway.timers import Timers

__all__ = ["LiveSession"]

log = structlog.get_logger(__name__)


class LiveSession:
    """Implements `DatagramReceiver` for one session.

    Whatever goes wrong in it ends it with a goodbye, and nothing else.

    Args:
        session: The session.
        timers: Where it gets its timer.
    """

    def __init__(self, session: Session, timers: Timers) -> None:
        self.session = session
        self.timer = timers.timer(self._wake)
        self._arm()

    def knows(self, addr: Address) -> bool:
        """See DatagramReceiver."""
        return self.session.link.knows(addr)

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """See DatagramReceiver."""
        try:
            self.session.receive_datagram_untrusted(data, addr, now)
        except BadPacket:
            raise
        except Exception as error:  # noqa: BLE001  see the class
            self._fail(error)
        finally:
            self._arm()

    def deliver(self, message: Message, now: float) -> None:
        """Take a message of its device."""
        try:
            self.session.deliver(message, now)
        except Exception as error:  # noqa: BLE001  see the class
            self._fail(error)
        self._arm()

    def _wake(self) -> None:
        now = trio.current_time()
        try:
            if now >= self.session.get_timer():  # else it was put off
                self.session.handle_timer(now)
        except Exception as error:  # noqa: BLE001  see the class
            self._fail(error)
        self._arm()

    def _arm(self) -> None:
        self.timer.wake_by(self.session.get_timer())

    def _fail(self, error: Exception) -> None:
        """Something of ours broke on what one device sent: a bug, and still only its own call."""
        log.error("session failed", session=self.session.id, exc_info=error)
        self.session.end("failed")
