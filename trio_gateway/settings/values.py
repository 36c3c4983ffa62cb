"""Values that settings are made of: an address, the URL of a broker, a secret."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from attrs import field, frozen

from trio_gateway.errors import SettingsError

__all__ = ["ADDRESS_WORDS", "MASK", "Address", "BrokerUrl", "Secret", "mask_url"]

ADDRESS_WORDS = (
    "HOST:PORT, for example 127.0.0.1:1883, [::1]:1883 or 0.0.0.0:1883 (every interface); "
    "port 0 is any free port"
)
MASK = "***"
_HOST = re.compile(r"[^\s/@\[\]]+")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]*://|")
_NAME = re.compile(r"[^\s:/?#%\[\]]*")
_PLACE = re.compile(rf"({_NAME.pattern}|\[[0-9A-Fa-f:.]*\])(:[0-9]{{1,5}})?/?")
_MAX_PORT = 65535
_PORTS = {"mqtt": 1883, "mqtts": 8883}  # as registered with IANA


class Secret:
    """Text that no repr, str, f-string or log line shows; `reveal()` gives it.

    Not a str on purpose: typed-settings' SecretStr masks its repr only, and is printed in full by
    `print` and every f-string.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise SettingsError("is empty, and a secret must not be")
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK


def _check_host(_instance: object, _attribute: object, host: Any) -> None:
    if not (isinstance(host, str) and host.isprintable() and _HOST.fullmatch(host)):
        raise SettingsError(f"{host!r} is not a host name or IP address")


def _check_port(_instance: object, _attribute: object, port: Any) -> None:
    if type(port) is not int or not 0 <= port <= _MAX_PORT:
        raise SettingsError(f"{port!r} is not a port number from 0 to {_MAX_PORT}")


@frozen
class Address:
    """Where a socket listens or connects to.

    Attributes:
        host: A name, or an IPv4 or IPv6 address without brackets.
        port: 0 means any free port, for a socket that listens.
    """

    host: str = field(validator=_check_host)
    port: int = field(validator=_check_port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "HOST:PORT", IPv6 as "[::1]:1883".

        Raises:
            SettingsError: It is something else; the text says what is allowed.
        """
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
        if match is None:
            raise SettingsError(f"{text!r} is not {ADDRESS_WORDS}")
        return cls(match[1] or match[2], int(match[3]))

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every interface, so that it is no address to give to a peer."""
        try:
            return ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class BrokerUrl:
    """An external MQTT broker, as `mqtt://USER:PASSWORD@HOST:PORT` says it (`mqtts://` for TLS).

    `str()` gives the URL back, with the password masked.
    """

    tls: bool
    address: Address
    username: str | None = None
    password: Secret | None = None

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read the URL; user and password are percent-decoded. The port may be left out.

        Raises:
            SettingsError: It is no such URL. The text never repeats the password.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            # Not "from": urllib quotes what it takes for a port, and that may be the password.
            raise SettingsError(f"{mask_url(text)!r} is not a URL") from None
        if parts.scheme not in _PORTS or not parts.hostname or port == 0 or _has_tail(parts):
            raise SettingsError(
                f"{mask_url(text)!r} is not mqtt://[USER:PASSWORD@]HOST[:PORT] (mqtts:// for TLS)"
            )
        return cls(
            tls=parts.scheme == "mqtts",
            address=Address(parts.hostname, _PORTS[parts.scheme] if port is None else port),
            username=unquote(parts.username) if parts.username else None,
            password=Secret(unquote(parts.password)) if parts.password else None,
        )

    def __str__(self) -> str:
        password = "" if self.password is None else f":{self.password}"
        user = "" if self.username is None else f"{quote(self.username, safe='')}{password}@"
        return f"mqtt{'s' if self.tls else ''}://{user}{self.address}"


def _has_tail(parts: SplitResult) -> bool:
    return parts.path not in {"", "/"} or bool(parts.query) or bool(parts.fragment)


def mask_url(text: object) -> str:
    """Return a URL with its password masked, for whatever prints or logs it.

    Works on what is no URL as well, because people mistype them: whatever stands between a colon
    and the last @ is taken for a password, so an unescaped @ or / in it does not print its tail.
    Without an @, or behind it, only what looks like a host with a port is shown in full: the @ may
    be what is missing.
    """
    whole = str(text)
    scheme = _SCHEME.match(whole)[0]  # type: ignore[index]  # always matches
    userinfo, at, place = whole[len(scheme) :].rpartition("@")
    name, colon, _password = userinfo.partition(":")
    return f"{scheme}{name}{colon}{MASK if colon else ''}{at}{_mask_place(place)}"


def _mask_place(text: str) -> str:
    if _PLACE.fullmatch(text):
        return text
    shown = len(_NAME.match(text)[0]) + 1  # type: ignore[index]  # always matches
    return f"{text[:shown]}{MASK}"
