from __future__ import annotations

import pytest

from trio_gateway.core.mqtt_fields import pack_length
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    Parser,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
    encode,
)
from trio_gateway.errors import BadPacket

LARGE = 1 << 20

# Written by hand from the standard's figures, not by our encoder.
GOLDEN: list[tuple[str, Packet]] = [
    ("10 0d 0004 4d515454 04 02 003c 0001 61", Connect("a", keepalive=60)),
    (
        # 3.1.3: client id, will topic, will message, user name, password, in this order
        "1024 00044d515454 04 f6 000a 00026162 0003772f74 0003627965 000475736572 000470617373",
        Connect(
            "ab",
            keepalive=10,
            will=Will("w/t", b"bye", qos=2, retain=True),
            username="user",
            password=b"pass",
        ),
    ),
    ("10 0c 0004 4d515454 04 00 0000 0000", Connect("", clean_session=False)),
    ("20 02 00 00", ConnAck(0)),
    ("20 02 01 00", ConnAck(0, session_present=True)),
    ("20 02 00 05", ConnAck(5)),
    ("30 07 0003 612f62 6869", Publish("a/b", b"hi")),
    ("31 03 0001 61", Publish("a", retain=True)),
    # Figure 3.11: topic a/b, packet identifier 10
    ("32 07 0003 612f62 000a", Publish("a/b", qos=1, packet_id=10)),
    ("3b 06 0001 61 0001 00", Publish("a", b"\0", 1, retain=True, dup=True, packet_id=1)),
    ("40 02 ffff", PubAck(65535)),
    # Figure 3.23: a/b at QoS 1, c/d at QoS 2
    ("82 0e 000a 0003 612f62 01 0003 632f64 02", Subscribe(10, (("a/b", 1), ("c/d", 2)))),
    # Figure 3.26
    ("90 05 000a 00 02 80", SubAck(10, (0, 2, 128))),
    # Figure 3.30
    ("a2 0c 000a 0003 612f62 0003 632f64", Unsubscribe(10, ("a/b", "c/d"))),
    ("b0 02 000a", UnsubAck(10)),
    ("c0 00", PingReq()),
    ("d0 00", PingResp()),
    ("e0 00", Disconnect()),
]


@pytest.mark.parametrize(("text", "packet"), GOLDEN)
def test_golden_bytes_both_ways(text: str, packet: Packet) -> None:
    data = bytes.fromhex(text)
    assert encode(packet) == data
    assert Parser(LARGE).feed_untrusted(data) == [packet]


BAD = {
    "type 0": ("00 00", "first_byte"),
    "type 15": ("f0 00", "first_byte"),
    "PINGREQ with flags": ("c1 00", "first_byte"),
    "SUBSCRIBE without its flag (MQTT-3.8.1-1)": ("80 06 0001 0001 61 00", "first_byte"),
    "UNSUBSCRIBE without its flag": ("a0 05 0001 0001 61", "first_byte"),
    "dup at QoS 0 (MQTT-3.3.1-2)": ("38 03 0001 61", "first_byte"),
    "QoS 3 (MQTT-3.3.1-4)": ("36 05 0001 61 0001", "first_byte"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n".hex(), "first_byte"),
    "a TLS hello": ("16 03 01 02 00", "first_byte"),
    "QoS 2": ("34 05 0001 61 0001", "qos_2"),
    "PUBREL": ("62 02 0001", "qos_2"),
    "length of five bytes": ("30 80 80 80 80 01", "length"),
    "length of five bytes, the last not there yet": ("30 ff ff ff ff", "length"),
    "oversize, known from the header": ("30 ff ff ff 7f", "oversize"),
    "protocol name MQIsdp": ("10 0f 0006 4d5149736470 03 02 003c 0001 61", "protocol_name"),
    "protocol level 5": ("10 0d 0004 4d515454 05 02 003c 0001 61", "protocol_level"),
    "reserved flag (MQTT-3.1.2-3)": ("10 0d 0004 4d515454 04 03 003c 0001 61", "connect_flags"),
    "will QoS 3": ("10 13 0004 4d515454 04 1e 003c 0001 61 0001 61 0001 61", "connect_flags"),
    "will QoS, no will": ("10 0d 0004 4d515454 04 0a 003c 0001 61", "connect_flags"),
    "will retain, no will": ("10 0d 0004 4d515454 04 22 003c 0001 61", "connect_flags"),
    "password, no user": ("10 10 0004 4d515454 04 42 003c 0001 61 0001 61", "connect_flags"),
    "CONNECT, fields missing": ("10 0d 0004 4d515454 04 82 003c 0001 61", "short"),
    "CONNECT, too much": ("10 0e 0004 4d515454 04 02 003c 0001 61 00", "trailing"),
    "will topic with wildcard": (
        "10 12 0004 4d515454 04 06 003c 0001 61 0001 23 0000",
        "topic",
    ),
    "CONNACK code 6": ("20 02 00 06", "code"),
    "CONNACK refused, but session present (MQTT-3.2.2-4)": ("20 02 01 05", "code"),
    "topic empty (MQTT-4.7.3-1)": ("30 02 0000", "topic"),
    "topic with + (MQTT-3.3.2-2)": ("30 03 0001 2b", "topic"),
    "topic with #": ("30 05 0003 612f23", "topic"),
    "topic with NUL (MQTT-1.5.3-2)": ("30 03 0001 00", "utf8"),
    "topic with surrogate (MQTT-1.5.3-1)": ("30 05 0003 eda080", "utf8"),
    "topic, overlong UTF-8": ("30 04 0002 c0af", "utf8"),
    "topic longer than the packet": ("30 03 ffff 61", "short"),
    "packet id 0 (MQTT-2.3.1-1)": ("32 05 0001 61 0000", "packet_id"),
    "packet id missing": ("32 04 0001 61 00", "short"),
    "PUBACK 0": ("40 02 0000", "packet_id"),
    "PUBACK, long": ("40 03 0001 00", "trailing"),
    "SUBSCRIBE to nothing (MQTT-3.8.3-3)": ("82 02 0001", "short"),
    "SUBSCRIBE at QoS 3 (MQTT-3.8.3-4)": ("82 06 0001 0001 61 03", "qos"),
    "SUBSCRIBE id 0": ("82 06 0000 0001 61 00", "packet_id"),
    "SUBSCRIBE, empty filter": ("82 05 0001 0000 00", "filter"),
    "SUBSCRIBE, # in the middle": ("82 08 0001 0003 232f61 00", "filter"),
    "SUBSCRIBE, + in a word": ("82 07 0001 0002 612b 00", "filter"),
    "SUBACK, none": ("90 02 0001", "code"),
    "SUBACK 3": ("90 03 0001 03", "code"),
    "UNSUBSCRIBE from nothing (MQTT-3.10.3-2)": ("a2 02 0001", "short"),
    "UNSUBSCRIBE, bad filter": ("a2 06 0001 0002 6123", "filter"),
    "PINGREQ with a body": ("c0 01 00", "trailing"),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD.keys())
def test_broken_packets_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        Parser(LARGE).feed_untrusted(bytes.fromhex(text))
    assert caught.value.reason == reason


@pytest.mark.parametrize("first", range(256))
def test_a_first_byte_is_judged_before_anything_else_has_come(first: int) -> None:
    good = {int(text[:2], 16) for text, _ in GOLDEN} | {0x31, 0x32, 0x33, 0x3A, 0x3B}
    parser = Parser(LARGE)
    if first in good:
        assert parser.feed_untrusted(bytes((first,))) == []
    else:
        with pytest.raises(BadPacket):
            parser.feed_untrusted(bytes((first,)))


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (127, "7f"),
        (128, "80 01"),
        (16_383, "ff 7f"),
        (16_384, "80 80 01"),
        (2_097_151, "ff ff 7f"),
        (2_097_152, "80 80 80 01"),
    ],
)
def test_remaining_length_of_table_2_4(length: int, text: str) -> None:
    packet = Publish("a", bytes(length - 3))
    data = encode(packet)
    assert data[1:].startswith(bytes.fromhex(text))
    assert Parser(4 << 20).feed_untrusted(data) == [packet]


def test_a_length_in_more_bytes_than_needed_is_read() -> None:
    # 2.2.3 of 3.1.1 does not forbid it (version 5 does).
    assert Parser(LARGE).feed_untrusted(bytes.fromhex("c0 80 80 00")) == [PingReq()]


def test_the_largest_packet_is_taken_and_one_byte_more_is_not() -> None:
    data = encode(Publish("a", bytes(95)))
    assert len(data) == 100
    assert len(Parser(100).feed_untrusted(data)) == 1
    with pytest.raises(BadPacket, match="oversize"):
        Parser(99).feed_untrusted(data[:2])


def test_packets_before_a_broken_one_are_given_out_and_nothing_after() -> None:
    parser = Parser(LARGE)
    parser.receive_bytes(encode(PingReq()) + b"\xf0\x00" + encode(PingReq()))
    assert parser.next_packet_untrusted() == PingReq()
    for _ in range(2):
        with pytest.raises(BadPacket, match="first_byte"):
            parser.next_packet_untrusted()
    parser.receive_bytes(encode(PingReq()))
    assert parser.held_bytes == 0
    with pytest.raises(BadPacket, match="first_byte"):
        parser.next_packet_untrusted()


def test_single_bytes_of_a_large_packet_cost_no_copies_of_it() -> None:
    # Quadratic work would be 256 KiB squared / 2 = 34 GB of copying: minutes, not milliseconds.
    packet = Publish("a", bytes(256 * 1024))
    data = encode(packet)
    parser = Parser(LARGE)
    for index in range(len(data) - 1):
        parser.receive_bytes(data[index : index + 1])
        assert parser.next_packet_untrusted() is None
    assert parser.feed_untrusted(data[-1:]) == [packet]


def test_many_packets_in_one_piece_cost_no_copies_of_the_rest() -> None:
    # 200,000 times the rest of 400 KB would be 40 GB.
    assert len(Parser(LARGE).feed_untrusted(b"\xc0\x00" * 200_000)) == 200_000


def test_secrets_are_not_in_the_repr() -> None:
    packet = Connect("a", will=Will("t", b"w1ll"), username="us3r", password=b"passw0rd")
    assert "us3r" not in repr(packet)
    assert "passw0rd" not in repr(packet)
    assert "w1ll" not in repr(packet)


@pytest.mark.parametrize(
    "packet",
    [
        Publish("a" * 65536),
        Publish("a\0"),
        Publish("\ud800"),
        Publish("a", qos=1),
        Publish("a", qos=1, packet_id=65536),
        PubAck(-1),
        Connect("a", keepalive=65536),
        Connect("a", username="a", password=bytes(65536)),
        SubAck(1, (256,)),
    ],
)
def test_what_the_format_cannot_hold_is_a_value_error(packet: Packet) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the kind is the contract
        encode(packet)


def test_no_more_than_four_bytes_of_length_are_written() -> None:
    assert pack_length(268_435_455) == b"\xff\xff\xff\x7f"
    with pytest.raises(ValueError, match="268435456"):
        pack_length(268_435_456)
