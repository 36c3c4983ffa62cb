"""The settings of the embedded MQTT endpoint that keep a flood from those who do not take part.

Bursts hold 500 devices behind one address (a school's NAT) that come back in the same second; what
is allowed in the long run is far below what the endpoint can do.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from trio_gateway.settings.rules import COUNT, DURATION, Number, Whole, require, setting

__all__ = ["MqttLimits"]

KIB = 1024
_RATE = Number(0, closed=False)


@frozen
class MqttLimits:
    """Of the embedded endpoint: per address, per client, and for strangers all together."""

    SECTION: ClassVar[str] = "mqtt"

    max_pending: int = setting(
        1024,
        COUNT,
        unit="connections",
        help="Held at once that belong to no client: CONNECT has not come yet, or the end has. Of "
        "more, the oldest is closed; of an address that has more than an eighth, its own oldest. "
        "Half is for addresses that have a client.",
        why="Guess: as many as `max_clients`, for all may come again at once. 20 MB when all are.",
    )
    max_pending_per_address: int = setting(
        512,
        COUNT,
        unit="connections",
        help="The same, of one IPv4 address or IPv6 network of 64 bits; beyond it, its own oldest.",
        why="500 devices behind one address, in the same moment; half of `max_pending`.",
    )
    max_clients_per_address: int = setting(
        512,
        COUNT,
        unit="clients",
        help="Authenticated from one address; CONNECT from one more is refused.",
        why="500 devices behind one address; half of `max_clients`, so that one address, whatever "
        "passwords it has got hold of, leaves room for others. More behind a TCP proxy.",
    )
    max_connect_bytes: int = setting(
        4 * KIB,
        Whole(512),
        unit="bytes",
        help="Largest CONNECT, with id, user name, password and will; a larger one is not read.",
        why="A device's has about 300 bytes. It is what a stranger makes us hold and hash.",
    )
    connect_rate_per_address: float = setting(
        100.0,
        _RATE,
        unit="connections/s",
        help="New ones from one address, on average; more are closed at once.",
        why="Guess: 1,000 more devices in 10 s. One that is refused costs 0.3 ms, so those of one "
        "address are 3 % of a core.",
    )
    connect_rate: float = setting(
        500.0,
        _RATE,
        unit="connections/s",
        help="New ones from all addresses that have no client, on average; more are closed at "
        "once. For who has more addresses than can be counted: an IPv6 site has 65,536 networks.",
        why="Guess: with a TLS handshake of 0.4 ms each, a third of a core.",
    )
    connect_burst: int = setting(
        4096,
        COUNT,
        unit="connections",
        help="Such new ones in a moment, after a time without any.",
        why="Guess: `max_clients` that come back after a power cut, and three more attempts.",
    )
    connect_burst_per_address: int = setting(
        1024,
        COUNT,
        unit="connections",
        help="New ones from one address in a moment, after a time without any.",
        why="500 devices behind one address that come back, and a second attempt of each.",
    )
    failed_login_rate: float = setting(
        10.0,
        _RATE,
        unit="logins/s",
        help="Wrong ids and passwords from one address, on average. More are answered with code 3 "
        '("come later"); right ones are let in.',
        why="Guess: 512 devices with old passwords that come once a minute.",
    )
    failed_login_burst: int = setting(
        512,
        COUNT,
        unit="logins",
        help="Such failures in a moment, after a time without any.",
        why="A school's devices with old passwords, all at once.",
    )
    login_rate_per_client: float = setting(
        1.0,
        _RATE,
        unit="logins/s",
        help="Of one client id with the right password, on average; more are refused and what "
        "connection it has stays.",
        why="A device that reconnects every second is served; two with one id cost no more.",
    )
    login_burst_per_client: int = setting(
        10,
        COUNT,
        unit="logins",
        help="Such logins in a moment, after a time without any.",
        why="Guess. Firmware comes back once, after 60 s.",
    )
    message_rate: float = setting(
        20.0,
        _RATE,
        unit="packets/s",
        help="Taken from one client, on average, whatever they are; the rest waits in its socket. "
        "A filter that is subscribed to and each further client that gets a message count as one; "
        "a will counts like a message.",
        why="Guess: a device in a call says fewer than 5 a second. A hello, the dearest of all, "
        "takes 0.9 ms: 2 % of a core for who says nothing else.",
    )
    message_burst: int = setting(
        250,
        COUNT,
        unit="packets",
        help="Taken from one client in a moment, after a time with less.",
        why="Guess: hello and 30 pages of tools are about 70.",
    )
    byte_rate: float = setting(
        64.0 * KIB,
        _RATE,
        unit="bytes/s",
        help="Taken from one client, on average; the rest waits in its socket. What is read at "
        "once counts as 256 at least.",
        why="Guess: one of the largest packets a second. A SUBSCRIBE of that size, with 16,000 "
        "filters, takes 12 ms.",
    )
    byte_burst: int = setting(
        256 * KIB,
        Whole(16 * KIB),
        unit="bytes",
        help="Taken from one client in a moment, after a time with less.",
        why="Guess: 16 tool lists of 16 KiB. The least is what is read from a socket at once.",
    )
    throttle_timeout: float = setting(
        60.0,
        DURATION,
        unit="s",
        help="A client that these limits have kept waiting for so much longer than it paused by "
        "itself is disconnected.",
        why="Guess. One that is gone is noticed only when all that it said has been read: for 4 MB "
        "of small packets that were hours.",
    )
    send_timeout: float = setting(
        20.0,
        DURATION,
        unit="s",
        help="For a client to take 16 KiB that wait for it; one that does not is disconnected.",
        why="Guess: 800 bytes/s, an eighth of the slowest GPRS.",
    )

    def __attrs_post_init__(self) -> None:
        require(
            self,
            "max_pending_per_address must not be above max_pending",
            "max_pending_per_address",
            "max_pending",
            holds=self.max_pending_per_address <= self.max_pending,
        )
