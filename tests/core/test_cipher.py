from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.core.cipher import KEY_BYTES, AudioCipher

DATAGRAMS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "datagrams.json").read_text()
)


@pytest.mark.parametrize("vector", DATAGRAMS, ids=lambda vector: vector["name"])
def test_golden_ciphertexts_both_ways(vector: dict[str, Any]) -> None:
    iv, opus, ciphertext = (bytes.fromhex(vector[k]) for k in ("header", "opus", "ciphertext"))
    cipher = AudioCipher(bytes.fromhex(vector["key"]))
    assert cipher.apply(iv, opus) == ciphertext
    assert cipher.apply(iv, ciphertext) == opus


def test_one_context_serves_packets_of_any_length_in_any_order() -> None:
    cipher = AudioCipher(bytes.fromhex(DATAGRAMS[0]["key"]))
    for vector in [*DATAGRAMS, *reversed(DATAGRAMS)]:
        iv, opus = bytes.fromhex(vector["header"]), bytes.fromhex(vector["opus"])
        # A part of a block before it must leave nothing behind in the context.
        cipher.apply(bytes(16), b"odd")
        assert cipher.apply(iv, opus).hex() == vector["ciphertext"]


@pytest.mark.parametrize("length", [0, 15, 17, 24, 32])
def test_only_aes_128(length: int) -> None:
    assert length != KEY_BYTES
    with pytest.raises(ValueError, match="key"):
        AudioCipher(bytes(length))


def test_the_key_is_in_no_repr() -> None:
    key = b"sixteen byte key"
    cipher = AudioCipher(key)
    assert "sixteen" not in repr(cipher)
    assert not hasattr(cipher, "__dict__")
