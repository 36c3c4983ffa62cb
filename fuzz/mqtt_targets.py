"""Ways in for MQTT: packets, topics, and the embedded endpoint with all that it does."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from fuzzing import Feed, Take, Target, nothing_breaks, refusable
from mqtt_peer import PASSWORD, open_running
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_gateway.core.mqtt_packet import Connect, Parser, PingReq, Publish, Subscribe, Unsubscribe
from trio_gateway.core.mqtt_packet import encode as encode_packet
from trio_gateway.core.mqtt_types import (
    ConnAck,
    Disconnect,
    PingResp,
    PubAck,
    SubAck,
    UnsubAck,
    Will,
)
from trio_gateway.core.topics import check_filter_untrusted, check_topic_untrusted
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MQTT_TARGETS"]

MAX_PACKET_BYTES = 2048


def open_mqtt() -> Feed:
    """One connection's bytes in pieces; a new connection when it was refused."""
    parser = Parser(MAX_PACKET_BYTES)

    def feed(data: bytes) -> None:
        nonlocal parser
        take = Take(data)
        step = 1 + take.number()
        rest = take.rest()
        try:
            for start in range(0, len(rest), step):
                for packet in parser.feed_untrusted(rest[start : start + step]):
                    assert Parser(1 << 20).feed_untrusted(encode_packet(packet)) == [packet]
                assert parser.held_bytes <= MAX_PACKET_BYTES
        except BadPacket:
            parser = Parser(MAX_PACKET_BYTES)
            raise

    return feed


def packets() -> Iterator[bytes]:
    """One of each kind."""
    will = Will("will/topic", b"gone", 1, retain=True)
    for packet in (
        Connect("device", 60, will=will, username="user", password=PASSWORD),
        ConnAck(0),
        Publish("topic", b"payload"),
        Publish("topic", b"payload", qos=1, packet_id=7),
        PubAck(7),
        Subscribe(7, (("a/+/#", 1), ("b", 0))),
        SubAck(7, (0, 1, 0x80)),
        Unsubscribe(7, ("a/+/#",)),
        UnsubAck(7),
        PingReq(),
        PingResp(),
        Disconnect(),
    ):
        yield encode_packet(packet)


def mqtt_seeds() -> Iterator[bytes]:
    """All of them, whole and in small pieces; and some of the worst."""
    whole = b"".join(packets())
    yield b"\xff" + whole
    yield b"\x02" + whole
    yield from (b"\xff" + packet for packet in packets())
    yield b"\x00\x30\xff\xff\xff\x7f"
    yield b"\xff\x34\x00"


def open_topic() -> Feed:
    """Topics and filters, which may be deep."""

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        with refusable(BadPacket):
            check_filter_untrusted(text)
        check_topic_untrusted(text)

    return feed


def topic_seeds() -> Iterator[bytes]:
    """Wildcards right and wrong, and 2,000 levels."""
    yield from (b"a/+/b/#", b"a+/b", b"#/a", b"", b"a\x00b", b"/" * 2000, b"+/" * 2000 + b"#")


def open_endpoint() -> Feed:
    """The embedded endpoint with a device on it, and a peer who says what he likes.

    The first byte says in how many pieces, and whether he proves an identity first.
    """
    return lambda data: trio.run(_converse, data, clock=MockClock(autojump_threshold=0))


async def _converse(data: bytes) -> None:
    take = Take(data)
    flags = take.number()
    rest = take.rest()
    step = 1 + (flags >> 1)
    with nothing_breaks(), trio.fail_after(3600):
        async with open_running() as running:
            device = await running.client("bystander")
            peer = running.peer()
            if flags & 1:
                await peer.connect("peer")
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for start in range(0, len(rest), step):
                    await peer.send(rest[start : start + step])
                    await wait_all_tasks_blocked()
            assert await device.ask(PingReq()) == PingResp()
            await peer.close()
            await device.close()
            running.nursery.cancel_scope.cancel()


def endpoint_seeds() -> Iterator[bytes]:
    """A peer's whole life."""
    life = b"".join(packets())
    yield b"\x00" + life
    yield b"\x10" + life
    yield b"\xff" + b"".join(list(packets())[2:])
    yield b"\xff" + encode_packet(Publish("device-server", b'{"type":"hello"}'))


_FIELDS = ("Connect", "_Acknowledgement", "Publish", "ConnAck", "Subscribe", "SubAck")

MQTT_TARGETS = (
    Target(
        name="mqtt",
        open=open_mqtt,
        refusal=BadPacket,
        covers=(
            "core.mqtt_packet:Parser.feed_untrusted",
            "core.mqtt_packet:Parser.next_packet_untrusted",
            "core.mqtt_packet:Parser._next_untrusted",
            "core.mqtt_packet:_check_first_byte_untrusted",
            "core.mqtt_packet:_decode_untrusted",
            *(
                f"core.mqtt_types:{kind}.from_fields_untrusted"
                for kind in (*_FIELDS, "Unsubscribe", "_Empty")
            ),
        ),
        seeds=mqtt_seeds,
    ),
    Target(
        name="topic",
        open=open_topic,
        refusal=BadPacket,
        covers=("core.topics:check_topic_untrusted", "core.topics:check_filter_untrusted"),
        seeds=topic_seeds,
    ),
    Target(
        name="endpoint",
        open=open_endpoint,
        refusal=BadPacket,
        covers=(
            "broker.connection:Connection.next_packet_untrusted",
            "broker.admission:Admission.admit_untrusted",
            "broker.admission:Admission._prove_untrusted",
            "broker.admission:Admission._check_untrusted",
        ),
        seeds=endpoint_seeds,
    ),
)
