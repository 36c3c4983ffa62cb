"""On which topics devices are heard, and on which they are reached (protocol, section 2)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

from trio_gateway.core.control import (
    parse_message_untrusted,
    sender_of_topic,
    unwrap_ingest_untrusted,
)
from trio_gateway.core.identity import DeviceId, is_addressable
from trio_gateway.errors import BadMessage

if TYPE_CHECKING:
    from trio_gateway.core.control import Message
    from trio_gateway.settings import MqttSettings

__all__ = ["Routes", "down_topic"]

# Devices may speak here whatever the settings add.
TEMPLATES = ("devices/{client_id}/hello", "devices/{client_id}/data")


def _names_sender(template: str) -> bool:
    return "{client_id}" in template


@frozen
class Routes:
    """The ways in. A topic that does not name the sender is heard only through the ingest topic.

    Attributes:
        ingest: Where a rule in the broker republishes what devices say, in an envelope.
        templates: Topics with {client_id} in them.
        max_bytes: Of a payload.
    """

    ingest: str
    templates: tuple[str, ...]
    max_bytes: int

    @classmethod
    def of(cls, settings: MqttSettings) -> Routes:
        """Take what the settings say."""
        templates = filter(_names_sender, TEMPLATES + settings.publish_topics)
        return cls(
            settings.ingest_topic, tuple(dict.fromkeys(templates)), settings.max_packet_bytes
        )

    @property
    def filters(self) -> list[str]:
        """What to subscribe to: the templates with a + for the level of the sender."""
        levels = (each.split("/") for each in self.templates)
        wild = ("/".join("+" if _names_sender(x) else x for x in each) for each in levels)
        return list(dict.fromkeys([self.ingest, *wild]))

    def parse_untrusted(self, topic: str, payload: bytes) -> tuple[str, Message]:
        """Return the client id of the sender, and what it said.

        Raises:
            BadMessage: as `unwrap_ingest_untrusted` and `parse_message_untrusted`; `bad_sender`.
        """
        if topic == self.ingest:
            return unwrap_ingest_untrusted(payload, max_bytes=self.max_bytes)
        client_id = sender_of_topic(topic, self.templates)
        if client_id is None:
            raise BadMessage("bad_sender", topic)
        return client_id, parse_message_untrusted(payload, max_bytes=self.max_bytes)


@lru_cache(
    maxsize=4096
)  # a device is sent many messages; four times as many as sessions by default
def down_topic(client_id: str, reply_to: str) -> str | None:
    """Return the topic that reaches a device, or None: a broker may close on a topic like that.

    Mosquitto ends the connection of whoever publishes a control character (MQTT 3.1.1, 1.5.3), so
    one odd id in an envelope would cost every device its connection.

    Args:
        client_id: The device's.
        reply_to: See the setting of that name.
    """
    if not is_addressable(client_id) or "/" in client_id:
        return None
    device = DeviceId.parse(client_id)
    by_mac = reply_to == "mac" or (reply_to == "auto" and not device.signed)
    return device.p2p_topics[-1 if by_mac else 0]
