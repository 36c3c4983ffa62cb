"""One JSON object from a peer, read without trusting it, and written back.

Rule 1: what the parser made of bytes, `encode` can encode, and it reads back equal.
Rule 2: the parser raises `BadMessage` and nothing else, in bounded time and memory.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

from trio_gateway.errors import BadMessage

__all__ = ["MAX_DEPTH", "MAX_MESSAGE_BYTES", "Message", "encode", "parse_message_untrusted"]

Message: TypeAlias = dict[str, Any]

MAX_MESSAGE_BYTES = 1024 * 1024
"""The default of websockets' `max_size`. MQTT's own limit (a setting) is tighter."""

MAX_DEPTH = 64
"""Nested arrays and objects. A guess: a tool's JSON schema takes two for each level it describes.
It must be far below Python's recursion limit, or `encode` fails on what the parser let in."""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 1e999 is JSON, but infinity could not be encoded again
        raise BadMessage("not_json", "number out of range")
    return value


def _not_json(name: str) -> float:
    raise BadMessage("not_json", name)  # NaN, Infinity: Python's extensions


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_not_json)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ASCII_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def parse_message_untrusted(payload: bytes | str, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Read one JSON object. Of equal keys the last one counts, as in the gateways in use.

    Raises:
        BadMessage: `too_long`, `not_utf8`, `not_json`, `too_deep` or `not_an_object`.
    """
    if len(payload) > max_bytes:
        raise BadMessage("too_long", f"{len(payload)} > {max_bytes}")
    try:
        # Not json.loads(bytes): that guesses UTF-16 and UTF-32 too.
        text = payload if isinstance(payload, str) else payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadMessage("not_utf8", f"at byte {error.start}") from None
    try:
        message = _DECODER.decode(text)
    except RecursionError:
        raise BadMessage("too_deep") from None
    except ValueError as error:  # also an integer of more than 4300 digits
        raise BadMessage("not_json", str(error)) from None
    # Fewer brackets than the limit cannot nest deeper: that settles nearly every message.
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, message):
        raise BadMessage("too_deep", f"more than {MAX_DEPTH} levels")
    if not isinstance(message, dict):
        raise BadMessage("not_an_object", type(message).__name__)
    return message


def _deeper_than(depth: int, value: object) -> bool:
    level: list[object] = [value]
    for _ in range(depth + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return False
        level = [
            child
            for each in containers
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return True


def encode(message: Message) -> bytes:
    """Return compact UTF-8 JSON: a device's buffers are small, and Chinese doubles when escaped."""
    try:
        return _ENCODER.encode(message).encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate came in as an escape (or from a handler) and can only leave as one.
        return _ASCII_ENCODER.encode(message).encode("ascii")
