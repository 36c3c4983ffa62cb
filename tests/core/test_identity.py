from __future__ import annotations

import json
from pathlib import Path

import pytest

from trio_gateway.core.identity import DeviceId, is_addressable, sign, verify_untrusted
from trio_gateway.errors import BadMessage

CREDENTIALS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "credentials.json").read_text(encoding="utf-8")
)
KEY = CREDENTIALS["signature_key"].encode()
CLIENT_ID = CREDENTIALS["client_id"]
USERNAME = CREDENTIALS["username"]
PASSWORD = CREDENTIALS["password"].encode()


def test_three_parts() -> None:
    device = DeviceId.parse(CLIENT_ID)
    assert device.text == CLIENT_ID
    assert device.group == "GID_test"
    assert device.mac == "02:4a:7d:e3:89:bf"
    assert device.uuid == "e3b0c442-98fc-4e14-9a3d-1f2b3c4d5e6f"
    assert device.signed
    assert device.p2p_topics == (f"devices/p2p/{CLIENT_ID}", "devices/p2p/02_4a_7d_e3_89_bf")


def test_two_parts_are_not_signed() -> None:
    device = DeviceId.parse("GID_test@@@02_4a_7d_e3_89_bf")
    assert device.mac == "02:4a:7d:e3:89:bf"
    assert device.uuid is None
    assert not device.signed


@pytest.mark.parametrize(
    "mac", ["02_4a_7d_e3_89_bf", "02-4A-7D-E3-89-BF", "02:4a:7D:e3:89:bf", "02_4a-7d:e3_89_bf"]
)
def test_a_mac_has_one_canonical_form(mac: str) -> None:
    assert DeviceId.parse(f"G@@@{mac}@@@u").mac == "02:4a:7d:e3:89:bf"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "paho-client-7",
        "02_4a_7d_e3_89_bf",
        "@@@02_4a_7d_e3_89_bf",
        "@@@02_4a_7d_e3_89_bf@@@u",
        "G@@@02_4a_7d_e3_89",
        "G@@@02_4a_7d_e3_89_bg",
        "G@@@024a7de389bf",
        "G@@@02_4a_7d_e3_89_bf\n",
        "G@@@02_4a_7d_e3_89_\N{FULLWIDTH DIGIT ONE}1",
        "G@@@02_4a_7d_e3_89_bf@@@",
        "G@@@@@@02_4a_7d_e3_89_bf",
    ],
)
def test_any_other_id_is_a_device_without_mac(text: str) -> None:
    assert DeviceId.parse(text) == DeviceId(text)
    assert not DeviceId.parse(text).signed


@pytest.mark.parametrize("text", ["", "+", "#", "a/#", "a\x00b", "a\nb", "\ud800", "x" * 257])
def test_an_id_that_no_topic_can_name_gets_no_topic(text: str) -> None:
    assert not is_addressable(text)
    assert DeviceId.parse(text).p2p_topics == ()
    # With a MAC the short topic stays: it has been rebuilt from hexadecimal digits.
    wild = f"G{text[:1]}+@@@02_4a_7d_e3_89_bf"
    assert DeviceId.parse(wild).p2p_topics == ("devices/p2p/02_4a_7d_e3_89_bf",)


def test_the_password_of_the_golden_device() -> None:
    assert sign(KEY, CLIENT_ID, USERNAME) == CREDENTIALS["password"]
    verify_untrusted(KEY, CLIENT_ID, USERNAME, PASSWORD)


TWO_PARTS = "G@@@02_4a_7d_e3_89_bf"


@pytest.mark.parametrize(
    ("key", "client_id", "username", "password", "reason"),
    [
        (KEY, CLIENT_ID, USERNAME, PASSWORD[:-1] + b"A", "bad_password"),
        (KEY, CLIENT_ID, USERNAME, PASSWORD[:-1], "bad_password"),
        (KEY, CLIENT_ID, USERNAME, b"", "bad_password"),
        (KEY, CLIENT_ID, USERNAME, b"\xff\x00", "bad_password"),
        (KEY, CLIENT_ID, USERNAME + "=", PASSWORD, "bad_password"),
        (KEY, CLIENT_ID + "0", USERNAME, PASSWORD, "bad_password"),
        (KEY + b"!", CLIENT_ID, USERNAME, PASSWORD, "bad_password"),
        (KEY, CLIENT_ID, "\ud800", PASSWORD, "bad_password"),
        (KEY, CLIENT_ID, None, PASSWORD, "no_credentials"),
        (KEY, CLIENT_ID, USERNAME, None, "no_credentials"),
        (KEY, TWO_PARTS, "u", sign(KEY, TWO_PARTS, "u").encode(), "unsigned_id"),
        (KEY, "anybody", "u", sign(KEY, "anybody", "u").encode(), "unsigned_id"),
    ],
)
def test_refused(
    key: bytes, client_id: str, username: str | None, password: bytes | None, reason: str
) -> None:
    with pytest.raises(BadMessage) as caught:
        verify_untrusted(key, client_id, username, password)
    assert caught.value.reason == reason


def test_a_password_cannot_be_read_for_another_id() -> None:
    # The signed text of (id, "x|y") is that of (id + "|x", "y").
    password = sign(KEY, CLIENT_ID, "x|y").encode()
    verify_untrusted(KEY, CLIENT_ID, "x|y", password)
    with pytest.raises(BadMessage) as caught:
        verify_untrusted(KEY, CLIENT_ID + "|x", "y", password)
    assert caught.value.reason == "ambiguous_id"
