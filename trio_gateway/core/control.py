"""The control plane's vocabulary: what devices and brokers send, what we answer.

Fields and types that we do not know pass through unchanged: the backend may know them. What reads
from peers raises `BadMessage` and nothing else, whatever it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from trio_gateway.core.identity import is_addressable
from trio_gateway.core.messages import (
    MAX_MESSAGE_BYTES,
    Message,
    encode,
    parse_message_untrusted,
)
from trio_gateway.errors import BadMessage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "DEFAULT_DOWNLINK",
    "DEFAULT_UPLINK",
    "FRAME_MS",
    "OPUS_RATES",
    "AudioParams",
    "Hello",
    "Message",
    "alert",
    "encode",
    "goodbye",
    "hello_answer",
    "mcp",
    "parse_audio_params_untrusted",
    "parse_hello_untrusted",
    "parse_message_untrusted",
    "sender_of_topic",
    "tts",
    "unwrap_ingest_untrusted",
]

OPUS_RATES = frozenset({8000, 12000, 16000, 24000, 48000})
"""Sample rates that libopus decodes to and encodes from, in Hz (RFC 6716, 2.1.3)."""

FRAME_MS = frozenset({10, 20, 40, 60, 80, 100, 120})
"""Whole milliseconds that one Opus packet can last (RFC 6716, 3.2.5), below 10 left out."""

_PROTOCOL_VERSION = 3  # what the firmware's MQTT + UDP transport says in its hello


@frozen
class AudioParams:
    """How one direction's audio is cut and coded.

    Attributes:
        format: Always "opus".
        rate: Samples per second, one of `OPUS_RATES`.
        channels: 1 or 2.
        frame_ms: Milliseconds in one packet, one of `FRAME_MS`.
    """

    format: str = "opus"
    rate: int = 16000
    channels: int = 1
    frame_ms: int = 60

    def to_message(self) -> Message:
        """Return the object that stands behind `audio_params` in a hello."""
        return {
            "format": self.format,
            "sample_rate": self.rate,
            "channels": self.channels,
            "frame_duration": self.frame_ms,
        }


DEFAULT_UPLINK = AudioParams(rate=16000)
"""What the firmware sends when it does not say so."""

DEFAULT_DOWNLINK = AudioParams(rate=24000)
"""What the firmware assumes when the hello answer does not say so."""


@frozen
class Hello:
    """A device's request for a session.

    Attributes:
        version: Of the protocol; not judged here, every known one is served alike.
        features: What the device can do, as it came ({"mcp": true, "aec": true, ...}).
        audio: What it will send.
        message: All of it, with the fields that we do not know.
    """

    version: int = _PROTOCOL_VERSION
    features: Message = field(factory=dict)
    audio: AudioParams = DEFAULT_UPLINK
    message: Message = field(factory=dict, repr=False, eq=False)

    @property
    def speaks_while_listening(self) -> bool:
        """Whether it says that it does: then the server cancels its echo (feature "aec")."""
        return self.features.get("aec") is True


def parse_hello_untrusted(message: Message) -> Hello:
    """Read a device's hello. What is missing has its default; what is wrong in the audio raises.

    Raises:
        BadMessage: see `parse_audio_params_untrusted`.
    """
    version = message.get("version")
    features = message.get("features")
    return Hello(
        version=version if type(version) is int else _PROTOCOL_VERSION,
        features=features if isinstance(features, dict) else {},
        audio=parse_audio_params_untrusted(message.get("audio_params"), DEFAULT_UPLINK),
        message=message,
    )


def parse_audio_params_untrusted(value: object, default: AudioParams) -> AudioParams:
    """Read an `audio_params` object; what is missing or null is taken from `default`.

    Raises:
        BadMessage: `bad_audio_params`, `bad_format`, `bad_sample_rate`, `bad_channels` or
            `bad_frame_duration`: a frame that cannot be decoded is worse than a refusal.
    """
    if value is None:
        return default
    if not isinstance(value, dict):
        raise BadMessage("bad_audio_params", "not an object")
    if value.get("format") not in (None, default.format):
        raise BadMessage("bad_format", _excerpt(value["format"]))
    return AudioParams(
        format=default.format,
        rate=_number(value, "sample_rate", default.rate, OPUS_RATES),
        channels=_number(value, "channels", default.channels, (1, 2)),
        frame_ms=_number(value, "frame_duration", default.frame_ms, FRAME_MS),
    )


def _number(params: Mapping[str, object], name: str, default: int, allowed: Collection[int]) -> int:
    value = params.get(name)
    if value is None:
        return default
    # Firmware's cJSON and others' JavaScript write 16000.0 for 16000; true is not 1.
    if isinstance(value, int | float) and not isinstance(value, bool) and value in allowed:
        return int(value)
    raise BadMessage(f"bad_{name}", _excerpt(value))


def _excerpt(value: object) -> str:
    try:
        return repr(value)[:40]
    except ValueError:  # an integer of more than 4300 digits, which no parser of ours lets in
        return type(value).__name__


def hello_answer(
    session_id: str, audio: AudioParams, udp_host: str, udp_port: int, *, key: bytes, nonce: bytes
) -> Message:
    """Build the answer that opens a session.

    A device that dislikes one field says nothing and waits out its ten seconds; hence the checks.

    Args:
        session_id: The id both sides name from now on.
        audio: What the gateway will send.
        udp_host: Name or address that the device can reach.
        udp_port: 1 to 65535.
        key: AES key, 16 bytes.
        nonce: Header template, 16 bytes (`AudioLink.nonce`).
    """
    if not (len(key) == len(nonce) == 16):  # noqa: PLR2004  AES-128: a key and a block
        raise ValueError("key and nonce must have 16 bytes")
    if not udp_host or not 0 < udp_port < 1 << 16:
        raise ValueError(f"not an address that a device can send to: {udp_host!r} {udp_port}")
    return {
        "type": "hello",
        "version": _PROTOCOL_VERSION,
        "session_id": session_id,
        "transport": "udp",
        "udp": {
            "server": udp_host,
            "port": udp_port,
            "encryption": "aes-128-ctr",
            "key": key.hex(),
            "nonce": nonce.hex(),
        },
        "audio_params": audio.to_message(),
    }


def goodbye(session_id: str) -> Message:
    """End the session `session_id`. Firmware from 2.3.0 on ignores any id but its live one."""
    return {"type": "goodbye", "session_id": session_id}


def tts(
    session_id: str, state: Literal["start", "stop", "sentence_start"], text: str | None = None
) -> Message:
    """Switch the device's speaker state; it drops all audio outside of start ... stop."""
    message = {"type": "tts", "session_id": session_id, "state": state}
    return message if text is None else message | {"text": text}


def alert(status: str, message: str, emotion: str) -> Message:
    """Show a person why something failed. The firmware wants all three fields."""
    return {"type": "alert", "status": status, "message": message, "emotion": emotion}


def mcp(session_id: str, payload: Message) -> Message:
    """Wrap a JSON-RPC 2.0 message for the device. Its id must fit a signed 32-bit int."""
    return {"type": "mcp", "session_id": session_id, "payload": payload}


def unwrap_ingest_untrusted(
    payload: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> tuple[str, Message]:
    """Open the envelope in which a broker's rule says who sent a message.

        {"sender_client_id": "...", "orginal_payload": {...}}

    The misspelling is on the wire; the right spelling is taken too, and so is a payload that a rule
    without `json_decode` left as a string.

    Returns:
        The sender's client id and its message.

    Raises:
        BadMessage: as `parse_message_untrusted`; `bad_sender`, `no_payload`.
    """
    envelope = parse_message_untrusted(payload, max_bytes=max_bytes)
    sender = envelope.get("sender_client_id")
    if not isinstance(sender, str) or not is_addressable(sender):
        raise BadMessage("bad_sender", _excerpt(sender))
    message = envelope.get("orginal_payload", envelope.get("original_payload"))
    if isinstance(message, str):
        return sender, parse_message_untrusted(message, max_bytes=max_bytes)
    if not isinstance(message, dict):
        raise BadMessage("no_payload", type(message).__name__)
    return sender, message


def sender_of_topic(topic: str, templates: Iterable[str]) -> str | None:
    """Return the client id that `topic` names by one of `templates`, or None.

    Args:
        topic: As published, "devices/G@@@aa_bb_cc_dd_ee_ff/hello".
        templates: "devices/{client_id}/hello" and the like; one without {client_id} names nobody.
    """
    for template in templates:
        before, placeholder, after = template.partition("{client_id}")
        if not placeholder or not topic.startswith(before) or not topic.endswith(after):
            continue
        client_id = topic[len(before) : len(topic) - len(after)]
        # devices/p2p/hello is the way down to a device called "hello", not a hello of one "p2p".
        if "/" not in client_id and client_id != "p2p" and is_addressable(client_id):
            return client_id
    return None
