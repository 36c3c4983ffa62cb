"""The packets of MQTT 3.1.1 as objects, each with its body's bytes (OASIS, 29 October 2014).

Each class states its layout once, reads it (`from_fields_untrusted`) and writes it (`body`). What
stands before the body, and how packets are found in a stream, is `mqtt_packet.py`.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Self, TypeAlias

from attrs import field, frozen

from trio_gateway.core.mqtt_fields import Fields, pack_binary, pack_text
from trio_gateway.core.topics import check_filter_untrusted, check_topic_untrusted
from trio_gateway.errors import BadPacket

__all__ = [
    "ACCEPTED",
    "BAD_IDENTIFIER",
    "BAD_PROTOCOL",
    "NOT_AUTHORIZED",
    "SUBSCRIPTION_REFUSED",
    "UNAVAILABLE",
    "ConnAck",
    "Connect",
    "Disconnect",
    "Packet",
    "PingReq",
    "PingResp",
    "PubAck",
    "Publish",
    "SubAck",
    "Subscribe",
    "UnsubAck",
    "Unsubscribe",
    "Will",
]

ACCEPTED = 0
"""ConnAck.code: the connection is open."""
BAD_PROTOCOL = 1
"""ConnAck.code: another version of MQTT is asked for."""
BAD_IDENTIFIER = 2
"""ConnAck.code: the client id is not allowed."""
UNAVAILABLE = 3
"""ConnAck.code: the server takes no more clients."""
NOT_AUTHORIZED = 5
"""ConnAck.code: who it says it is, it has not proved."""

SUBSCRIPTION_REFUSED = 0x80
"""In SubAck.codes, for a filter that is not granted."""

_U16 = struct.Struct(">H")


@frozen
class Will:
    """What the server publishes for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False


@frozen
class Connect:
    """The first packet of a client.

    Attributes:
        client_id: May be empty on the wire.
        keepalive: Seconds; 0 means that the client promises nothing.
    """

    # bytes 0-5    protocol name, 00 04 "MQTT"
    # byte  6      protocol level, 4
    # byte  7      user name, password, will retain, will QoS (2 bits), will, clean session, 0
    # bytes 8-9    keepalive
    # bytes ...    client id (text), will topic (text), will payload (binary), user name (text),
    #              password (binary); from the second on only if its bit is set

    FIRST_BYTE: ClassVar[int] = 0x10
    HEAD: ClassVar[struct.Struct] = struct.Struct(">6sBBH")
    NAME: ClassVar[bytes] = b"\x00\x04MQTT"
    LEVEL: ClassVar[int] = 4

    client_id: str
    keepalive: int = 0
    clean_session: bool = True
    will: Will | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """More reasons than `Fields` has: protocol_name, protocol_level, connect_flags, topic."""
        name, level, flags, keepalive = cls.HEAD.unpack(fields.take(cls.HEAD.size))
        if name != cls.NAME:
            raise BadPacket("protocol_name")
        if level != cls.LEVEL:
            raise BadPacket("protocol_level", str(level))
        will_qos = flags >> 3 & 3
        if (
            flags & 0x01  # MQTT-3.1.2-3
            or will_qos == 3  # noqa: PLR2004  MQTT-3.1.2-14
            or (flags & 0x38 and not flags & 0x04)  # MQTT-3.1.2-13 and -15: will bits, no will
            or (flags & 0x40 and not flags & 0x80)  # MQTT-3.1.2-22: password, no user name
        ):
            raise BadPacket("connect_flags", f"{flags:#04x}")
        client_id = fields.text()
        will = None
        if flags & 0x04:
            will = Will(fields.text(), fields.binary(), will_qos, bool(flags & 0x20))
            check_topic_untrusted(will.topic)
        username = fields.text() if flags & 0x80 else None
        password = fields.binary() if flags & 0x40 else None
        return cls(client_id, keepalive, bool(flags & 0x02), will, username, password)

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        flags = 0x02 * self.clean_session
        tail = pack_text(self.client_id)
        if self.will is not None:
            flags |= 0x04 | self.will.qos << 3 | 0x20 * self.will.retain
            tail += pack_text(self.will.topic) + pack_binary(self.will.payload)
        if self.username is not None:
            flags |= 0x80
            tail += pack_text(self.username)
        if self.password is not None:
            flags |= 0x40
            tail += pack_binary(self.password)
        return self.HEAD.pack(self.NAME, self.LEVEL, flags, self.keepalive) + tail


@frozen
class ConnAck:
    """The server's answer to CONNECT; `code` is `ACCEPTED` or one of the refusals above."""

    # byte 0       session present (bit 0)
    # byte 1       return code, 0 to 5

    FIRST_BYTE: ClassVar[int] = 0x20

    code: int
    session_present: bool = False

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """One reason more than `Fields` has: code."""
        present, code = fields.take(2)
        if present > 1 or code > NOT_AUTHORIZED or (present and code):  # MQTT-3.2.2-4
            raise BadPacket("code", f"{code}, session present {present}")
        return cls(code, bool(present))

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        return bytes((self.session_present, self.code))


@frozen
class Publish:
    """A message. `packet_id` is None at QoS 0, and only there."""

    # first byte   dup (bit 3), QoS (bits 2 and 1), retain (bit 0)
    # bytes ...    topic (text), packet id (2 bytes, not at QoS 0), payload (rest)

    FIRST_BYTE: ClassVar[int] = 0x30

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None

    @classmethod
    def from_fields_untrusted(cls, fields: Fields, flags: int) -> Self:
        """One reason more than `Fields` has: topic."""
        topic = fields.text()
        check_topic_untrusted(topic)
        qos = flags >> 1 & 3
        packet_id = fields.packet_id() if qos else None
        return cls(topic, fields.rest(), qos, bool(flags & 1), bool(flags & 8), packet_id)

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        packet_id = _U16.pack(self.packet_id) if self.qos else b""
        return pack_text(self.topic) + packet_id + self.payload

    @property
    def flags(self) -> int:
        """The low bits of the first byte."""
        return self.dup << 3 | self.qos << 1 | self.retain


@frozen
class _Acknowledgement:
    """Says only which packet it answers."""

    # bytes 0-1    packet id

    packet_id: int

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """Reasons: those of `Fields`."""
        return cls(fields.packet_id())

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        return _U16.pack(self.packet_id)


@frozen
class PubAck(_Acknowledgement):
    """A PUBLISH at QoS 1 has arrived."""

    FIRST_BYTE: ClassVar[int] = 0x40


@frozen
class Subscribe:
    """A client asks for the messages of `requests`: (topic filter, highest QoS) each."""

    # bytes 0-1    packet id
    # bytes ...    once or more: filter (text), QoS (1 byte, 0 to 2)

    FIRST_BYTE: ClassVar[int] = 0x82

    packet_id: int
    requests: tuple[tuple[str, int], ...]

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """More reasons than `Fields` has: filter, qos."""
        packet_id = fields.packet_id()
        requests: list[tuple[str, int]] = []
        while not (requests and fields.at_end):  # none at all is "short" (MQTT-3.8.3-3)
            topic_filter, qos = fields.text(), fields.byte()
            check_filter_untrusted(topic_filter)
            if qos > 2:  # noqa: PLR2004  MQTT-3.8.3-4
                raise BadPacket("qos", str(qos))
            requests.append((topic_filter, qos))
        return cls(packet_id, tuple(requests))

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        packed = [pack_text(topic_filter) + bytes((qos,)) for topic_filter, qos in self.requests]
        return _U16.pack(self.packet_id) + b"".join(packed)


@frozen
class SubAck:
    """The answer to SUBSCRIBE: for each filter the QoS granted, or `SUBSCRIPTION_REFUSED`."""

    # bytes 0-1    packet id
    # bytes ...    once or more: 0, 1, 2 or 0x80

    FIRST_BYTE: ClassVar[int] = 0x90

    packet_id: int
    codes: tuple[int, ...]

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """One reason more than `Fields` has: code."""
        packet_id, codes = fields.packet_id(), fields.rest()
        if not codes or not set(codes) <= {0, 1, 2, SUBSCRIPTION_REFUSED}:
            raise BadPacket("code", codes[:8].hex())
        return cls(packet_id, tuple(codes))

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        return _U16.pack(self.packet_id) + bytes(self.codes)


@frozen
class Unsubscribe:
    """A client no longer wants the messages of `filters`."""

    # bytes 0-1    packet id
    # bytes ...    once or more: filter (text)

    FIRST_BYTE: ClassVar[int] = 0xA2

    packet_id: int
    filters: tuple[str, ...]

    @classmethod
    def from_fields_untrusted(cls, fields: Fields) -> Self:
        """One reason more than `Fields` has: filter."""
        packet_id = fields.packet_id()
        filters: list[str] = []
        while not (filters and fields.at_end):  # none at all is "short" (MQTT-3.10.3-2)
            topic_filter = fields.text()
            check_filter_untrusted(topic_filter)
            filters.append(topic_filter)
        return cls(packet_id, tuple(filters))

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads."""
        return _U16.pack(self.packet_id) + b"".join(map(pack_text, self.filters))


@frozen
class UnsubAck(_Acknowledgement):
    """An UNSUBSCRIBE has been carried out."""

    FIRST_BYTE: ClassVar[int] = 0xB0


@frozen
class _Empty:
    """Says all it says by its type."""

    @classmethod
    def from_fields_untrusted(cls, _fields: Fields) -> Self:
        """Reasons: none; `decode_untrusted` sees to it that there is no body."""
        return cls()

    def body(self) -> bytes:
        """Return what `from_fields_untrusted` reads: nothing."""
        return b""


@frozen
class PingReq(_Empty):
    """A client shows that it is alive."""

    FIRST_BYTE: ClassVar[int] = 0xC0


@frozen
class PingResp(_Empty):
    """The answer to PINGREQ."""

    FIRST_BYTE: ClassVar[int] = 0xD0


@frozen
class Disconnect(_Empty):
    """A client goes, and takes its will back."""

    FIRST_BYTE: ClassVar[int] = 0xE0


Packet: TypeAlias = (
    Connect
    | ConnAck
    | Publish
    | PubAck
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
)
