"""What a hello answer opens, read as strictly as the firmware reads it."""

from __future__ import annotations

from attrs import field, frozen

from trio_gateway.core.cipher import KEY_BYTES
from trio_gateway.core.control import (
    DEFAULT_DOWNLINK,
    AudioParams,
    Message,
    parse_audio_params_untrusted,
)
from trio_gateway.errors import BadMessage

__all__ = ["Channel", "parse_channel_untrusted"]


@frozen
class Channel:
    """An audio channel.

    Attributes:
        session_id: As the gateway named it.
        server: Where audio goes: host and port.
        audio: What the gateway will send.
    """

    session_id: str
    server: tuple[str, int]
    audio: AudioParams
    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)


def parse_channel_untrusted(message: Message) -> Channel:
    """Read a hello answer.

    Raises:
        BadMessage: `bad_transport`, `bad_session_id`, `bad_udp`, `bad_key` or one of
            `parse_audio_params_untrusted`.
    """
    if message.get("transport") != "udp":
        raise BadMessage("bad_transport", repr(message.get("transport")))
    session_id = message.get("session_id")
    if not isinstance(session_id, str):
        raise BadMessage("bad_session_id", repr(session_id))
    udp = message.get("udp")
    if not isinstance(udp, dict):
        raise BadMessage("bad_udp", "missing")
    server, port = udp.get("server"), udp.get("port")
    if not isinstance(server, str) or type(port) is not int or not 0 < port < 1 << 16:
        raise BadMessage("bad_udp", f"{server!r} {port!r}")
    return Channel(
        session_id,
        (server, port),
        parse_audio_params_untrusted(message.get("audio_params"), DEFAULT_DOWNLINK),
        _hex_untrusted(udp.get("key")),
        _hex_untrusted(udp.get("nonce")),
    )


def _hex_untrusted(text: object) -> bytes:
    try:
        value = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        value = b""
    if len(value) != KEY_BYTES:
        raise BadMessage("bad_key", "key and nonce must be 32 hexadecimal digits")
    return value
