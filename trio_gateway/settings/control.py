"""The settings of the control plane: MQTT."""
# ruff: noqa: RUF009  # setting() makes an attrs field, not a shared value

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import fields_dict, frozen

from trio_gateway.settings.limits import MqttLimits
from trio_gateway.settings.rules import (
    COUNT,
    DURATION,
    Choice,
    Each,
    Instance,
    Number,
    Optional,
    Text,
    Whole,
    require,
    setting,
)
from trio_gateway.settings.values import (
    ADDRESS_WORDS,
    MASK,
    Address,
    BrokerUrl,
    Secret,
    mask_url,
)

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["MqttSettings"]

KIB = 1024
_FILE = Optional(Instance(Path, "the path of a file"))


def _is_topic(text: str) -> bool:
    """A name that can be published to (MQTT 3.1.1, 4.7.1: no wildcards; 4.7.3: no NUL)."""
    return not set(text) & set("+#\0") and text.count("{client_id}") <= 1


def _own_first(_: type, fields: list[Attribute[Any]]) -> list[Attribute[Any]]:
    """Order the fields as they are best read; attrs puts inherited ones first."""
    return sorted(fields, key=lambda each: each.name in fields_dict(MqttLimits))


@frozen(field_transformer=_own_first)
class MqttSettings(MqttLimits):
    """The control plane: an embedded endpoint, or a broker that exists already."""

    SECTION: ClassVar[str] = "mqtt"

    url: BrokerUrl | None = setting(
        None,
        Optional(Instance(BrokerUrl, "mqtt://[USER[:PASSWORD]@]HOST[:PORT], or mqtts:// for TLS")),
        unit="",
        help="External broker to use instead of the embedded endpoint.",
        why="none: `trio-gateway` works without a broker.",
        mask=mask_url,
    )
    password: Secret | None = setting(
        None,
        Optional(Instance(Secret, "a secret")),
        unit="",
        help="Of the user that `url` names, if not in `url`. In a file, variable or flag "
        "`password_file` may name a file that holds it.",
        why="none: nothing secret can have a default.",
        mask=lambda _: MASK,
    )
    listen: Address | None = setting(
        Address("127.0.0.1", 1883),
        Optional(Instance(Address, ADDRESS_WORDS)),
        unit="",
        help="Where the embedded endpoint listens without TLS. none = nowhere. Not used with an "
        "external broker.",
        why="Loopback until somebody decides otherwise; 1883 is MQTT's registered port.",
    )
    tls_listen: Address | None = setting(
        None,
        Optional(Instance(Address, ADDRESS_WORDS)),
        unit="",
        help="Where it listens with TLS; needs `tls_cert_file`. The firmware speaks TLS when it is "
        "sent to port 8883.",
        why="none: a certificate has no default.",
    )
    tls_cert_file: Path | None = setting(
        None,
        _FILE,
        unit="",
        help="Certificate of `tls_listen`, PEM, followed by those that vouch for it. It and its "
        "key are read again when they change on disk; connections that are open go on.",
        why="none: `tls_listen` is off.",
    )
    tls_key_file: Path | None = setting(
        None,
        _FILE,
        unit="",
        help="Private key of `tls_cert_file`, PEM, not encrypted. none = in the same file.",
        why="none: as Python's load_cert_chain has it.",
    )
    max_packet_bytes: int = setting(
        64 * KIB,
        Whole(16 * KIB, 268_435_455),
        unit="bytes",
        help="Largest MQTT packet taken from a device; a larger one ends its connection.",
        why="A device's tool list reaches 8,000 bytes before wrapping, so 16 KiB is the least; "
        "four times that for what firmware will say next. 268,435,455 is MQTT's own limit (2.2.3).",
    )
    max_clients: int = setting(
        1024,
        COUNT,
        unit="clients",
        help="Authenticated at once in the embedded endpoint; CONNECT from one more is refused.",
        why="Guess: 1,000 sessions and a few that reconnect. 1,000 idle ones cost 16 MB, and with "
        "TLS 37 MB.",
    )
    max_outbox_bytes: int = setting(
        256 * KIB,
        COUNT,
        unit="bytes",
        help="Waiting for one slow device; beyond it the device is disconnected.",
        why="Guess: four of the largest packets.",
    )
    connect_timeout: float = setting(
        10.0,
        DURATION,
        unit="s",
        help="For a device to send CONNECT after TCP's handshake, and for us to reach a broker.",
        why="Guess. MQTT 3.1.1 (3.1) asks for 'a reasonable amount of time'.",
    )
    keepalive_factor: float = setting(
        1.5,
        Number(1),
        unit="x keepalive",
        help="A device silent for this many of its keepalive intervals is disconnected.",
        why="MQTT 3.1.1, 3.1.2.10.",
    )
    max_keepalive: float = setting(
        600.0,
        DURATION,
        unit="s",
        help="Keepalive that is applied to a device that asks for none (0) or for a longer one.",
        why="Guess: 2.5 times the firmware's 240 s. Without it a dead peer is held for ever.",
    )
    max_subscriptions: int = setting(
        32,
        COUNT,
        unit="filters",
        help="Topic filters that one client of the embedded endpoint may hold.",
        why="Guess. Devices need none: their topics are subscribed for them.",
    )
    max_retained: int = setting(
        1024,
        Whole(0),
        unit="messages",
        help="Retained messages that the embedded endpoint keeps.",
        why="Guess: one for each client. The gateway itself retains nothing.",
    )
    max_retained_bytes: int = setting(
        1024 * KIB,
        Whole(0),
        unit="bytes",
        help="Topics and payloads of all retained messages together.",
        why="Guess: 1 KiB for each of 1,024.",
    )
    publish_topics: tuple[str, ...] = setting(
        ("device-server", "devices/{client_id}/hello", "devices/{client_id}/data"),
        Each(Text("a topic without wildcards, {client_id} at most once", _is_topic)),
        unit="",
        help="Topics on which devices speak. With an external broker only those that hold "
        "{client_id} say who spoke; the rest need `ingest_topic`.",
        why="The first is what devices are usually given; the others name the sender.",
    )
    ingest_topic: str = setting(
        "internal/server-ingest",
        Text("a topic without wildcards", lambda text: _is_topic(text) and "{" not in text),
        unit="",
        help="Where a rule in the external broker republishes what devices say, with the sender.",
        why="The topic of the EMQX rule that the gateways in use come with.",
    )
    reply_to: Literal["auto", "client_id", "mac"] = setting(
        "auto",
        Choice("auto", "client_id", "mac"),
        unit="",
        help="Topic for a device on an external broker: devices/p2p/ and the client id, or the "
        "MAC. auto = the client id for three-part ids, the MAC for two-part ones.",
        why="What the earlier gateway does. The embedded endpoint needs no choice: it "
        "sends on the client id's topic to the one connection that has this id.",
    )
    reconnect_min: float = setting(
        1.0,
        DURATION,
        unit="s",
        help="First wait before the external broker is tried again; doubles with each failure.",
        why="Guess: a broker restarts in about a second.",
    )
    reconnect_max: float = setting(
        30.0,
        DURATION,
        unit="s",
        help="Longest such wait.",
        why="Guess: half of the 60 s after which a device itself reconnects.",
    )
    away_bytes: int = setting(
        4096 * KIB,
        COUNT,
        unit="bytes",
        help="Messages to devices that wait while the external broker is away; beyond it new ones "
        "are dropped, counted.",
        why="Guess: 4 KiB for each of 1,000 devices. They share it, as they share the connection.",
    )
    away_age: float = setting(
        8.0,
        DURATION,
        unit="s",
        help="Such a message is dropped when it is older than this.",
        why="A device gives up on an answer after 10 s; two of them are left for the way there.",
    )
    broker_ca_file: Path | None = setting(
        None,
        _FILE,
        unit="",
        help="Certificates to trust for mqtts://, PEM. none = those of the system. These three "
        "files are read at each connection.",
        why="none: a broker with a public certificate needs nothing.",
    )
    broker_cert_file: Path | None = setting(
        None,
        _FILE,
        unit="",
        help="Our own certificate for mqtts://, PEM, if the broker asks for one.",
        why="none: few brokers do.",
    )
    broker_key_file: Path | None = setting(
        None,
        _FILE,
        unit="",
        help="Private key of `broker_cert_file`, PEM, not encrypted. none = in the same file.",
        why="none: as Python's load_cert_chain has it.",
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        require(
            self,
            "reconnect_min must not be above reconnect_max",
            "reconnect_min",
            "reconnect_max",
            holds=self.reconnect_min <= self.reconnect_max,
        )
        require(
            self,
            "max_outbox_bytes must hold at least one packet of max_packet_bytes",
            "max_packet_bytes",
            "max_outbox_bytes",
            holds=self.max_packet_bytes <= self.max_outbox_bytes,
        )
        require(
            self,
            "a password needs a user: set url to mqtt://USER@HOST, without a password",
            "password",
            "url",
            holds=self.password is None
            or bool(self.url and self.url.username and not self.url.password),
        )
        require(
            self,
            "with both none, no device can reach the embedded endpoint",
            "listen",
            "tls_listen",
            holds=bool(self.url or self.listen or self.tls_listen),
        )
        require(
            self,
            "TLS needs a certificate: set tls_cert_file too",
            "tls_listen",
            "tls_cert_file",
            holds=self.tls_listen is None or self.tls_cert_file is not None,
        )
        for key, certificate in (
            ("tls_key_file", "tls_cert_file"),
            ("broker_key_file", "broker_cert_file"),
        ):
            require(
                self,
                f"a key needs its certificate: set {certificate} too",
                key,
                certificate,
                holds=getattr(self, key) is None or getattr(self, certificate) is not None,
            )
