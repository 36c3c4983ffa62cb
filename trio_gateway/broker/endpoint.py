"""The embedded MQTT endpoint: devices connect, prove who they are, and talk to the gateway.

Rule 1: before a client has proved who it is, it changes nothing. Whoever comes with another's id
        and a wrong password gets CONNACK 5, and the other never notices.
Rule 2: whatever one client does or one handler raises ends that client's connection and no other.
Rule 3: a client is registered, and thereby reachable, before CONNACK is queued, and CONNACK is the
        first thing in its outbox: stock firmware never subscribes and yet misses nothing.

What of MQTT 3.1.1 is left out: QoS 2 (ends the connection), QoS 1 to clients (every subscription
is granted at QoS 0, as 3.8.4 allows), sessions that outlive a connection (CONNACK always says that
there is none).
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import asdict

from trio_gateway.broker.admission import Refused, admit_untrusted
from trio_gateway.broker.connection import CLOSE_TIMEOUT, Connection
from trio_gateway.broker.exchange import Exchange
from trio_gateway.broker.statistics import BrokerStatistics, Counters
from trio_gateway.core.control import parse_message_untrusted
from trio_gateway.core.mqtt_packet import (
    ConnAck,
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
from trio_gateway.core.mqtt_types import ACCEPTED, BAD_PROTOCOL, SUBSCRIPTION_REFUSED, UNAVAILABLE
from trio_gateway.errors import BadMessage, BadPacket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio_gateway.broker.admission import Authenticate, Client
    from trio_gateway.interfaces import Address, ControlSink
    from trio_gateway.settings import MqttSettings

__all__ = ["Broker", "open_broker"]

log = structlog.get_logger(__name__)

_PING_RESP = encode(PingResp())


class Broker:
    """Got by `open_broker`.

    Attributes:
        address: Where it listens: host, and the port that was bound.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        sink: ControlSink,
        authenticate: Authenticate,
        address: Address,
    ) -> None:
        self.address = address
        self._settings = settings
        self._sink = sink
        self._authenticate = authenticate
        self._counters = Counters()
        self._exchange = Exchange(settings, self._counters)
        self._connections: set[Connection] = set()
        self._clients: dict[str, Client] = {}

    def send(self, client_id: str, payload: bytes) -> bool:
        """Queue `payload` for a device, on `devices/p2p/<client id>`. Nobody else gets it.

        Returns:
            False when the device is not connected, the message is larger than any outbox, or the
            device has not read so much that it is disconnected for it. Each is counted.
        """
        client = self._clients.get(client_id)
        if client is None:
            self._counters.unsent["not_connected"] += 1
            return False
        packet = encode(Publish(f"devices/p2p/{client_id}", payload))
        if len(packet) > self._settings.max_outbox_bytes:
            self._counters.unsent["too_large"] += 1
            return False
        if not client.connection.send(packet):
            self._counters.unsent[client.connection.ending or "ending"] += 1
            return False
        self._counters.sent += 1
        return True

    def statistics(self) -> BrokerStatistics:
        """Return a snapshot."""
        return BrokerStatistics(
            connections=len(self._connections),
            clients=len(self._clients),
            subscriptions=self._exchange.subscriptions,
            retained=len(self._exchange.retained),
            retained_bytes=self._exchange.retained.total_bytes,
            **asdict(self._counters),
        )

    async def serve_connection(self, stream: trio.abc.Stream) -> None:
        """Serve one peer until it is gone, then close the stream. Raises nothing but Cancelled."""
        # Twice: with all clients here, all of them may come again before the old ones are noticed.
        if len(self._connections) >= 2 * self._settings.max_clients:
            self._counters.turned_away += 1
            await trio.aclose_forcefully(stream)
            return
        self._counters.accepted += 1
        connection = Connection(stream, self._settings)
        self._connections.add(connection)
        try:
            await connection.run(partial(self._converse, connection))
        finally:
            self._connections.discard(connection)
            self._counters.closed[connection.ending or "cancelled"] += 1
            await trio.aclose_forcefully(stream)

    def end_all(self) -> None:
        """Let every connection send what is queued, and end."""
        for connection in self._connections:
            connection.end("shutdown")

    async def _converse(self, connection: Connection) -> None:
        with self._contained(connection):
            client = await self._admit(connection)
            if client is not None:
                await self._serve_client(client)

    @contextmanager
    def _contained(self, connection: Connection) -> Iterator[None]:
        """Make whatever is raised the ending of this connection (Rule 2)."""
        try:
            yield
        except Refused as refusal:
            self._counters.refused[refusal.reason] += 1
            log.info("mqtt client refused", peer=connection.peer, reason=refusal.reason)
            connection.send(encode(ConnAck(refusal.code)))
            connection.end("refused")
        except BadPacket as error:
            self._counters.bad_packets[error.reason] += 1
            log.info("mqtt client broke the protocol", peer=connection.peer, error=str(error))
            connection.end("bad_packet")
        except Exception:
            log.exception("mqtt connection crashed", peer=connection.peer)
            connection.end("crashed")
        except trio.Cancelled:
            connection.end("cancelled")  # unless there is a reason already
            raise

    async def _admit(self, connection: Connection) -> Client | None:
        """Decide about a peer. Changes nothing (Rule 1). None: the connection ended before."""
        try:
            connect = await connection.next_packet_untrusted()
        except BadPacket as error:
            if error.reason == "protocol_level":  # MQTT-3.1.2-2: the one that has an answer
                raise Refused(BAD_PROTOCOL, error.reason) from error
            raise
        if connect is None:
            return None
        client = admit_untrusted(connect, connection, self._settings, self._authenticate)
        is_new = client.client_id not in self._clients
        if is_new and len(self._clients) >= self._settings.max_clients:
            raise Refused(UNAVAILABLE, "max_clients")
        return client

    async def _serve_client(self, client: Client) -> None:
        try:
            with self._contained(client.connection):
                self._welcome(client)
                while (packet := await client.connection.next_packet_untrusted()) is not None:
                    await self._handle(client, packet)
        finally:
            self._forget(client)

    def _welcome(self, client: Client) -> None:
        """Register a client, in one go: no other task runs between the steps."""
        if (older := self._clients.get(client.client_id)) is not None:
            older.connection.end("taken_over")  # MQTT-3.1.4-2
            self._forget(older)
        self._clients[client.client_id] = client
        self._counters.connected += 1
        client.connection.keep_alive(client.patience)
        client.connection.send(encode(ConnAck(ACCEPTED)))
        log.info("mqtt client connected", client=client.client_id, peer=client.connection.peer)
        self._sink.device_connected(client.client_id)

    def _forget(self, client: Client) -> None:
        """Undo `_welcome`, unless that was done (a takeover does it for the older client)."""
        if self._clients.get(client.client_id) is not client:
            return
        del self._clients[client.client_id]
        self._exchange.leave(client.connection)
        # When the endpoint itself goes, that says nothing about the client.
        will = None if client.connection.ending in {"shutdown", "cancelled"} else client.will
        if will is not None:
            self._take(client, will.topic, will.payload, retain=will.retain)
        log.info("mqtt client gone", client=client.client_id, reason=client.connection.ending)
        self._sink.device_disconnected(client.client_id)

    async def _handle(self, client: Client, packet: Packet) -> None:
        connection = client.connection
        match packet:
            case Publish():
                self._take(client, packet.topic, packet.payload, retain=packet.retain)
                if packet.packet_id is not None:
                    connection.send(encode(PubAck(packet.packet_id)))
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

    def _take(self, client: Client, topic: str, payload: bytes, *, retain: bool) -> None:
        """Take a message from a client: to the gateway, to other clients, or nowhere.

        One that is not allowed is acknowledged all the same: MQTT-3.3.5-2 leaves only that or
        closing the connection.
        """
        if topic in client.access.control_topics:
            try:
                message = parse_message_untrusted(payload)
            except BadMessage as error:
                self._counters.bad_messages[error.reason] += 1
                return
            self._counters.delivered += 1
            self._sink.deliver(client.client_id, message)
        elif client.access.may_publish(topic):
            self._exchange.publish(topic, payload, retain=retain)
        else:
            self._counters.denied["publish"] += 1

    async def _subscribe(self, client: Client, packet: Subscribe) -> None:
        # A packet can hold 16,000 filters, or one as often: as many are looked at as one may hold.
        granted: dict[str, bool] = {}
        for topic_filter, _ in packet.requests:
            if topic_filter not in granted:
                granted[topic_filter] = (
                    len(granted) < self._settings.max_subscriptions
                    and client.access.may_subscribe(topic_filter)
                    and self._exchange.subscribe(client.connection, topic_filter)
                )
        self._counters.denied["subscribe"] += sum(not each for each in granted.values())
        codes = tuple(0 if granted[each] else SUBSCRIPTION_REFUSED for each, _ in packet.requests)
        client.connection.send(encode(SubAck(packet.packet_id, codes)))
        for topic_filter in (each for each in granted if granted[each]):
            await client.connection.yield_turn()
            if client.connection.ending is not None:
                return
            self._exchange.replay(client.connection, topic_filter)


@asynccontextmanager
async def open_broker(
    settings: MqttSettings, *, sink: ControlSink, authenticate: Authenticate
) -> AsyncIterator[Broker]:
    """Listen on `settings.listen` and serve until the block is left.

    On leaving, no more connections are taken, and those there are get `CLOSE_TIMEOUT` seconds to
    read what is queued for them. When cancelled or left by an exception, they are closed at once.

    Args:
        settings: Section `mqtt`.
        sink: Is told of devices and of what they say.
        authenticate: Decides who is let in; called in the Trio thread for every CONNECT.

    Raises:
        OSError: `settings.listen` cannot be listened on.
    """
    listen = settings.listen
    listeners = await trio.open_tcp_listeners(listen.port, host=listen.host)
    address = listeners[0].socket.getsockname()[:2]
    broker = Broker(settings, sink=sink, authenticate=authenticate, address=address)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as intake:
            await intake.start(
                partial(
                    trio.serve_listeners,
                    broker.serve_connection,
                    listeners,
                    handler_nursery=connections,
                )
            )
            yield broker
            intake.cancel_scope.cancel()
        connections.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT
        broker.end_all()
