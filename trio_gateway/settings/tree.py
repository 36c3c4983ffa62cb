"""The settings of sessions, metrics and log, and the tree that holds all sections."""
# ruff: noqa: RUF009  # setting() makes an attrs field, not a shared value

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from attrs import field, fields, frozen, resolve_types

from trio_gateway.settings.control import MqttSettings
from trio_gateway.settings.media import AudioSettings, UdpSettings
from trio_gateway.settings.pool import PoolSettings, ScalingSettings
from trio_gateway.settings.rules import (
    COUNT,
    DURATION,
    Choice,
    Instance,
    Number,
    Optional,
    Whole,
    path_of,
    require,
    setting,
)
from trio_gateway.settings.values import MASK, Address, Secret

if TYPE_CHECKING:
    from attrs import Attribute, AttrsInstance

__all__ = [
    "LogSettings",
    "MetricsSettings",
    "SessionSettings",
    "Settings",
    "sections",
    "settings_by_path",
]

BACKENDS = ("echo",)


@frozen
class SessionSettings:
    """What one call may use, and when it is over."""

    SECTION: ClassVar[str] = "sessions"

    max_sessions: int = setting(
        1000,
        COUNT,
        unit="sessions",
        help="At once; a device beyond it is told so at hello.",
        why="Guess: 70 to 110 calls a core is what the codec allows; ten cores' worth.",
    )
    max_reserved: float | None = setting(
        0.8,
        Optional(Number(0, closed=False)),
        unit="x cores",
        help="CPU that calls may reserve, as a share of the cores (and of max_workers). Each "
        "reserves what it takes to decode and encode without a pause, as measured; a device for "
        "which too little is left is told so at hello. Above 1 there are more calls than can all "
        "speak at once: right where most are quiet. none = only max_sessions counts.",
        why="Guess: queues grow without bound as the share nears 1, and the rest is for hellos, "
        "handlers and the operating system.",
    )
    idle_timeout: float = setting(
        120.0,
        DURATION,
        unit="s",
        help="A session in which neither side says anything is closed after this.",
        why="The device gives the channel up after 120 s as well.",
    )
    unheard_timeout: float = setting(
        900.0,
        DURATION,
        unit="s",
        help="A session whose device says nothing is closed after this, whatever we say to it.",
        why="Guess: longer than the longest story. A device that lost power is not told apart from "
        "one that listens.",
    )
    inbox_messages: int = setting(
        256,
        COUNT,
        unit="messages",
        help="Kept for a handler that does not read them; of more, the newest, and the rest is "
        "counted.",
        why="Guess: a device says a few a second.",
    )
    inbox_bytes: int = setting(
        256 * 1024,
        COUNT,
        unit="bytes",
        help="The same, as JSON.",
        why="Guess: four of the largest packets. Parsed, the worst JSON takes 30 times as much.",
    )
    audio_backlog: float = setting(
        5.0,
        DURATION,
        unit="s",
        help="PCM that a slow handler may leave unread; beyond it the oldest is dropped, counted.",
        why="Guess: 160 kB at 16 kHz.",
    )
    lookahead_frames: int = setting(
        8,
        Whole(1, 1000),
        unit="frames",
        help="Encoded ahead of pacing; `play` waits when they are ready.",
        why="Guess: 480 ms, which an abort throws away; enough to outlast a stalled pool.",
    )


@frozen
class MetricsSettings:
    """What is measured, and how often."""

    SECTION: ClassVar[str] = "metrics"

    interval: float = setting(
        1.0,
        DURATION,
        unit="s",
        help="Between two samples of CPU, memory and counters.",
        why="Guess: a live view wants one a second; a sample costs well below a millisecond.",
    )
    window: float = setting(
        10.0,
        DURATION,
        unit="s",
        help="How far back percentiles look.",
        why="Guess: about 170 frames of one call, so a p99 means something.",
    )
    console_interval: float = setting(
        30.0,
        DURATION,
        unit="s",
        help="Between two summary lines in the log.",
        why="Guess: a day is 2,880 lines.",
    )

    def __attrs_post_init__(self) -> None:
        require(
            self,
            "window must be at least interval",
            "interval",
            "window",
            holds=self.interval <= self.window,
        )


@frozen
class LogSettings:
    """What is written to standard error."""

    SECTION: ClassVar[str] = "log"

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        Choice("debug", "info", "warning", "error"),
        unit="",
        help="Least severe that is written.",
        why="Sessions and scaling are info, single packets debug.",
    )
    format: Literal["auto", "text", "json"] = setting(
        "auto",
        Choice("auto", "text", "json"),
        unit="",
        help="text = for people, json = one object a line. auto = text on a terminal, else json.",
        why="Containers collect what is not a terminal.",
    )


@frozen
class Settings:
    """The whole tree. A part of the gateway is given its own section and no other."""

    backend: str = setting(
        "echo",
        Choice(*BACKENDS, note="WebSocket chat servers arrive in a later release"),
        unit="",
        help="What answers: echo plays back what was said. `gateway.serve(handler)` overrides it.",
        why="Needs nothing else to be running.",
    )
    signature_key: Secret | None = setting(
        None,
        Optional(Instance(Secret, "a secret")),
        unit="",
        help="Key of the devices' HMAC passwords. none = every device is let in. In a file, "
        "variable or flag `signature_key_file` may name a file that holds it.",
        why="none: nothing secret can have a default. Starting without one is said loudly.",
        mask=lambda _: MASK,
    )
    grace: float = setting(
        8.0,
        Number(0, 86_400),
        unit="s",
        help="From SIGTERM or Ctrl-C until the program has left. Live calls get all of it but the "
        "last second, which is for goodbyes. What hangs is ended by force, after 2 s at least.",
        why="`docker stop` kills after 10 s. A day is longer than any call.",
    )
    http_listen: Address | None = setting(
        None,
        Optional(
            Instance(
                Address,
                "HOST:PORT on loopback, for example 127.0.0.1:8007; port 0 is any free port",
                lambda address: address.is_loopback,
            )
        ),
        unit="",
        help="Where the HTTP endpoint listens. none = it is off. It asks nobody for a password, so "
        "only this machine may reach it.",
        why="none: nothing listens that was not asked for.",
    )
    mqtt: MqttSettings = field(factory=MqttSettings)
    udp: UdpSettings = field(factory=UdpSettings)
    audio: AudioSettings = field(factory=AudioSettings)
    pool: PoolSettings = field(factory=PoolSettings)
    scaling: ScalingSettings = field(factory=ScalingSettings)
    sessions: SessionSettings = field(factory=SessionSettings)
    metrics: MetricsSettings = field(factory=MetricsSettings)
    log: LogSettings = field(factory=LogSettings)


def sections() -> dict[str, type[AttrsInstance]]:
    """Return the sections by their names: {"mqtt": MqttSettings, ...}; types are resolved."""
    return {
        attribute.name: resolve_types(cast("type[AttrsInstance]", attribute.type))
        for attribute in fields(resolve_types(Settings))
        if "rule" not in attribute.metadata
    }


def settings_by_path() -> dict[str, Attribute[Any]]:
    """Return every field that holds a value, by its dotted path, in the order of the tree.

    The attributes carry resolved types and, in `metadata`, what `setting()` put there.
    """
    top = fields(resolve_types(Settings))
    found = {attribute.name: attribute for attribute in top if "rule" in attribute.metadata}
    for section in sections().values():
        found |= {path_of(section, attribute.name): attribute for attribute in fields(section)}
    return found
