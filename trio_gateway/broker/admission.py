"""Who is let in: the decision about a peer, made on its CONNECT alone.

Rule 1: a failed login costs the address that it came from, and never the id that was named: nobody
        can lock a device out by naming it.
Rule 2: a login that succeeds costs the id, so two devices with one id throw each other out at a
        bounded rate; the connection that is there stays meanwhile.
Rule 3: every password is checked, however often its address was wrong: behind one address (NAT)
        there are good devices, too. A check takes 4 us (HMAC-SHA256, measured) of the 300 that a
        connection costs, and guessing 256 bits is hopeless at any rate. Beyond the limit a wrong
        one is told to come later.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

import trio
from attrs import define

from trio_gateway.broker.access import Access, is_allowed_id
from trio_gateway.core.mqtt_packet import Connect, Packet, Will
from trio_gateway.core.mqtt_types import BAD_IDENTIFIER, NOT_AUTHORIZED, UNAVAILABLE
from trio_gateway.core.rate_limit import RateLimits
from trio_gateway.errors import BadMessage, BadPacket

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.broker.connection import Connection
    from trio_gateway.broker.register import Register
    from trio_gateway.settings import MqttSettings

__all__ = ["Admission", "Authenticate", "Client", "Refused"]

Authenticate: TypeAlias = "Callable[[str, str | None, bytes | None], None]"
"""Given client id, user name and password; raises BadMessage if they do not prove the id.

Together they have at most `max_connect_bytes`, and the id at most 256 characters.
"""


class Refused(Exception):  # noqa: N818  an outcome, not an error
    """A CONNECT is answered with a code other than 0."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@define(eq=False)
class Client:
    """A peer that has proved to be `client_id`.

    Attributes:
        client_id: Whose.
        connection: The one that it came with.
        access: What it may do.
        will: What is published if it goes without DISCONNECT.
        patience: Seconds after its last packet until it is taken for gone.
    """

    client_id: str
    connection: Connection
    access: Access
    will: Will | None
    patience: float


class Admission:
    """Decides, and remembers only what the three rules need, for so many addresses and ids.

    Args:
        settings: The limits.
        authenticate: Asked about each CONNECT.
        clients: Those who are here.
    """

    def __init__(
        self, settings: MqttSettings, authenticate: Authenticate, clients: Register
    ) -> None:
        self._settings = settings
        self._authenticate = authenticate
        self._clients = clients
        self._failures = RateLimits(settings.failed_login_rate, settings.failed_login_burst)
        self._logins = RateLimits(settings.login_rate_per_client, settings.login_burst_per_client)

    def admit_untrusted(self, connect: Packet, connection: Connection) -> Client:
        """Return the client that the first packet of `connection` proves the peer to be.

        Raises:
            BadPacket: "not_connect": it is another packet (MQTT-3.1.0-1).
            Refused: The id cannot be used, `authenticate` does not believe it, or a limit is
                reached.
        """
        if not isinstance(connect, Connect):
            raise BadPacket("not_connect", type(connect).__name__)
        address, client_id = connection.peer.address, connect.client_id
        self._prove_untrusted(connect, address)
        if (limit := self._clients.lack_of_room(client_id, address)) is not None:
            raise Refused(UNAVAILABLE, limit)
        if not self._logins.take(client_id, trio.current_time()):
            raise Refused(UNAVAILABLE, "login_rate_per_client")
        # 0 is no keepalive at all. MQTT 3.1.1, 3.1.2.10, lets a server be less patient than asked.
        keepalive = min(connect.keepalive or inf, self._settings.max_keepalive)
        return Client(
            client_id=client_id,
            connection=connection,
            access=Access.of(client_id, self._settings.publish_topics),
            will=connect.will,
            patience=keepalive * self._settings.keepalive_factor,
        )

    def _prove_untrusted(self, connect: Connect, address: str) -> None:
        try:
            self._check_untrusted(connect)
        except Refused:
            if not self._failures.take(address, trio.current_time()):
                raise Refused(UNAVAILABLE, "failed_login_rate") from None
            raise

    def _check_untrusted(self, connect: Connect) -> None:
        if not is_allowed_id(connect.client_id):
            raise Refused(BAD_IDENTIFIER, "client_id")
        try:
            self._authenticate(connect.client_id, connect.username, connect.password)
        except BadMessage as error:
            raise Refused(NOT_AUTHORIZED, error.reason) from error
