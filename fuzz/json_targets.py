"""Ways in for control: JSON, who sent it, and who that is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzzing import SCALARS, WORDS, Feed, Take, Target, record, refusable

from trio_gateway.core.control import (
    DEFAULT_UPLINK,
    encode,
    parse_audio_params_untrusted,
    parse_hello_untrusted,
    parse_message_untrusted,
    unwrap_ingest_untrusted,
)
from trio_gateway.core.identity import MAX_CLIENT_ID_CHARS, sign, verify_untrusted
from trio_gateway.core.messages import MAX_DEPTH
from trio_gateway.errors import BadMessage
from trio_gateway.mqtt.routes import Routes
from trio_gateway.simulator.channel import parse_channel_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JSON_TARGETS", "scalar", "vector"]

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
KEY = b"a key for tests"
MAX_BYTES = 4096


def vector(name: str) -> Any:
    """A file of tests/vectors."""
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def open_message() -> Feed:
    """Parse as bytes and as text; what was parsed can be encoded and reads back equal."""

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        with refusable(BadMessage):
            parse_message_untrusted(text, max_bytes=MAX_BYTES)
        message = parse_message_untrusted(data, max_bytes=MAX_BYTES)
        assert parse_message_untrusted(encode(message)) == message

    return feed


def message_seeds() -> Iterator[bytes]:
    """Messages of the protocol, and the corners of JSON."""
    hello = vector("hello.json")
    yield from (encode(hello[side]) for side in hello)
    yield b'{"session_id":"","type":"listen","state":"start","mode":"auto"}'
    yield b'{"audio_params":{"sample_rate":16000.0,"channels":true,"frame_duration":1e999}}'
    for value in (
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b'"\\ud800"',
        b"\xff\xfe{\x00",
        b"0x1",
    ):
        yield b'{"type":' + value + b"}"
    yield b'{"a":1,"a":2}'
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, 1500):
        yield b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def scalar(value: object) -> bytes:
    """Return what `Take.value` makes a scalar of; 1, 1.0 and True are equal, and three of them."""
    kinds: list[tuple[object, object]] = [(type(each), each) for each in SCALARS]
    return bytes([0, kinds.index((type(value), value))])


def open_hello() -> Feed:
    """A message that is JSON for sure, and everything that reads one."""
    routes = Routes("ingest", ("x/{client_id}",), 1 << 20)

    def feed(data: bytes) -> None:
        message = Take(data).object(16)
        assert parse_message_untrusted(encode(message)) == message
        for parse in (
            partial(parse_hello_untrusted, message),
            partial(parse_audio_params_untrusted, message.get("audio_params"), DEFAULT_UPLINK),
            partial(parse_audio_params_untrusted, message, DEFAULT_UPLINK),
            partial(parse_channel_untrusted, message),
            partial(unwrap_ingest_untrusted, encode(message)),
            partial(routes.parse_untrusted, "ingest", encode(message)),
        ):
            with refusable(BadMessage):
                parse()

    return feed


def hello_seeds() -> Iterator[bytes]:
    """What `Take.object` makes hellos of."""
    word = WORDS.index

    params = b"".join(
        bytes([word(name)]) + value
        for name, value in (
            ("format", bytes([1, word("opus")])),
            ("sample_rate", scalar(16000.0)),
            ("channels", scalar(1)),
            ("frame_duration", scalar(60)),
        )
    )
    audio = bytes([word("audio_params"), 5, 4]) + params
    key = bytes([1, word("00" * 16)])
    udp = b"".join(
        bytes([word(name)]) + value
        for name, value in (
            ("server", bytes([1, word("hello")])),
            ("port", scalar(8884)),
            ("key", key),
            ("nonce", key),
        )
    )
    session = bytes([word("session_id"), 1, word("hello"), word("transport"), 1, word("udp")])
    yield audio
    yield audio + session + bytes([word("udp"), 5, 4]) + udp
    envelope = bytes([word("sender_client_id"), 1, word("mcp"), word("orginal_payload"), 5, 4])
    yield envelope + params


def open_ingest() -> Feed:
    """A topic and a payload, as an external broker hands them over."""
    routes = Routes("internal/server-ingest", ("devices/{client_id}/hello", "x/{client_id}"), 4096)

    def feed(data: bytes) -> None:
        take = Take(data)
        topic = take.block().decode("utf-8", "surrogateescape")
        payload = take.rest()
        with refusable(BadMessage):
            unwrap_ingest_untrusted(payload, max_bytes=MAX_BYTES)
        client_id, _ = routes.parse_untrusted(topic, payload)
        assert 0 < len(client_id) <= MAX_CLIENT_ID_CHARS
        assert client_id.isprintable()

    return feed


def ingest_seeds() -> Iterator[bytes]:
    """All the ways in."""
    envelope = {"sender_client_id": "device", "orginal_payload": {"type": "hello"}}
    yield record(b"internal/server-ingest") + encode(envelope)
    yield record(b"internal/server-ingest") + encode(envelope | {"orginal_payload": '{"a":1}'})
    yield record(b"internal/server-ingest") + encode({"sender_client_id": "d"})
    yield record(b"devices/device/hello") + b'{"type":"hello"}'
    yield record(b"x/+") + b"{}"


def open_identity() -> Feed:
    """Credentials; only who knows the key gets in."""

    def feed(data: bytes) -> None:
        take = Take(data)
        client_id = take.block().decode("utf-8", "surrogateescape")
        username = take.block().decode("utf-8", "surrogateescape") if take.number() else None
        password = take.block() if take.number() else None
        verify_untrusted(KEY, client_id, username, password)
        assert password == sign(KEY, client_id, username or "").encode()

    return feed


def identity_seeds() -> Iterator[bytes]:
    """Good credentials and some that are not."""
    good = vector("credentials.json")
    parts = [good[name].encode() for name in ("client_id", "username", "password")]
    yield record(parts[0], 1, parts[1], 1, parts[2])
    yield record(parts[0] + b"|", 1, parts[1], 1, parts[2])
    yield record(parts[0], 1, parts[1], 0)
    yield record(b"GID@@@02_4a_7d_e3_89_bf", 0, 0)


JSON_TARGETS = (
    Target(
        name="message",
        open=open_message,
        refusal=BadMessage,
        covers=("core.messages:parse_message_untrusted",),
        seeds=message_seeds,
    ),
    Target(
        name="hello",
        open=open_hello,
        refusal=BadMessage,
        covers=(
            "core.control:parse_hello_untrusted",
            "core.control:parse_audio_params_untrusted",
            "simulator.channel:parse_channel_untrusted",
            "simulator.channel:_hex_untrusted",
        ),
        seeds=hello_seeds,
    ),
    Target(
        name="ingest",
        open=open_ingest,
        refusal=BadMessage,
        covers=("core.control:unwrap_ingest_untrusted", "mqtt.routes:Routes.parse_untrusted"),
        seeds=ingest_seeds,
    ),
    Target(
        name="identity",
        open=open_identity,
        refusal=BadMessage,
        covers=("core.identity:verify_untrusted",),
        seeds=identity_seeds,
    ),
)
