from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.core.control import (
    DEFAULT_DOWNLINK,
    DEFAULT_UPLINK,
    AudioParams,
    Hello,
    alert,
    encode,
    goodbye,
    hello_answer,
    mcp,
    parse_audio_params_untrusted,
    parse_hello_untrusted,
    parse_message_untrusted,
    sender_of_topic,
    tts,
    unwrap_ingest_untrusted,
)
from trio_gateway.core.messages import MAX_DEPTH
from trio_gateway.errors import BadMessage

HELLO = json.loads((Path(__file__).parents[1] / "vectors" / "hello.json").read_text("utf-8"))


def nested(depth: int) -> str:
    """Return an object in which containers stand in each other `depth` levels deep."""
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b'{"type":"hello"', "not_json"),
        (b'{"type":"hello"} {}', "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b'{"a":-Infinity}', "not_json"),
        (b'{"a":1e999}', "not_json"),
        (b'{"a":-1.0e999}', "not_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "not_json"),
        (b'{"a":"\x01"}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a":"\xff"}', "not_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8"),
        ('{"a":1}'.encode("utf-16"), "not_utf8"),
        (b'{"a":' * 200_000, "too_deep"),
        (b"[" * 500_000, "too_deep"),
        (nested(MAX_DEPTH + 1).encode(), "too_deep"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"hello"', "not_an_object"),
        (b" " * (1024 * 1024 + 1), "too_long"),
    ],
    ids=lambda value: str(value[:20]) if isinstance(value, bytes) else value,
)
def test_what_is_no_message(payload: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_message_untrusted(payload)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 200  # it goes to the log


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"no":"type"}',
        nested(MAX_DEPTH).encode(),
        nested(MAX_DEPTH)[:-1].encode() + b',"b":[]}',
        b'{"many":[' + b"[]," * 1000 + b"[]]}",  # brackets enough, but not deep
        b'{"a":"\\ud800","\\udfff":1}',
        b'{"a":"\\u0000"}',
        b'{"a":' + b"9" * 4000 + b"}",
        b'{"a":-0.0,"b":1e-999,"c":0e999}',
        '{"text":"你好 \U0001f600"}'.encode(),
    ],
    ids=lambda payload: str(payload[:20]),
)
def test_what_is_a_message_comes_back_the_same(payload: bytes) -> None:
    message = parse_message_untrusted(payload)
    assert message == json.loads(payload)
    assert parse_message_untrusted(encode(message)) == message


def test_text_is_taken_like_bytes() -> None:
    assert parse_message_untrusted('{"a":"é"}') == {"a": "é"}
    assert parse_message_untrusted('{"a":"\ud800"}') == {"a": "\ud800"}


def test_of_equal_keys_the_last_one_counts() -> None:
    assert parse_message_untrusted(b'{"type":"hello","type":"abort"}') == {"type": "abort"}


def test_a_limit_of_ones_own() -> None:
    assert parse_message_untrusted(b'{"a":1}', max_bytes=7) == {"a": 1}
    with pytest.raises(BadMessage):
        parse_message_untrusted(b'{"a":1}', max_bytes=6)


def test_encoding_is_compact_utf_8() -> None:
    assert encode({"a": "你好", "b": [1, 2]}) == '{"a":"你好","b":[1,2]}'.encode()


def test_a_lone_surrogate_leaves_as_an_escape() -> None:
    assert encode({"a": "\ud800é"}) == b'{"a":"\\ud800\\u00e9"}'


def test_the_golden_hello() -> None:
    hello = parse_hello_untrusted(HELLO["device"])
    assert hello == Hello(
        version=3, features={"mcp": True}, audio=AudioParams("opus", 16000, 1, 60)
    )

    udp = HELLO["answer"]["udp"]
    answer = hello_answer(
        HELLO["answer"]["session_id"],
        DEFAULT_DOWNLINK,
        udp["server"],
        udp["port"],
        key=bytes.fromhex(udp["key"]),
        nonce=bytes.fromhex(udp["nonce"]),
    )
    assert answer == HELLO["answer"]
    assert json.loads(encode(answer)) == HELLO["answer"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "hello"},
        {"type": "hello", "version": "3", "features": None, "audio_params": None},
        {"type": "hello", "version": True, "features": ["mcp"], "audio_params": {}},
    ],
)
def test_a_hello_that_says_little_has_the_firmware_s_values(message: dict[str, Any]) -> None:
    assert parse_hello_untrusted(message) == Hello(3, {}, AudioParams("opus", 16000, 1, 60))


def test_another_version_is_not_judged() -> None:
    assert parse_hello_untrusted({"type": "hello", "version": 2}).version == 2


def test_audio_params_as_others_write_them() -> None:
    params = {"sample_rate": 24000.0, "frame_duration": 20, "channels": None, "more": "fields"}
    assert parse_audio_params_untrusted(params, DEFAULT_UPLINK) == AudioParams("opus", 24000, 1, 20)
    assert parse_audio_params_untrusted(params, DEFAULT_UPLINK).to_message() == {
        "format": "opus",
        "sample_rate": 24000,
        "channels": 1,
        "frame_duration": 20,
    }


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ("opus", "bad_audio_params"),
        ([], "bad_audio_params"),
        ({"format": "pcm"}, "bad_format"),
        ({"format": ["opus"]}, "bad_format"),
        ({"sample_rate": 44100}, "bad_sample_rate"),
        ({"sample_rate": "16000"}, "bad_sample_rate"),
        ({"sample_rate": [16000]}, "bad_sample_rate"),
        ({"sample_rate": {}}, "bad_sample_rate"),
        ({"sample_rate": 10**4000}, "bad_sample_rate"),
        ({"channels": True}, "bad_channels"),
        ({"channels": 3}, "bad_channels"),
        ({"frame_duration": 0}, "bad_frame_duration"),
        ({"frame_duration": 2.5}, "bad_frame_duration"),
        ({"frame_duration": -60}, "bad_frame_duration"),
    ],
    ids=str,
)
def test_audio_that_cannot_be_decoded_is_refused(params: object, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_hello_untrusted({"type": "hello", "audio_params": params})
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("host", "port", "key", "nonce"),
    [
        ("", 8884, bytes(16), bytes(16)),
        ("192.0.2.7", 0, bytes(16), bytes(16)),
        ("192.0.2.7", 65536, bytes(16), bytes(16)),
        ("192.0.2.7", 8884, bytes(32), bytes(16)),
        ("192.0.2.7", 8884, bytes(16), bytes(12)),
    ],
)
def test_no_answer_that_a_device_would_not_understand(
    host: str, port: int, key: bytes, nonce: bytes
) -> None:
    with pytest.raises(ValueError, match=r"16 bytes|address"):
        hello_answer("s", DEFAULT_DOWNLINK, host, port, key=key, nonce=nonce)


def test_the_other_messages() -> None:
    assert goodbye("s") == {"type": "goodbye", "session_id": "s"}
    assert tts("s", "start") == {"type": "tts", "session_id": "s", "state": "start"}
    assert tts("s", "sentence_start", "Hi") == {
        "type": "tts",
        "session_id": "s",
        "state": "sentence_start",
        "text": "Hi",
    }
    assert alert("Busy", "Try later", "sad") == {
        "type": "alert",
        "status": "Busy",
        "message": "Try later",
        "emotion": "sad",
    }
    assert mcp("s", {"jsonrpc": "2.0"}) == {
        "type": "mcp",
        "session_id": "s",
        "payload": {"jsonrpc": "2.0"},
    }


DEVICE = "G@@@02_4a_7d_e3_89_bf@@@u"


@pytest.mark.parametrize(
    "payload",
    [
        {"sender_client_id": DEVICE, "orginal_payload": {"type": "hello"}},
        {"sender_client_id": DEVICE, "original_payload": {"type": "hello"}},
        {"sender_client_id": DEVICE, "orginal_payload": '{"type":"hello"}'},
    ],
)
def test_the_envelope_of_a_broker_s_rule(payload: dict[str, Any]) -> None:
    assert unwrap_ingest_untrusted(encode(payload)) == (DEVICE, {"type": "hello"})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"[]", "not_an_object"),
        (b'{"orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":"","orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":7,"orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":"+","orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":"\\ud800","orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":"a\\u0000","orginal_payload":{}}', "bad_sender"),
        (b'{"sender_client_id":"a"}', "no_payload"),
        (b'{"sender_client_id":"a","orginal_payload":[]}', "no_payload"),
        (b'{"sender_client_id":"a","orginal_payload":"text"}', "not_json"),
        (b'{"sender_client_id":"a","orginal_payload":"[]"}', "not_an_object"),
    ],
)
def test_envelopes_that_are_none(payload: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        unwrap_ingest_untrusted(payload)
    assert caught.value.reason == reason


TEMPLATES = ["device-server", "devices/{client_id}/hello", "devices/{client_id}/data"]


@pytest.mark.parametrize(
    ("topic", "client_id"),
    [
        (f"devices/{DEVICE}/hello", DEVICE),
        (f"devices/{DEVICE}/data", DEVICE),
        ("device-server", None),
        ("devices//hello", None),
        ("devices/hello", None),
        ("devices/a/b/hello", None),
        ("devices/a/other", None),
        ("devices/p2p/hello", None),  # the way down to a device called "hello"
        ("devices/+/hello", None),
        ("devices/a\x00/hello", None),
        ("", None),
    ],
)
def test_the_sender_in_a_topic(topic: str, client_id: str | None) -> None:
    assert sender_of_topic(topic, TEMPLATES) == client_id


def test_a_template_s_ends_may_not_overlap() -> None:
    assert sender_of_topic("a/a", ["a/{client_id}/a"]) is None
