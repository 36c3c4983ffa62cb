"""Invariant: a packet is XORed with AES of iv, iv + 1, iv + 2 ... whatever came before it."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.cipher import AudioCipher

BLOCK = 16
KEYS = st.binary(min_size=16, max_size=16)
# Counters about to carry, too.
IVS = st.binary(min_size=BLOCK, max_size=BLOCK) | st.integers(0, 16).map(
    lambda n: bytes(n) + b"\xff" * (BLOCK - n)
)
PACKETS = st.lists(st.tuples(IVS, st.binary(max_size=100)), min_size=1, max_size=8)


def counter_mode(key: bytes, iv: bytes, data: bytes) -> bytes:
    first = int.from_bytes(iv, "big")
    counters = b"".join(
        ((first + block) % (1 << 128)).to_bytes(BLOCK, "big")
        for block in range(len(data) // BLOCK + 1)
    )
    # One block at a time is what makes counter mode of it.
    keystream = Cipher(AES128(key), ECB()).encryptor().update(counters)  # noqa: S305
    return bytes(a ^ b for a, b in zip(data, keystream, strict=False))


@given(key=KEYS, packets=PACKETS)
def test_counter_mode_by_hand(key: bytes, packets: list[tuple[bytes, bytes]]) -> None:
    cipher = AudioCipher(key)
    for iv, data in packets:
        encrypted = cipher.apply(iv, data)
        assert encrypted == counter_mode(key, iv, data)
        assert cipher.apply(iv, encrypted) == data
