"""Invariant: every packet comes back equal however its bytes are cut; other bytes are BadPacket."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

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

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 4096  # bytes

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
topics = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=30
)
filters = st.lists(st.sampled_from(["+", "a", "", "$b"]), min_size=1, max_size=4).map("/".join)
filters = filters.filter(bool) | filters.map(lambda text: f"{text}/#")
payloads = st.binary(max_size=300)
ids = st.integers(1, 65535)
wills = st.builds(Will, topics, payloads, st.integers(0, 2), st.booleans())
credentials = st.one_of(
    st.tuples(st.none(), st.none()), st.tuples(texts, st.none()), st.tuples(texts, payloads)
)


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    username, password = draw(credentials)
    return Connect(
        client_id=draw(texts),
        keepalive=draw(st.integers(0, 65535)),
        clean_session=draw(st.booleans()),
        will=draw(st.none() | wills),
        username=username,
        password=password,
    )


packets: st.SearchStrategy[Packet] = st.one_of(
    connects(),
    st.builds(ConnAck, st.just(0), st.booleans()),
    st.builds(ConnAck, st.integers(1, 5)),
    st.builds(Publish, topics, payloads, st.just(0), st.booleans()),
    st.builds(Publish, topics, payloads, st.just(1), st.booleans(), st.booleans(), ids),
    st.builds(PubAck, ids),
    st.builds(
        Subscribe,
        ids,
        st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=5).map(tuple),
    ),
    st.builds(
        SubAck, ids, st.lists(st.sampled_from([0, 1, 2, 128]), min_size=1, max_size=5).map(tuple)
    ),
    st.builds(Unsubscribe, ids, st.lists(filters, min_size=1, max_size=5).map(tuple)),
    st.builds(UnsubAck, ids),
    st.just(PingReq()),
    st.just(PingResp()),
    st.just(Disconnect()),
)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def told(pieces: Sequence[bytes]) -> tuple[list[Packet], str | None]:
    """What a parser says to these pieces: packets, and the reason of the end if there is one."""
    parser = Parser(LIMIT)
    said: list[Packet] = []
    try:
        for piece in pieces:
            parser.receive_bytes(piece)
            while (packet := parser.next_packet_untrusted()) is not None:
                said.append(packet)
            assert parser.held_bytes < LIMIT
    except BadPacket as error:
        assert parser.held_bytes == 0
        return said, error.reason
    return said, None


@given(st.lists(packets, max_size=5), st.lists(st.integers(min_value=0), max_size=10))
def test_packets_come_back_equal(sent: list[Packet], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    assert told(cut(data, cuts)) == (sent, None)


@given(st.lists(packets, min_size=1, max_size=3), st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_is_an_error_or_other_packets(
    sent: list[Packet], place: int, change: int
) -> None:
    data = bytearray(b"".join(map(encode, sent)))
    data[place % len(data)] ^= change
    heard, reason = told([bytes(data)])
    # What was understood is a packet that one could have sent: it can be encoded and read again.
    assert told([encode(packet) for packet in heard]) == (heard, None)
    assert reason is None or reason.isidentifier()


@given(st.binary(max_size=2000), st.lists(st.integers(min_value=0), max_size=10))
def test_any_bytes_say_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    # `told` shows that nothing but BadPacket is raised and that the buffer stays small.
    assert told(cut(data, cuts)) == told([data]) == told([bytes((byte,)) for byte in data])


@given(st.sampled_from([0x10, 0x20, 0x32, 0x82, 0x90, 0xA2]), st.binary(max_size=100))
def test_any_body_behind_a_good_header(first: int, body: bytes) -> None:
    heard, reason = told([bytes((first, len(body))) + body])
    assert len(heard) + (reason is not None) == 1
