"""Every exception that trio-gateway raises, and whose fault each one is.

`PeerError` and below: what came over the wire was wrong. It is counted where it is caught and never
crosses a session's border. Everything else is ours, or the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BadMessage",
    "BadOgg",
    "BadPacket",
    "BrokerLost",
    "BrokerUnavailable",
    "CodecError",
    "FrameDropped",
    "GatewayError",
    "InvalidSetting",
    "KeystreamExhausted",
    "PeerError",
    "PoolClosed",
    "SessionClosed",
    "SettingsError",
    "ToolCallError",
    "TraceError",
    "WorkerFailed",
]


class GatewayError(Exception):
    """Base of all of them."""


class SettingsError(GatewayError):
    """A setting is wrong. The text names the field, the value, its source and what is allowed."""


class InvalidSetting(SettingsError):  # noqa: N818
    """One value is out of bounds, or several contradict each other.

    Attributes:
        values: Dotted path of each setting at fault -> its value as text, secrets masked.
        allowed: What would be right.
    """

    def __init__(self, values: Mapping[str, str], allowed: str) -> None:
        super().__init__(f"{', '.join(f'{k} = {v}' for k, v in values.items())}: {allowed}")
        self.values = values
        self.allowed = allowed


class TraceError(GatewayError):
    """A load trace cannot be read or replayed. The text names the file, the line, and why."""


class BadOgg(GatewayError):  # noqa: N818
    """A file is not Ogg/Opus, is damaged, or is of a kind that is not read. The text says why."""


class PeerError(GatewayError):
    """A peer broke the protocol.

    Attributes:
        reason: A short, stable word for counters and logs ("short", "replayed", "not_json").
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class BadPacket(PeerError):  # noqa: N818  h11's and aioquic's style: the name says what it is
    """A datagram or MQTT packet does not follow its format."""


class BadMessage(PeerError):  # noqa: N818
    """A JSON message (or the identity or topic it came with) is not what the protocol asks for."""


class CodecError(GatewayError):
    """libopus refused one frame.

    Attributes:
        code: libopus' negative result code.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"libopus: {text} ({code})")
        self.code = code


class FrameDropped(GatewayError):  # noqa: N818
    """A frame was given up: its stream's backlog was full, or the stream was closed."""


class KeystreamExhausted(GatewayError):  # noqa: N818
    """A session has used up its sequences or timestamps; going on would repeat keystream."""


class PoolClosed(GatewayError):  # noqa: N818
    """The worker pool is closed or closing and takes no more frames."""


class WorkerFailed(GatewayError):  # noqa: N818
    """A codec worker could not start, or its loop raised. The text is ASCII."""


class SessionClosed(GatewayError):  # noqa: N818
    """The session has ended; nothing more can be sent or played."""


class ToolCallError(GatewayError):
    """A device answered an MCP call with an error, or not in time."""


class BrokerUnavailable(GatewayError):  # noqa: N818
    """An external MQTT broker is configured but cannot be used at all (missing extra, bad URL)."""


class BrokerLost(GatewayError):  # noqa: N818
    """The connection to an external broker could not be made, or has ended; it is tried again.

    Attributes:
        refused: The broker said no for a reason that waiting does not cure (bad password).
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused
