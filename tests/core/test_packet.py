from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.core.packet import (
    HEADER_BYTES,
    header,
    parse_datagram_untrusted,
    ssrc_untrusted,
)
from trio_gateway.errors import BadPacket

VECTORS = Path(__file__).parents[1] / "vectors"
DATAGRAMS: list[dict[str, Any]] = json.loads((VECTORS / "datagrams.json").read_text())
FIRST = bytes.fromhex(DATAGRAMS[0]["header"] + DATAGRAMS[0]["ciphertext"])


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda vector: vector["name"])
def test_golden_datagrams_come_apart(vector: dict[str, Any]) -> None:
    packet = parse_datagram_untrusted(bytes.fromhex(vector["header"] + vector["ciphertext"]))

    fields = vector["fields"]
    assert packet.flags == fields["flags"]
    assert packet.ssrc == fields["ssrc"]
    assert packet.timestamp_ms == fields["timestamp_ms"]
    assert packet.sequence == fields["sequence"]
    assert packet.iv.hex() == vector["header"]
    assert packet.payload.hex() == vector["ciphertext"]
    assert len(packet.payload) == fields["payload_len"]


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda vector: vector["name"])
def test_golden_headers_are_built(vector: dict[str, Any]) -> None:
    fields = {name: value for name, value in vector["fields"].items() if name != "type"}
    assert header(**fields).hex() == vector["header"]


def test_the_template_of_the_golden_hello() -> None:
    nonce = json.loads((VECTORS / "hello.json").read_text())["answer"]["udp"]["nonce"]
    assert header(DATAGRAMS[0]["fields"]["ssrc"]).hex() == nonce


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "short"),
        (FIRST[: HEADER_BYTES - 1], "short"),
        (b"\x00" + FIRST[1:], "bad_type"),
        (b"\x02" + FIRST[1:], "bad_type"),
        (FIRST[:-1], "bad_length"),
        (FIRST + b"\x00", "bad_length"),
        (FIRST[:HEADER_BYTES], "bad_length"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        parse_datagram_untrusted(data)
    assert caught.value.reason == reason


def test_any_flags_are_accepted_and_are_part_of_the_iv() -> None:
    packet = parse_datagram_untrusted(FIRST[:1] + b"\xff" + FIRST[2:])
    assert packet.flags == packet.iv[1] == 0xFF


def test_the_ssrc_is_found_without_the_rest() -> None:
    assert ssrc_untrusted(FIRST) == DATAGRAMS[0]["fields"]["ssrc"]
    assert ssrc_untrusted(FIRST + b"whatever follows") == DATAGRAMS[0]["fields"]["ssrc"]
    for data, reason in (FIRST[: HEADER_BYTES - 1], "short"), (b"\x00" * HEADER_BYTES, "bad_type"):
        with pytest.raises(BadPacket) as caught:
            ssrc_untrusted(data)
        assert caught.value.reason == reason


def test_a_packet_in_a_log_line_is_short() -> None:
    text = repr(parse_datagram_untrusted(FIRST))
    assert "iv" not in text
    assert "payload" not in text
