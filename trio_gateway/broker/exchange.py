"""Messages between clients: subscriptions, retained messages, delivery at QoS 0.

Who may do what is decided elsewhere (`access.py`); topics and filters arrive here checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trio_gateway.broker.retained import RetainedMessages
from trio_gateway.core.mqtt_packet import Publish, encode
from trio_gateway.core.topics import TopicTree

if TYPE_CHECKING:
    from trio_gateway.broker.statistics import Counters
    from trio_gateway.settings import MqttSettings

__all__ = ["Exchange", "Subscriber"]


class Subscriber(Protocol):
    """Takes packets, or does not. Distinguished by identity."""

    def offer(self, packet: bytes) -> bool:
        """Take a packet; False means that it is dropped."""


class Exchange:
    """Who has subscribed to what, and what is retained.

    Args:
        settings: The limits.
        counters: Where messages are counted.
    """

    def __init__(self, settings: MqttSettings, counters: Counters) -> None:
        self.retained = RetainedMessages(settings.max_retained, settings.max_retained_bytes)
        self._max_subscriptions = settings.max_subscriptions
        self._counters = counters
        self._tree: TopicTree[Subscriber] = TopicTree()
        self._filters: dict[Subscriber, set[str]] = {}

    @property
    def subscriptions(self) -> int:
        """Filters held now, by all."""
        return sum(map(len, self._filters.values()))

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Pass a message on to everybody who has a filter for it: once each, whatever overlaps.

        Returns:
            How many those are.
        """
        self._counters.published += 1
        if retain and not self.retained.keep(topic, payload):
            self._counters.dropped["retained_full"] += 1
        subscribers = self._tree.match(topic)
        if subscribers:
            packet = encode(Publish(topic, payload))
            for subscriber in subscribers:
                if not subscriber.offer(packet):
                    self._counters.dropped["slow_reader"] += 1
        return len(subscribers)

    def subscribe(self, subscriber: Subscriber, topic_filter: str) -> bool:
        """Grant a filter. False: the subscriber holds as many as one may."""
        filters = self._filters.setdefault(subscriber, set())
        if topic_filter not in filters and len(filters) >= self._max_subscriptions:
            return False
        filters.add(topic_filter)
        self._tree.add(topic_filter, subscriber)
        return True

    def replay(self, subscriber: Subscriber, topic_filter: str) -> None:
        """Give `subscriber` what is retained for a filter it has just been granted."""
        for packet in self.retained.matching(topic_filter):
            if not subscriber.offer(packet):
                self._counters.dropped["slow_reader"] += 1

    def unsubscribe(self, subscriber: Subscriber, topic_filter: str) -> None:
        """Take a filter back, if it was held."""
        self._filters.get(subscriber, set()).discard(topic_filter)
        self._tree.discard(topic_filter, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Take back everything that `subscriber` holds."""
        for topic_filter in self._filters.pop(subscriber, ()):
            self._tree.discard(topic_filter, subscriber)
