"""What the tests of an external broker share: a sink that keeps, and settings in a hurry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from trio_gateway.settings import BrokerUrl, MqttSettings

if TYPE_CHECKING:
    from mosquitto import Mosquitto

    from trio_gateway.core.control import Message

__all__ = ["PATIENCE", "KeepingSink", "settings_for"]

PATIENCE = 30.0
"""Seconds until a test counts as hung. Each takes far below three on an idle machine."""


def settings_for(broker: Mosquitto, **changes: Any) -> MqttSettings:
    """Return settings that lead to `broker` and retry at once."""
    given: dict[str, Any] = {"url": broker.url, "reconnect_min": 0.01, "reconnect_max": 0.05}
    given |= changes
    return MqttSettings(**given | {"url": BrokerUrl.parse(given["url"])})


@define
class KeepingSink:
    """A `ControlSink` that keeps what it is given."""

    got: list[tuple[str, Message]] = field(factory=list)
    _arrived: trio.Event = field(factory=trio.Event)

    def device_connected(self, client_id: str) -> None:
        """Only the embedded endpoint knows."""
        raise AssertionError(client_id)

    def device_disconnected(self, client_id: str) -> None:
        """Only the embedded endpoint knows."""
        raise AssertionError(client_id)

    def deliver(self, client_id: str, message: Message) -> None:
        """Keep it."""
        self.got.append((client_id, message))
        self._arrived.set()

    async def wait_for(self, count: int) -> list[tuple[str, Message]]:
        """Return all that came, as soon as it is `count` messages."""
        while len(self.got) < count:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self.got
