"""The flags that set settings, shared by the commands that load them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import frozen

from trio_gateway.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_gateway.configuration import Loaded

__all__ = ["DEMO_FLAGS", "FLAGS", "WORKERS", "Flag", "given_flags", "load", "with_settings"]


@frozen
class Flag:
    """A flag, and the setting that it sets. Its text is checked where all settings are."""

    name: str
    metavar: str
    path: str
    help: str

    @property
    def parameter(self) -> str:
        """Click's name for it."""
        return self.name.removeprefix("--").replace("-", "_")


WORKERS: Final = Flag(
    "--workers", "MIN:MAX", "pool.min_workers, pool.max_workers", "Codec workers, fewest and most."
)
FLAGS: Final = (
    Flag(
        "--mqtt",
        "URL",
        "mqtt.url",
        "External MQTT broker: mqtt://USER@HOST, mqtts:// for TLS. A password in it shows in `ps`.",
    ),
    Flag("--mqtt-password-file", "FILE", "mqtt.password_file", "Holds the password of that user."),
    Flag(
        "--mqtt-listen",
        "HOST:PORT",
        "mqtt.listen",
        "Embedded MQTT endpoint; port 0 = any; none = off.",
    ),
    Flag("--mqtt-tls-listen", "HOST:PORT", "mqtt.tls_listen", "The same with TLS."),
    Flag("--mqtt-tls-cert-file", "FILE", "mqtt.tls_cert_file", "Its certificate, PEM."),
    Flag("--mqtt-tls-key-file", "FILE", "mqtt.tls_key_file", "Its private key, PEM."),
    Flag("--udp-listen", "HOST:PORT", "udp.listen", "Audio datagrams; port 0 = any."),
    Flag(
        "--public-host", "NAME", "udp.public_host", "Host that devices are told to send audio to."
    ),
    Flag("--http-listen", "HOST:PORT", "http_listen", "HTTP endpoint (off unless given)."),
    Flag("--backend", "NAME_OR_URL", "backend", "What answers: echo."),
    WORKERS,
    Flag("--worker-kind", "KIND", "pool.kind", "auto, thread or interpreter."),
    Flag(
        "--signature-key-file", "FILE", "signature_key_file", "Holds the key of device passwords."
    ),
    Flag("--log-level", "LEVEL", "log.level", "debug, info, warning or error."),
)

DEMO_FLAGS: Final = tuple(  # the demo chooses its addresses, its backend and what it says itself
    flag
    for flag in FLAGS
    if flag.name in {"--http-listen", "--workers", "--worker-kind", "--signature-key-file"}
)

PROGRAM_DEFAULTS: Final = {
    # Process-wide, so only where the process is ours. The setting says what it gains.
    "pool.switch_interval": ("default of the command line", 0.0001),
}


def with_settings(*flags: Flag) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add --config and flags that set settings."""
    file = click.Path(path_type=Path)  # its readability is checked with all other settings

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        for flag in reversed(flags):
            command = click.option(flag.name, metavar=flag.metavar, help=flag.help)(command)
        return click.option("--config", metavar="FILE", type=file, help="TOML file.")(command)

    return decorate


def given_flags(context: click.Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """Join what stood before the name of a command and after it, which outweighs the former."""
    before: dict[str, Any] = context.obj or {}
    meaningless = before.keys() - options.keys()
    if meaningless:
        flag = min(meaningless).replace("_", "-")
        raise click.UsageError(f"--{flag} has no meaning for {context.info_name}")
    return before | {name: value for name, value in options.items() if value is not None}


def load(context: click.Context, options: Mapping[str, Any]) -> Loaded:
    """Load the settings with all flags that were typed, before and after the command's name."""
    from trio_gateway.configuration import load_settings  # noqa: PLC0415  it and what it needs

    given = given_flags(context, options)
    config = given.pop("config", None)
    return load_settings(config, flags=_by_path(given), defaults=PROGRAM_DEFAULTS)


def _by_path(texts: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Turn {"mqtt_listen": text} into {"mqtt.listen": ("--mqtt-listen", text)}."""
    found: dict[str, tuple[str, str]] = {}
    for flag in FLAGS:
        text = texts.get(flag.parameter)
        if text is None:
            continue
        if flag is not WORKERS:
            found[flag.path] = (flag.name, text)
            continue
        if not re.fullmatch(r"[0-9]+(:[0-9]+)?", text):
            allowed = "must be MIN:MAX, or one number for both"
            raise SettingsError(f"{flag.path} = {text!r} (flag {flag.name}): {allowed}")
        least, _, most = text.partition(":")
        found["pool.min_workers"] = (flag.name, least)
        found["pool.max_workers"] = (flag.name, most or least)
    return found
