"""What clients say, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_gateway.core.control import parse_message_untrusted
from trio_gateway.core.mqtt_packet import (
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    encode,
)
from trio_gateway.core.mqtt_types import SUBSCRIPTION_REFUSED
from trio_gateway.errors import BadMessage, BadPacket

if TYPE_CHECKING:
    from trio_gateway.broker.admission import Client
    from trio_gateway.broker.exchange import Exchange
    from trio_gateway.broker.statistics import Counters
    from trio_gateway.interfaces import ControlSink
    from trio_gateway.settings import MqttSettings

__all__ = ["Requests"]

_PING_RESP = encode(PingResp())


class Requests:
    """Answers the packets of admitted clients.

    Args:
        settings: The limits.
        sink: Hears what is said on control topics.
        exchange: Has the rest.
        counters: Where messages are counted.
    """

    def __init__(
        self, settings: MqttSettings, sink: ControlSink, exchange: Exchange, counters: Counters
    ) -> None:
        self._max_subscriptions = settings.max_subscriptions
        self._sink = sink
        self._exchange = exchange
        self._counters = counters

    async def answer(self, client: Client, packet: Packet) -> None:
        """Do what a packet asks for.

        Raises:
            BadPacket: "unexpected": no client may send that now.
        """
        connection = client.connection
        match packet:
            case Publish():
                copies = self.take(client, packet.topic, packet.payload, retain=packet.retain)
                if packet.packet_id is not None:
                    connection.send(encode(PubAck(packet.packet_id)))
                if copies > 1:  # 500 clients that each talk to all of them are 250,000 a round
                    await connection.pay("messages", copies - 1)
            case Subscribe():
                await self._subscribe(client, packet)
            case Unsubscribe():
                for topic_filter in packet.filters:
                    self._exchange.unsubscribe(connection, topic_filter)
                connection.send(encode(UnsubAck(packet.packet_id)))
            case PingReq():
                connection.send(_PING_RESP)
            case Disconnect():
                client.will = None  # MQTT-3.14.4-3
                connection.end("disconnect")
            case _:
                raise BadPacket("unexpected", type(packet).__name__)

    def take(self, client: Client, topic: str, payload: bytes, *, retain: bool) -> int:
        """Take a message from a client: to the gateway, to other clients, or nowhere.

        One that is not allowed is acknowledged all the same: MQTT-3.3.5-2 leaves only that or
        closing the connection.

        Returns:
            To how many other clients it goes.
        """
        if topic in client.access.control_topics:
            try:
                message = parse_message_untrusted(payload)
            except BadMessage as error:
                self._counters.bad_messages[error.reason] += 1
                return 0
            self._counters.delivered += 1
            self._sink.deliver(client.client_id, message)
        elif client.access.may_publish(topic):
            return self._exchange.publish(topic, payload, retain=retain)
        else:
            self._counters.denied["publish"] += 1
        return 0

    def publish_will(self, client: Client) -> None:
        """Publish the will of a client that is gone, if it has one and has not said too much."""
        will = client.will
        if will is None:
            return
        if client.connection.in_debt:  # else who comes and goes could say more than who stays
            self._counters.dropped["throttled"] += 1
            return
        copies = self.take(client, will.topic, will.payload, retain=will.retain)
        client.connection.charge_will(copies)

    async def _subscribe(self, client: Client, packet: Subscribe) -> None:
        # A packet can hold 16,000 filters, or one as often: as many are looked at as one may hold.
        granted: dict[str, bool] = {}
        for topic_filter, _ in packet.requests:
            if topic_filter not in granted:
                granted[topic_filter] = (
                    len(granted) < self._max_subscriptions
                    and client.access.may_subscribe(topic_filter)
                    and self._exchange.subscribe(client.connection, topic_filter)
                )
        self._counters.denied["subscribe"] += sum(not each for each in granted.values())
        codes = tuple(0 if granted[each] else SUBSCRIPTION_REFUSED for each, _ in packet.requests)
        client.connection.send(encode(SubAck(packet.packet_id, codes)))
        for topic_filter in (each for each in granted if granted[each]):
            # Each goes through all that is retained, so each counts like a packet.
            await client.connection.pay("messages", 1)
            await client.connection.yield_turn()
            if client.connection.ending is not None:
                return
            self._exchange.replay(client.connection, topic_filter)
