"""What the embedded endpoint counts.

Every key comes from our own code or from OpenSSL's, never from a peer, so the counters are bounded.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BrokerStatistics", "Counters"]


@frozen
class BrokerStatistics:
    """State now, and counts since the start. Mappings have a reason for a key.

    Attributes:
        connections: Open now.
        pending: Of these, the ones that are no client's: not yet, or no more.
        clients: Authenticated, each with one connection.
        subscriptions: Filters that clients hold now.
        retained: Messages kept now.
        retained_bytes: What they take.
        accepted: Connections served.
        connected: Clients authenticated.
        turned_away: Connections closed at once ("connect_rate_per_address", "connect_rate").
        crowded_out: Connections closed by `max_pending` or `max_pending_per_address`; those that
            were over but for their last bytes have another reason in `closed`.
        handshakes_failed: Of the accepted ones, those that never got TLS to work; the reasons are
            OpenSSL's, in its own words, and those of `TlsStream.failure`.
        refused: CONNECTs answered with a code other than 0; a limit has the name of its setting.
        closed: Connections ended, by what ended them.
        bad_packets: Connections ended because MQTT was broken.
        bad_messages: Messages on control topics that were dropped because they are not what the
            protocol asks for.
        throttled: How often a client had to wait, having said too much ("messages", "bytes").
        throttled_seconds: How long, all together, until now.
        delivered: Messages given to the sink.
        published: Messages from clients for other clients, wills included.
        denied: Messages and filters that the client has no right to ("publish", "subscribe").
        dropped: Messages between clients that were not passed on ("slow_reader"; "throttled": the
            will of a client that had said too much) or not kept ("retained_full").
        sent: Messages queued for devices by the gateway.
        unsent: The same, given up.
    """

    connections: int
    pending: int
    clients: int
    subscriptions: int
    retained: int
    retained_bytes: int
    accepted: int
    connected: int
    turned_away: Mapping[str, int]
    crowded_out: int
    handshakes_failed: Mapping[str, int]
    refused: Mapping[str, int]
    closed: Mapping[str, int]
    bad_packets: Mapping[str, int]
    bad_messages: Mapping[str, int]
    throttled: Mapping[str, int]
    throttled_seconds: float
    delivered: int
    published: int
    denied: Mapping[str, int]
    dropped: Mapping[str, int]
    sent: int
    unsent: Mapping[str, int]


@define
class Counters:
    """Those of `BrokerStatistics` that only grow."""

    accepted: int = 0
    connected: int = 0
    turned_away: Counter[str] = field(factory=Counter)
    crowded_out: int = 0
    handshakes_failed: Counter[str] = field(factory=Counter)
    refused: Counter[str] = field(factory=Counter)
    closed: Counter[str] = field(factory=Counter)
    bad_packets: Counter[str] = field(factory=Counter)
    bad_messages: Counter[str] = field(factory=Counter)
    throttled: Counter[str] = field(factory=Counter)
    delivered: int = 0
    published: int = 0
    denied: Counter[str] = field(factory=Counter)
    dropped: Counter[str] = field(factory=Counter)
    sent: int = 0
    unsent: Counter[str] = field(factory=Counter)
