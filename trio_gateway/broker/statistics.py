"""What the embedded endpoint counts.

Every key comes from our own code, never from a peer, so the counters are bounded.
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
        connections: Open now, with those that have not said who they are.
        clients: Of these, authenticated.
        subscriptions: Filters that clients hold now.
        retained: Messages kept now.
        retained_bytes: What they take.
        accepted: Connections served.
        connected: Clients authenticated.
        turned_away: Connections closed at once, because too many were open.
        refused: CONNECTs answered with a code other than 0.
        closed: Connections ended, by what ended them.
        bad_packets: Connections ended because MQTT was broken.
        bad_messages: Messages on control topics that were dropped because they are not what the
            protocol asks for.
        delivered: Messages given to the sink.
        published: Messages from clients for other clients, wills included.
        denied: Messages and filters that the client has no right to ("publish", "subscribe").
        dropped: Messages between clients that were not passed on ("slow_reader") or not kept
            ("retained_full").
        sent: Messages queued for devices by the gateway.
        unsent: The same, given up.
    """

    connections: int
    clients: int
    subscriptions: int
    retained: int
    retained_bytes: int
    accepted: int
    connected: int
    turned_away: int
    refused: Mapping[str, int]
    closed: Mapping[str, int]
    bad_packets: Mapping[str, int]
    bad_messages: Mapping[str, int]
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
    turned_away: int = 0
    refused: Counter[str] = field(factory=Counter)
    closed: Counter[str] = field(factory=Counter)
    bad_packets: Counter[str] = field(factory=Counter)
    bad_messages: Counter[str] = field(factory=Counter)
    delivered: int = 0
    published: int = 0
    denied: Counter[str] = field(factory=Counter)
    dropped: Counter[str] = field(factory=Counter)
    sent: int = 0
    unsent: Counter[str] = field(factory=Counter)
