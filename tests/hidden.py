"""Secrets for tests, and a look for them in every form in which they could be shown."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BASE64", "DEVICE", "KEY", "PASSWORD", "PATIENCE", "assert_hidden"]

PATIENCE = 30.0
DEVICE = "GID@@@aa_bb_cc_dd_ee_ff@@@uuid"
KEY = "halibut-é'\"\\-marlin"
PASSWORD = "barracuda-é'\"\\ :@/%-swordfish"
BASE64 = "q83vEjRWeJq83vAS/NFZ4mrze8BI0VniavN7wEjRWeI="
SEVEN = 7
"""Characters of a secret or of base64 that no text has by chance; bytes, of what is escaped."""


@lru_cache
def parts(secret: str | bytes) -> dict[int, frozenset[str]]:
    """How parts of a secret look when they are shown, by their length."""
    data = secret.encode() if isinstance(secret, str) else secret
    # A byte is two digits; escaped it is four characters, but not if it is a letter.
    wide = {data.hex(): 2, data.hex().upper(): 2, data.hex(" "): 3}
    if isinstance(secret, bytes):
        wide[repr(data)[2:-1]] = 4
    found: dict[int, frozenset[str]] = {}
    for form in forms(secret):
        width = min(SEVEN * wide.get(form, 1), len(form))
        found[width] = found.get(width, frozenset()) | windows(form, width)
    return found


def windows(text: str, width: int) -> set[str]:
    return {text[at : at + width] for at in range(len(text) - width + 1)}


def forms(secret: str | bytes) -> set[str]:
    """How a whole secret looks when it is shown."""
    data = secret.encode() if isinstance(secret, str) else secret
    text = data.decode("latin-1") if isinstance(secret, bytes) else secret
    encoded = {base64.b64encode(bytes(skip) + data).decode()[4:-4] for skip in range(3)}
    encoded |= {each.replace("+", "-").replace("/", "_") for each in encoded}
    shown = {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text), quote(text, safe="")}
    shown |= {ascii(text)[1:-1], repr(data)[2:-1], data.hex(), data.hex(" "), data.hex().upper()}
    return {each for each in shown | encoded if len(each) >= SEVEN}


def assert_hidden(text: str, held: Iterable[str | bytes], where: object) -> None:
    """Check that no seven characters (or bytes) of a secret are shown in any form."""
    for secret in held:
        for width, hidden in parts(secret).items():
            shown = windows(text, width) & hidden
            assert not shown, f"{where} shows {sorted(shown)}"
