"""The embedded MQTT endpoint: devices connect, prove who they are, and talk to the gateway.

Rule 1: before a client has proved who it is, it changes nothing for those who have. Whoever comes
        with another's id and a wrong password gets CONNACK 5, and the other never notices.
Rule 2: whatever one client does or one handler raises ends that client's connection and no other.
Rule 3: a client is registered, and thereby reachable, before CONNACK is queued, and CONNACK is the
        first thing in its outbox: stock firmware never subscribes and yet misses nothing.

What of MQTT 3.1.1 is left out: QoS 2 (ends the connection), QoS 1 to clients (every subscription
is granted at QoS 0, as 3.8.4 allows), sessions that outlive a connection (CONNACK always says that
there is none).
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import asdict

from trio_gateway.broker.admission import Admission, Refused
from trio_gateway.broker.complaints import Complaints
from trio_gateway.broker.connection import Connection
from trio_gateway.broker.exchange import Exchange
from trio_gateway.broker.intake import Intake
from trio_gateway.broker.peer import Peer
from trio_gateway.broker.register import Register
from trio_gateway.broker.requests import Requests
from trio_gateway.broker.statistics import BrokerStatistics, Counters
from trio_gateway.broker.throttle import Throttles
from trio_gateway.broker.tls import TlsStream
from trio_gateway.core.mqtt_packet import ConnAck, Publish, encode
from trio_gateway.core.mqtt_types import ACCEPTED, BAD_PROTOCOL
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.broker.admission import Authenticate, Client
    from trio_gateway.interfaces import Address, ControlSink
    from trio_gateway.settings import MqttSettings

__all__ = ["Broker"]

log = structlog.get_logger(__name__)


class Broker:
    """Got by `open_broker`.

    Attributes:
        address: Where it listens: host, and the port that was bound; None if it does not.
        tls_address: The same of the listener for TLS.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        sink: ControlSink,
        authenticate: Authenticate,
        address: Address | None,
        tls_address: Address | None = None,
    ) -> None:
        self.address = address
        self.tls_address = tls_address
        self._settings = settings
        self._sink = sink
        self._counters = Counters()
        self._complaints = Complaints()
        self._connections: set[Connection] = set()
        self._intake = Intake(settings, self._counters)
        self._clients = Register(settings)
        self._admission = Admission(settings, authenticate, self._clients)
        self._throttles = Throttles(settings, self._counters)
        self._exchange = Exchange(settings, self._counters)
        self._requests = Requests(settings, sink, self._exchange, self._counters)

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
            pending=len(self._intake),
            clients=len(self._clients),
            subscriptions=self._exchange.subscriptions,
            retained=len(self._exchange.retained),
            retained_bytes=self._exchange.retained.total_bytes,
            throttled_seconds=self._throttles.seconds,
            **asdict(self._counters),
        )

    async def serve_connection(self, stream: trio.abc.Stream) -> None:
        """Serve one peer until it is gone, then close the stream. Raises nothing but Cancelled."""
        peer = Peer.of(stream)
        if (limit := self._intake.why_not(peer, trio.current_time())) is not None:
            self._turn_away(peer, limit)
            await trio.aclose_forcefully(stream)
            return
        self._counters.accepted += 1
        connection = Connection(stream, peer, self._settings, self._complaints)
        self._connections.add(connection)
        self._intake.add(connection)
        try:
            await connection.run(partial(self._converse, connection))
        finally:
            self._connections.discard(connection)
            self._intake.discard(connection)
            if isinstance(stream, TlsStream) and stream.failure is not None:
                self._counters.handshakes_failed[stream.failure] += 1
                self._complain(connection, "TLS handshake failed", stream.failure)
            await trio.aclose_forcefully(stream)

    def end_all(self) -> None:
        """Let every connection send what is queued, and end."""
        for connection in self._connections:
            connection.end("shutdown")

    def _turn_away(self, peer: Peer, reason: str) -> None:
        self._counters.turned_away[reason] += 1
        event = "mqtt connection turned away"
        self._complaints.say(log.warning, event, reason, peer=peer.name)

    async def _converse(self, connection: Connection) -> None:
        try:
            with self._contained(connection):
                client = await self._admit(connection)
                if client is not None:
                    await self._serve_client(client)
        finally:
            self._counters.closed[connection.ending or "cancelled"] += 1
            self._intake.put_first(connection)

    @contextmanager
    def _contained(self, connection: Connection) -> Iterator[None]:
        """Make whatever is raised the ending of this connection (Rule 2)."""
        try:
            yield
        except Refused as refusal:
            self._counters.refused[refusal.reason] += 1
            self._complain(connection, "mqtt client refused", refusal.reason)
            connection.send(encode(ConnAck(refusal.code)))
            connection.end("refused")
        except BadPacket as error:
            self._counters.bad_packets[error.reason] += 1
            event = "mqtt client broke the protocol"
            self._complain(connection, event, error.reason, error=str(error))
            connection.end("bad_packet")
        except Exception as error:  # noqa: BLE001  it is told
            event, kind = "mqtt connection crashed", type(error).__name__
            self._complaints.say(log.exception, event, kind, peer=connection.peer.name)
            connection.end("crashed")
        except trio.Cancelled:
            connection.end("cancelled")  # unless there is a reason already
            raise

    def _complain(self, connection: Connection, event: str, reason: str, **details: str) -> None:
        self._complaints.say(log.info, event, reason, peer=connection.peer.name, **details)

    async def _admit(self, connection: Connection) -> Client | None:
        """Decide about a peer. Nobody else notices (Rule 1). None: the connection ended before."""
        try:
            connect = await connection.next_packet_untrusted()
        except BadPacket as error:
            if error.reason == "protocol_level":  # MQTT-3.1.2-2: the one that has an answer
                raise Refused(BAD_PROTOCOL, error.reason) from error
            raise
        if connect is None:
            return None
        return self._admission.admit_untrusted(connect, connection)

    async def _serve_client(self, client: Client) -> None:
        try:
            with self._contained(client.connection):
                self._welcome(client)
                while (packet := await client.connection.next_packet_untrusted()) is not None:
                    await self._requests.answer(client, packet)
        finally:
            self._forget(client)

    def _welcome(self, client: Client) -> None:
        """Register a client, in one go: no other task runs between the steps."""
        connection = client.connection
        self._intake.discard(connection)
        if (older := self._clients.get(client.client_id)) is not None:
            older.connection.end("taken_over")  # MQTT-3.1.4-2
            self._forget(older)
        self._clients.add(client)
        self._intake.regard(connection.peer.address, home=True)
        self._counters.connected += 1
        connection.welcome(client.patience, self._throttles.of(client.client_id))
        connection.send(encode(ConnAck(ACCEPTED)))
        log.info("mqtt client connected", client=client.client_id, peer=connection.peer.name)
        self._sink.device_connected(client.client_id)

    def _forget(self, client: Client) -> None:
        """Undo `_welcome`, unless that was done (a takeover does it for the older client).

        Whatever the sink raises is the older client's crash: the rest is done all the same.
        """
        if not self._clients.discard(client):
            return
        connection = client.connection
        self._exchange.leave(connection)
        if not self._clients.has_address(connection.peer.address):
            self._intake.regard(connection.peer.address, home=False)
        # When the endpoint itself goes, that says nothing about the client, and is no crowd.
        if connection.ending not in {"shutdown", "cancelled"}:
            self._intake.add(connection, over=True)  # until its last bytes have gone out
            with self._contained(connection):
                self._requests.publish_will(client)
        log.info("mqtt client gone", client=client.client_id, reason=connection.ending)
        with self._contained(connection):
            self._sink.device_disconnected(client.client_id)
