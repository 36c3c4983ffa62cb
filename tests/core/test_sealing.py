from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.core.packet import parse_datagram_untrusted
from trio_gateway.core.sealing import MAX_SEQUENCE, MAX_TIMESTAMP_MS, Sealer
from trio_gateway.errors import KeystreamExhausted

DATAGRAMS: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parents[1] / "vectors" / "datagrams.json").read_text())
}
KEY = b"sixteen byte key"


def timestamps(sealer: Sealer, times: list[float]) -> list[int]:
    return [parse_datagram_untrusted(sealer.seal(b"x", now)).timestamp_ms for now in times]


def test_the_golden_downlink() -> None:
    vectors = [DATAGRAMS["downlink_first"], DATAGRAMS["downlink_second"]]
    sealer = Sealer(bytes.fromhex(vectors[0]["key"]), vectors[0]["fields"]["ssrc"])
    for vector, now in zip(vectors, [5000.0, 5000.06], strict=True):
        datagram = sealer.seal(bytes.fromhex(vector["opus"]), now)
        assert datagram.hex() == vector["header"] + vector["ciphertext"]
    assert sealer.sequence == 2


def test_timestamps_are_milliseconds_since_the_first_and_one() -> None:
    assert timestamps(Sealer(KEY, 7), [100.0, 100.060, 100.120, 160.0]) == [1, 61, 121, 60001]


def test_timestamps_increase_though_the_clock_does_not() -> None:
    assert timestamps(Sealer(KEY, 7), [9.0, 9.0, 9.0004, 3.0, -5.0, 9.125]) == [1, 2, 3, 4, 5, 126]


def test_the_last_sequence_is_an_error_and_no_wrap() -> None:
    sealer = Sealer(KEY, 7)
    sealer.seal(b"x", 0.0)
    sealer.sequence = MAX_SEQUENCE - 1
    assert parse_datagram_untrusted(sealer.seal(b"x", 0.0)).sequence == MAX_SEQUENCE
    for _ in range(2):
        with pytest.raises(KeystreamExhausted):
            sealer.seal(b"x", 0.0)


def test_the_longest_packet_with_the_last_sequence_does_not_carry() -> None:
    blocks = -(-65535 // 16)
    assert MAX_SEQUENCE + blocks == 1 << 32


def test_the_last_timestamp_is_an_error_and_no_wrap() -> None:
    sealer = Sealer(KEY, 7)
    sealer.seal(b"x", 0.0)
    with pytest.raises(KeystreamExhausted):
        sealer.seal(b"x", MAX_TIMESTAMP_MS / 1000)
    # Nothing was used up by the attempt.
    assert sealer.seal(b"x", 0.060)[8:16].hex() == "0000003d00000002"
    sealer.timestamp_ms = MAX_TIMESTAMP_MS - 1
    assert timestamps(sealer, [0.0]) == [MAX_TIMESTAMP_MS]
    with pytest.raises(KeystreamExhausted):
        sealer.seal(b"x", 0.0)


@pytest.mark.parametrize("length", [0, 65536])
def test_what_does_not_fit(length: int) -> None:
    sealer = Sealer(KEY, 7)
    with pytest.raises(ValueError, match="bytes"):
        sealer.seal(bytes(length), 0.0)
    assert sealer.sequence == 0


def test_the_key_is_in_no_repr() -> None:
    assert "sixteen" not in repr(Sealer(KEY, 7))
