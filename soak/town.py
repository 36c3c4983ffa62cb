"""What all devices of a soak share: a gateway, datagram sockets, one timer, and a tally."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from trio_gateway.core.identity import sign
from trio_gateway.simulator.surroundings import RealSurroundings

if TYPE_CHECKING:
    from trio_gateway.settings import Address

__all__ = ["USERNAME", "Town", "client_id", "password"]

USERNAME = base64.b64encode(json.dumps({"ip": "127.0.0.1"}).encode()).decode()


def client_id(number: int) -> str:
    """Return the id of device `number`, 16 bits, which `moods.moody` finds in it again."""
    mac = (0x02_00_00_00_00_00 | number).to_bytes(6, "big").hex("_")
    return f"GID_soak@@@{mac}@@@00000000-0000-4000-8000-{number:012x}"


def password(key: str, who: str) -> str:
    """Return the right one."""
    return sign(key.encode(), who, USERNAME)


@define(eq=False)
class Town(RealSurroundings):
    """Surroundings of devices, and what they and strangers share besides.

    Attributes:
        mqtt: Of the gateway.
        udp: Of the gateway.
        key: Signs the passwords.
        seed: Decides what everybody does.
        live: The ssrcs of calls, by device.
        did: What was done, good and bad.
        surprises: What the gateway must not have done, and how often.
    """

    mqtt: Address
    udp: Address
    key: str
    seed: int
    live: dict[int, int] = field(factory=dict)
    did: Counter[str] = field(factory=Counter)
    surprises: Counter[str] = field(factory=Counter)

    async def connect(self) -> trio.SocketStream:
        """Open a connection to the MQTT endpoint."""
        return await trio.open_tcp_stream(self.mqtt.host, self.mqtt.port)
