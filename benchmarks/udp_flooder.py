"""Sends datagrams as ordered; udp_flood.py runs it in a process of its own.

    python benchmarks/udp_flooder.py '{"kind": "garbage", "host": "127.0.0.1", "port": 8884,
                                      "rate": 20000, "seconds": 10, "targets": []}'

Targets are (ssrc, port) of live sessions; the kinds are those of udp_flood.py. Prints how many
datagrams the system took.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from trio_gateway.core.packet import header

if TYPE_CHECKING:
    from collections.abc import Iterator

PAYLOAD_BYTES: Final = 120  # an Opus packet of speech, 60 ms
TICK: Final = 0.001  # seconds between two bursts
_UDP: Final = struct.Struct(">HHHH")


def flood(order: dict[str, Any]) -> int:
    """Send what is ordered; return how many datagrams the system took."""
    server = (order["host"], order["port"])
    datagrams = list(forgeries(order))
    sent, began = 0, time.monotonic()
    with closing(socket_for(order["kind"])) as sock:
        while (elapsed := time.monotonic() - began) < order["seconds"]:
            due = int(elapsed * order["rate"])
            while sent < due:
                sock.sendto(datagrams[sent % len(datagrams)], server)
                sent += 1
            time.sleep(TICK)
    return sent


def socket_for(kind: str) -> socket.socket:
    """Open a socket that sends from where this kind comes from."""
    if kind == "forged":  # the UDP header is ours; the host is the devices'
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.2" if kind == "elsewhere" else "127.0.0.1", 0))
    return sock


def forgeries(order: dict[str, Any]) -> Iterator[bytes]:
    """Make some thousand datagrams; they are sent again and again."""
    draw = random.Random(order["kind"])  # noqa: S311  to be the same every time
    for index in range(5000):
        payload = draw.randbytes(PAYLOAD_BYTES)
        if order["kind"] == "garbage":
            yield b"\xff" + payload
            continue
        ssrc, port = draw.getrandbits(32), 0
        if order["targets"]:
            ssrc, port = order["targets"][index % len(order["targets"])]
        sequence = draw.randrange(1, 400)  # as far as the devices get
        datagram = header(ssrc, payload_len=len(payload), sequence=sequence) + payload
        if order["kind"] == "forged":
            yield _UDP.pack(port, order["port"], _UDP.size + len(datagram), 0) + datagram
        else:
            yield datagram


if __name__ == "__main__":
    print(flood(json.loads(sys.argv[1])))
