from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opus_reference import packets

from trio_gateway.core.opus_packet import SAMPLE_RATE, carries_fec, duration_untrusted
from trio_gateway.errors import BadPacket

DATAGRAMS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "datagrams.json").read_text()
)

# RFC 6716, table 2: milliseconds of a frame for config 0 to 31.
TABLE_2 = [10, 20, 40, 60] * 3 + [10, 20] * 2 + [2.5, 5, 10, 20] * 4

CELT_20 = 31 << 3
SILK_60 = 3 << 3


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda vector: vector["name"])
def test_what_libopus_made_lasts_60_ms(vector: dict[str, Any]) -> None:
    assert duration_untrusted(bytes.fromhex(vector["opus"])) == 0.060 * SAMPLE_RATE


@pytest.mark.parametrize("config", range(32))
def test_frame_lengths(config: int) -> None:
    for stereo in 0, 4:
        toc = config << 3 | stereo
        assert duration_untrusted(bytes([toc, 1, 2])) == TABLE_2[config] * SAMPLE_RATE / 1000


@pytest.mark.parametrize(
    ("packet", "frames"),
    [
        (bytes([CELT_20]), 1),  # no frame bytes: DTX
        (bytes([CELT_20]) + bytes(1275), 1),
        (bytes([CELT_20 | 1]), 2),
        (bytes([CELT_20 | 1]) + bytes(2550), 2),
        (bytes([CELT_20 | 2, 3]) + bytes(5), 2),
        (bytes([CELT_20 | 2, 252, 1]) + bytes(256), 2),
        (bytes([CELT_20 | 3, 6]), 6),
        (bytes([CELT_20 | 3, 3]) + bytes(9), 3),
        (bytes([CELT_20 | 3, 0x40 | 3, 4]) + bytes(9 + 4), 3),
        (bytes([CELT_20 | 3, 0x40 | 1, 255, 1]) + bytes(254 + 1), 1),
        (bytes([CELT_20 | 3, 0x80 | 3, 1, 2]) + bytes(1 + 2 + 4), 3),
        (bytes([CELT_20 | 3, 0xC0 | 3, 5, 1, 2]) + bytes(1 + 2 + 4 + 5), 3),
    ],
)
def test_well_formed(packet: bytes, frames: int) -> None:
    assert duration_untrusted(packet) == frames * 960


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes([CELT_20]) + bytes(1276),
        bytes([CELT_20 | 1]) + bytes(3),
        bytes([CELT_20 | 1]) + bytes(2552),
        bytes([CELT_20 | 2]),
        bytes([CELT_20 | 2, 3]) + bytes(2),
        bytes([CELT_20 | 2, 252]),
        bytes([CELT_20 | 2, 0]) + bytes(1276),
        bytes([CELT_20 | 3]),
        bytes([CELT_20 | 3, 0]),
        bytes([CELT_20 | 3, 7]),  # 140 ms
        bytes([SILK_60 | 3, 3]),  # 180 ms
        bytes([CELT_20 | 3, 3]) + bytes(8),
        bytes([CELT_20 | 3, 1]) + bytes(1276),
        bytes([CELT_20 | 3, 0x40 | 1]),
        bytes([CELT_20 | 3, 0x40 | 1, 5]) + bytes(4),
        bytes([CELT_20 | 3, 0x40 | 1, 255]),
        bytes([CELT_20 | 3, 0x80 | 3, 1]),
        bytes([CELT_20 | 3, 0x80 | 3, 4, 4]) + bytes(7),
    ],
    ids=lambda packet: packet[:4].hex(),
)
def test_malformed(packet: bytes) -> None:
    with pytest.raises(BadPacket) as caught:
        duration_untrusted(packet)
    assert caught.value.reason == "not_opus"


@pytest.mark.parametrize(
    ("packet", "fec"),
    [
        (bytes([SILK_60, 0b0001_0000]), True),  # three bits of VAD, then LBRR
        (bytes([SILK_60, 0b1110_1111]), False),
        (bytes([SILK_60]), False),  # DTX
        (bytes([1 << 3, 0b0100_0000]), True),  # SILK, 20 ms
        (bytes([15 << 3, 0b0100_0000]), True),  # hybrid
        (bytes([16 << 3, 0b0100_0000]), False),  # CELT has none
        (bytes([1 << 3 | 4, 0b0001_0000]), True),  # the second channel's
        (bytes([1 << 3 | 1, 0b0100_0000, 0]), True),
        (bytes([1 << 3 | 2, 1, 0b0100_0000, 0]), True),
        (bytes([1 << 3 | 2, 0, 0b0100_0000, 0]), False),  # the first of two is empty
        (bytes([1 << 3 | 3, 3]) + bytes([0b0100_0000, 0, 0]), True),
        (bytes([1 << 3 | 3, 0x43, 255, 0]) + bytes([0b0100_0000, 0, 0]) + bytes(254), True),
        (bytes([1 << 3 | 3, 0x83, 1, 1, 0b0100_0000, 0, 0]), True),
        (bytes([1 << 3 | 3, 0x83, 0, 1, 0b0100_0000, 0, 0]), False),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else value,
)
def test_whether_a_packet_carries_the_frame_before_it(packet: bytes, *, fec: bool) -> None:
    duration_untrusted(packet)
    assert carries_fec(packet) is fec


def test_libopus_puts_a_copy_into_speech_when_told_of_losses() -> None:
    with_fec = [carries_fec(each) for each in packets(16000, 40, loss_percent=20)]
    assert sum(with_fec) > 20
    assert not any(carries_fec(each) for each in packets(16000, 40))
