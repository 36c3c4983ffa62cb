from __future__ import annotations

import pytest

from trio_gateway.errors import BadMessage
from trio_gateway.mqtt.routes import Routes, down_topic
from trio_gateway.settings import MqttSettings

THREE = "GID@@@aa_bb_cc_dd_ee_ff@@@3f9c"
TWO = "GID@@@aa-BB-cc-dd-ee-ff"


def test_only_topics_that_name_the_sender_are_subscribed_to() -> None:
    settings = MqttSettings(
        ingest_topic="in",
        publish_topics=("up", "a/{client_id}", "x/of-{client_id}/y", "a/{client_id}"),
    )
    assert Routes.of(settings).filters == [
        "in",
        "devices/+/hello",
        "devices/+/data",
        "a/+",
        "x/+/y",
    ]


@pytest.mark.parametrize(
    ("topic", "sender"),
    [
        ("devices/d/hello", "d"),
        ("devices/d/data", "d"),
        ("x/of-d/y", "d"),
        ("internal/server-ingest", "e"),
    ],
)
def test_the_sender_is_read_from_topic_or_envelope(topic: str, sender: str) -> None:
    routes = Routes.of(MqttSettings(publish_topics=("x/of-{client_id}/y",)))
    payload = b'{"type":"hello"}'
    if sender == "e":
        payload = b'{"sender_client_id":"e","orginal_payload":%b}' % payload
    assert routes.parse_untrusted(topic, payload) == (sender, {"type": "hello"})


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("x/d/y", b"{}", "bad_sender"),  # matches x/+/y, but not the template
        ("devices/d/data", b" " * 70_000 + b"{}", "too_long"),
        ("internal/server-ingest", b" " * 70_000 + b"{}", "too_long"),
        ("devices/d/data", b"[]", "not_an_object"),
    ],
)
def test_what_cannot_be_used_has_a_reason(topic: str, payload: bytes, reason: str) -> None:
    routes = Routes.of(MqttSettings(publish_topics=("x/of-{client_id}/y",)))
    with pytest.raises(BadMessage) as caught:
        routes.parse_untrusted(topic, payload)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("client_id", "reply_to", "topic"),
    [
        (THREE, "auto", THREE),
        (THREE, "client_id", THREE),
        (THREE, "mac", "aa_bb_cc_dd_ee_ff"),
        (TWO, "auto", "aa_bb_cc_dd_ee_ff"),
        (TWO, "client_id", TWO),
        (TWO, "mac", "aa_bb_cc_dd_ee_ff"),
        ("speaker", "auto", "speaker"),
        ("speaker", "mac", "speaker"),  # has none
    ],
)
def test_down_topic(client_id: str, reply_to: str, topic: str) -> None:
    assert down_topic(client_id, reply_to) == f"devices/p2p/{topic}"


@pytest.mark.parametrize(
    "client_id",
    ["", "a/b", "#", "a+", "a\0", "a\x01b", "a\u0085b", "a\uffffb", "\ud800", "a" * 300],
)
def test_ids_that_no_topic_can_carry(client_id: str) -> None:
    assert down_topic(client_id, "auto") is None
    assert down_topic(client_id, "mac") is None
