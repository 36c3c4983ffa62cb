"""Who is let in: the decision about a peer, made on its CONNECT alone."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

from attrs import define

from trio_gateway.broker.access import Access, is_allowed_id
from trio_gateway.core.mqtt_packet import Connect, Packet, Will
from trio_gateway.core.mqtt_types import BAD_IDENTIFIER, NOT_AUTHORIZED
from trio_gateway.errors import BadMessage, BadPacket

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.broker.connection import Connection
    from trio_gateway.settings import MqttSettings

__all__ = ["Authenticate", "Client", "Refused", "admit_untrusted"]

Authenticate: TypeAlias = "Callable[[str, str | None, bytes | None], None]"
"""Given client id, user name and password; raises BadMessage if they do not prove the id."""


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


def admit_untrusted(
    connect: Packet, connection: Connection, settings: MqttSettings, authenticate: Authenticate
) -> Client:
    """Return the client that `connect`, the first packet of `connection`, proves the peer to be.

    Raises:
        BadPacket: "not_connect": it is another packet (MQTT-3.1.0-1).
        Refused: The id cannot be used, or `authenticate` does not believe it.
    """
    if not isinstance(connect, Connect):
        raise BadPacket("not_connect", type(connect).__name__)
    if not is_allowed_id(connect.client_id):
        raise Refused(BAD_IDENTIFIER, "client_id")
    try:
        authenticate(connect.client_id, connect.username, connect.password)
    except BadMessage as error:
        raise Refused(NOT_AUTHORIZED, error.reason) from error
    # 0 is no keepalive at all. MQTT 3.1.1, 3.1.2.10, lets a server be less patient than asked.
    keepalive = min(connect.keepalive or inf, settings.max_keepalive)
    return Client(
        client_id=connect.client_id,
        connection=connection,
        access=Access.of(connect.client_id, settings.publish_topics),
        will=connect.will,
        patience=keepalive * settings.keepalive_factor,
    )
