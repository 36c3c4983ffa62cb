"""The last message of each topic whose publisher asked to keep it (MQTT 3.1.1, 3.3.1.3)."""

from __future__ import annotations

from trio_gateway.core.mqtt_packet import Publish, encode
from trio_gateway.core.topics import matches

__all__ = ["RetainedMessages"]


class RetainedMessages:
    """Bounded in number and in bytes. What does not fit is not kept, and what is kept stays.

    Pushing out the oldest instead would let one client clear what all others left here.

    Args:
        max_messages: How many topics.
        max_bytes: Of all packets together, as they will be sent.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._packets: dict[str, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def total_bytes(self) -> int:
        """What all packets together take."""
        return self._bytes

    def keep(self, topic: str, payload: bytes) -> bool:
        """Keep `payload` in place of what was there; an empty one only clears the topic.

        Returns:
            Whether that was done. False: it does not fit, and the topic has no message now, for
            the old one is outdated.
        """
        self._bytes -= len(self._packets.pop(topic, b""))
        if not payload:
            return True
        packet = encode(Publish(topic, payload, retain=True))
        if len(self) >= self._max_messages or self._bytes + len(packet) > self._max_bytes:
            return False
        self._packets[topic] = packet
        self._bytes += len(packet)
        return True

    def matching(self, topic_filter: str) -> list[bytes]:
        """Return the packets for a new subscription to `topic_filter`."""
        if "+" not in topic_filter and "#" not in topic_filter:
            packet = self._packets.get(topic_filter)
            return [] if packet is None else [packet]
        return [packet for topic, packet in self._packets.items() if matches(topic_filter, topic)]
