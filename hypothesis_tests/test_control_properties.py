"""Invariant: bytes become a message that encodes and reads back equal, or `BadMessage`.

The model is `json.loads`, which accepts more: other encodings, NaN, infinity, any depth, any value.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from trio_gateway.core.control import (
    FRAME_MS,
    OPUS_RATES,
    encode,
    parse_hello_untrusted,
    parse_message_untrusted,
    sender_of_topic,
    unwrap_ingest_untrusted,
)
from trio_gateway.core.identity import DeviceId, is_addressable
from trio_gateway.core.messages import MAX_DEPTH
from trio_gateway.errors import BadMessage

# Not st.characters(): the first use of its tables takes longer than a health check likes.
CHARACTERS = st.sampled_from('ab\x00\n"\\/+#|é你\U0001f600\ud800\udfff')
CHARACTERS |= st.integers(0, 0x10FFFF).map(chr)
TEXT = st.text(CHARACTERS, max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
SCALARS |= st.sampled_from([4299, 4300, 5000]).map(lambda digits: 10**digits)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=10
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)
FRAGMENTS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b":", b",", b"1", b" ", b"NaN", b"1e999"]
)
FRAGMENTS |= st.sampled_from([b"\\ud800", b"\\u0000", b"\xff", b"\xf0\x9f\x98\x80", b"9" * 4400])
FRAGMENTS |= st.sampled_from([b'{"a":' * 60, b"}" * 60, b"[" * 70, b"]" * 70])
HOSTILE = st.binary() | st.lists(FRAGMENTS, max_size=30).map(b"".join)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def is_finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def model(payload: bytes) -> Any:
    """Return what `json.loads` makes of it, or None if that is no message by our rules."""
    try:
        message = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    fit = isinstance(message, dict) and is_finite(message) and depth_of(message) <= MAX_DEPTH
    return message if fit else None


@given(payload=HOSTILE)
@example(payload=b'{"a":' * 100_000)
@example(payload=b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
@example(payload=b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))
def test_any_bytes(payload: bytes) -> None:
    expected = model(payload)
    try:
        message = parse_message_untrusted(payload)
    except BadMessage:
        assert expected is None
    else:
        assert message == expected
        assert parse_message_untrusted(encode(message)) == message


@given(message=OBJECTS, ensure_ascii=st.booleans())
def test_any_object(message: dict[str, Any], ensure_ascii: bool) -> None:  # noqa: FBT001  drawn
    try:
        payload = json.dumps(message, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
    except ValueError:  # an integer of more than 4300 digits
        return
    expected = model(payload)
    try:
        read = parse_message_untrusted(payload)
    except BadMessage:
        assert expected is None
    else:
        assert read == expected
        again = encode(read)
        assert parse_message_untrusted(again) == json.loads(again.decode("utf-8")) == read


PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "format": VALUES | st.just("opus"),
        "sample_rate": VALUES | st.sampled_from(sorted(OPUS_RATES)),
        "channels": VALUES | st.integers(0, 3),
        "frame_duration": VALUES | st.sampled_from(sorted(FRAME_MS)),
    },
)
HELLOS = st.fixed_dictionaries(
    {}, optional={"version": VALUES, "features": VALUES, "audio_params": PARAMS | VALUES}
)


@given(message=HELLOS | OBJECTS)
def test_any_hello_is_served_or_refused(message: dict[str, Any]) -> None:
    try:
        hello = parse_hello_untrusted(message)
    except BadMessage:
        return
    params = message.get("audio_params") or {}
    assert hello.audio.format == "opus"
    assert hello.audio.rate in OPUS_RATES
    assert hello.audio.rate == (params.get("sample_rate") or 16000)
    assert hello.audio.frame_ms in FRAME_MS
    assert hello.audio.frame_ms == (params.get("frame_duration") or 60)
    assert hello.audio.channels == (params.get("channels") or 1)
    assert all(type(value) is int for value in (hello.audio.rate, hello.audio.frame_ms))
    assert hello.features == (message.get("features") if hello.features else {})


PAYLOADS = ("orginal_payload", "original_payload")
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "sender_client_id": VALUES | TEXT,
        "orginal_payload": OBJECTS | VALUES,
        "original_payload": OBJECTS | VALUES,
    },
)


@given(payload=HOSTILE)
def test_any_envelope_bytes(payload: bytes) -> None:
    with suppress(BadMessage):
        client_id, message = unwrap_ingest_untrusted(payload)
        assert is_addressable(client_id)
        assert isinstance(message, dict)


def is_sender(value: object) -> bool:
    return isinstance(value, str) and is_addressable(value)


@given(envelope=ENVELOPES)
def test_any_envelope(envelope: dict[str, Any]) -> None:
    try:
        payload = encode(envelope)
    except ValueError:
        return
    sender = envelope.get("sender_client_id")
    try:
        client_id, message = unwrap_ingest_untrusted(payload)
    except BadMessage:
        # Numbers can be out of range anywhere in it, and text may not be a message.
        first = envelope.get(PAYLOADS[0], envelope.get(PAYLOADS[1]))
        assert not (is_sender(sender) and isinstance(first, dict) and is_finite(envelope))
        return
    assert is_sender(sender)
    assert client_id == sender
    payloads = [envelope[each] for each in PAYLOADS if each in envelope]
    assert message == payloads[0] or isinstance(payloads[0], str)


MACS = st.tuples(
    st.lists(st.sampled_from(["00", "a1", "B2"]), min_size=5, max_size=7), st.sampled_from(":_-")
).map(lambda mac: mac[1].join(mac[0]))
CLIENT_IDS = st.lists(TEXT | MACS, max_size=4).map("@@@".join)
CLIENT_IDS |= st.tuples(TEXT, MACS, TEXT).map("@@@".join) | st.tuples(TEXT, MACS).map("@@@".join)


@given(text=CLIENT_IDS)
def test_any_client_id(text: str) -> None:
    device = DeviceId.parse(text)
    assert device.text == text
    for topic in device.p2p_topics:
        assert topic.startswith("devices/p2p/")
        assert not {"+", "#", "\x00"} & set(topic)
        topic.encode("utf-8")
    if device.mac is not None:
        group, mac, *uuid = text.split("@@@", 2)
        assert device.group == group
        assert device.mac == ":".join(mac[i : i + 2] for i in range(0, 17, 3)).lower()
        assert device.uuid == (uuid[0] if uuid else None)


@given(client_id=TEXT | CLIENT_IDS)
def test_a_topic_names_the_sender_that_made_it(client_id: str) -> None:
    template = "devices/{client_id}/hello"
    found = sender_of_topic(template.replace("{client_id}", client_id), [template])
    possible = is_addressable(client_id) and "/" not in client_id and client_id != "p2p"
    assert found == (client_id if possible else None)
