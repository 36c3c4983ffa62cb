"""Where the parts meet. gateway.py joins them; each part knows only these.

All methods are called in the Trio thread. None of them blocks or awaits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trio_gateway.core.link import Address

if TYPE_CHECKING:
    from trio_gateway.core.control import Message

__all__ = ["Address", "ControlFront", "ControlSink", "DatagramReceiver", "DatagramSender"]


class ControlSink(Protocol):
    """Takes what devices say. The sessions are one."""

    def device_connected(self, client_id: str) -> None:
        """The device has an authenticated connection. Only the embedded endpoint knows."""

    def device_disconnected(self, client_id: str) -> None:
        """That connection is gone."""

    def deliver(self, client_id: str, message: Message) -> None:
        """A device sent `message`. Never raises."""


class ControlFront(Protocol):
    """Reaches devices over MQTT: the embedded endpoint, or an external broker."""

    def send(self, client_id: str, payload: bytes) -> bool:
        """Queue `payload` for a device. False when it cannot be reached, which is counted."""


class DatagramReceiver(Protocol):
    """Takes the datagrams of one ssrc."""

    def knows(self, addr: Address) -> bool:
        """Whether its device is there, or was before it moved; until it has spoken, it may be."""

    def receive_datagram_untrusted(self, data: bytes, addr: Address, now: float) -> None:
        """Take one datagram.

        Raises:
            BadPacket: It is refused, and why.
        """


class DatagramSender(Protocol):
    """Sends datagrams: the UDP plane is one."""

    def send(self, data: bytes, addr: Address) -> bool:
        """Send at once, or drop and count it (False): audio never waits for a socket."""
