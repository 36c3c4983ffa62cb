"""Who a device is: its client id, the topics that reach it, and its password.

client id = GROUP@@@aa_bb_cc_dd_ee_ff@@@UUID    three parts, its password is checked
          | GROUP@@@aa_bb_cc_dd_ee_ff           two parts, from old firmware, cannot be checked
username  = base64 of a JSON object, for example {"ip": "..."}
password  = base64(HMAC-SHA256(signature key, client id + "|" + username))

Without a signature key every id is believed, and so is every MAC in it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from attrs import frozen

from trio_gateway.errors import BadMessage

__all__ = ["DeviceId", "is_addressable", "sign", "verify_untrusted"]

MAX_CLIENT_ID_CHARS = 256
"""A guess: three-part ids have about 70 characters, and MQTT lets a server refuse more than 23."""

_SEPARATOR = "@@@"
_MAC = re.compile(r"[0-9a-f]{2}(?:[_:-][0-9a-f]{2}){5}")
_NOT_IN_A_TOPIC = frozenset("+#")  # MQTT 3.1.1, 4.7.1: wildcards are not for topic names


@frozen
class DeviceId:
    """What a client id says about its device.

    Attributes:
        text: The whole MQTT client id, as it came.
        group: The device's product group, or None if `text` does not follow the format.
        mac: "aa:bb:cc:dd:ee:ff" whatever the separators and case were, or None likewise.
        uuid: The third part, or None if there is none.
    """

    text: str
    group: str | None = None
    mac: str | None = None
    uuid: str | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Never fails: an id of another form is a device without MAC (any MQTT client may come)."""
        group, _, rest = text.partition(_SEPARATOR)
        mac, separator, uuid = rest.partition(_SEPARATOR)
        mac = mac.lower()
        if not group or not _MAC.fullmatch(mac) or bool(separator) != bool(uuid):
            return cls(text)
        return cls(text, group, re.sub("[_-]", ":", mac), uuid or None)

    @property
    def signed(self) -> bool:
        """Whether the id has the three parts that a password can vouch for."""
        return self.uuid is not None

    @property
    def p2p_topics(self) -> tuple[str, ...]:
        """The topics that reach this device, as the two kinds of server publish to it.

        An id with a wildcard gets no topic: the broker subscribes devices to these by itself, and
        `devices/p2p/+` would hear everybody.
        """
        topics = (f"devices/p2p/{self.text}",) if is_addressable(self.text) else ()
        if self.mac is None:
            return topics
        return (*topics, f"devices/p2p/{self.mac.replace(':', '_')}")


def is_addressable(client_id: str) -> bool:
    """Whether `client_id` can stand in an MQTT topic name and in a log line.

    Not so: nothing at all, wildcards, control characters, NUL, lone surrogates (no UTF-8 exists for
    them), and more than 256 characters.
    """
    return (
        0 < len(client_id) <= MAX_CLIENT_ID_CHARS
        and client_id.isprintable()
        and _NOT_IN_A_TOPIC.isdisjoint(client_id)
    )


def sign(key: bytes, client_id: str, username: str) -> str:
    """Return the password of a device, as its provisioning server would hand it out."""
    # surrogatepass: not possible in an MQTT string, and not to raise on one from elsewhere.
    text = f"{client_id}|{username}".encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode("ascii")


def verify_untrusted(
    key: bytes, client_id: str, username: str | None, password: bytes | None
) -> None:
    """Check a device's credentials, in constant time where the password is looked at.

    Raises:
        BadMessage: `unsigned_id` (not the three-part form), `ambiguous_id`, `no_credentials` or
            `bad_password`.
    """
    if not DeviceId.parse(client_id).signed:
        raise BadMessage("unsigned_id")
    if "|" in client_id:
        # The signed text would have two readings: the password of id "a|b" with user name "c" is
        # that of id "a" with user name "b|c".
        raise BadMessage("ambiguous_id")
    if username is None or password is None:
        raise BadMessage("no_credentials")
    if not hmac.compare_digest(sign(key, client_id, username).encode("ascii"), password):
        raise BadMessage("bad_password")
