"""What a simulation is to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from attrs import field, frozen

from trio_gateway.simulator.network import Weather

if TYPE_CHECKING:
    from trio_gateway.settings import Address, Secret
    from trio_gateway.simulator.device import Mode

__all__ = ["HELLO_TIMEOUT", "REPLY_TIMEOUT", "Plan", "TopicStyle"]

TopicStyle = Literal["stock", "own"]

HELLO_TIMEOUT: Final = 10.0
"""Seconds that a device waits for the answer to its hello (protocol section 5)."""

REPLY_TIMEOUT: Final = 10.0
"""Seconds from the end of speech to `tts start`, and for `tts stop` beyond twice the length of what
was said. A guess: a chat server's slow answer; the echo takes a quarter of a second."""


@frozen(kw_only=True)
class Plan:
    """Who talks to whom, how, and how long."""

    gateway: Address
    """Its MQTT endpoint, or the broker's."""

    devices: int = 10

    seconds: float = 10.0
    """How long they talk: no call begins that would last longer, but each device makes one."""

    ramp: float = 1.0
    """Seconds over which the devices come, the first at once. A guess: devices do not come in the
    same millisecond, unless there was a power cut."""

    pause: float = 0.5
    """Seconds between a reply and the next talk, and up to half of it more or less, drawn."""

    together: bool = False
    """Whether all begin to talk at the same moments: the hardest load that so many devices make."""

    mode: Mode = "manual"
    """Of `listen`. manual: the device says when it has spoken; auto: the gateway has to notice;
    realtime: it hears while it speaks."""

    topics: TopicStyle = "stock"
    """stock: all goes to `device-server`, nothing is subscribed, as the firmware does it (the
    embedded endpoint, or a broker with rules). own: `devices/<client id>/hello` and `/data`, and it
    subscribes to `devices/p2p/<client id>` (any plain broker)."""

    key: Secret | None = None
    """Signs the passwords; without it devices send none."""

    weather: Weather = field(factory=Weather)
    """The network between devices and gateway; its seed also draws the pauses."""

    first_device: int = 0
    """Number of the first device, which is in its MAC: for several simulators at one gateway."""
