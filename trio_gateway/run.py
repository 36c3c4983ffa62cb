"""The gateway as a program: says what it listens on, waits for signals, drains, leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import structlog
import trio

from trio_gateway.errors import GatewayError
from trio_gateway.gateway import open_gateway
from trio_gateway.last_resort import last_resort
from trio_gateway.metrics.console import run_console
from trio_gateway.own_process import open_many_files, spare_the_collector
from trio_gateway.replay.record import record
from trio_gateway.settings import Address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_gateway.gateway import Addresses, Gateway
    from trio_gateway.sessions import Handler
    from trio_gateway.settings import Settings

__all__ = ["main"]

log = structlog.get_logger(__name__)

GOODBYES = 1.0  # seconds of the grace period for goodbyes and closing, which takes milliseconds

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


async def main(
    settings: Settings,
    ready_file: Path | None = None,
    trace: Path | None = None,
    *,
    handler: Handler | None = None,
    echo: Callable[[str], Any] = click.echo,
) -> int:
    """Run the gateway until SIGINT or SIGTERM, in the main thread. Then let the program end.

    The first signal drains: no new calls, and within `settings.grace` seconds the process has
    ended, whatever hangs in it, also after this call (last_resort.py; then with exit code 1, and
    where each thread was is on standard error). The second ends everything at once.

    Args:
        settings: All of them.
        ready_file: Gets the bound addresses as JSON when calls are taken.
        trace: Gets the load, as `trio-gateway replay` reads it.
        handler: Gets the calls; by default the backend that the settings name.
        echo: Prints a line for a person.

    Returns:
        The exit code: 0 after a drain, 130 when that was cut short.

    Raises:
        GatewayError: `ready_file` cannot be written, or see `open_gateway`.
    """
    open_many_files()
    ends = signal.SIGINT, signal.SIGTERM
    with (
        trio.open_signal_receiver(*ends) as signals,
        last_resort(settings.grace, *ends, disarm=False),
    ):
        with trio.CancelScope() as everything:
            async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
                await nursery.start(gateway.serve, handler)
                await nursery.start(_leave, signals, gateway, everything, nursery.cancel_scope)
                nursery.start_soon(_console, gateway)
                if trace is not None:
                    await nursery.start(record, gateway.sampler, trace)
                spare_the_collector()
                _print(echo, banner(gateway))
                if ready_file is not None:
                    write_ready_file(ready_file, gateway)
        cut_short = everything.cancelled_caught and trio.current_time() < everything.deadline
        return INTERRUPTED if cut_short else 0


async def _console(gateway: Gateway) -> None:
    await run_console(
        gateway.sampler,
        policy=lambda: gateway.scaler.policy,
        events=gateway.scaler.events,
        interval=gateway.settings.metrics.console_interval,
    )


async def _leave(
    signals: Any,
    gateway: Gateway,
    everything: trio.CancelScope,
    serving: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    grace = gateway.settings.grace
    async with trio.open_nursery() as nursery:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if nursery.child_tasks:
                log.warning("leaving at once", signal=name)
                everything.cancel()
                return
            log.info("draining", signal=name, calls=len(gateway.sessions), grace=grace)
            closing = min(GOODBYES, grace / 2)
            # The other half is for what cannot be cancelled: workers, and DISCONNECT to a broker.
            everything.deadline = trio.current_time() + grace - closing / 2
            nursery.start_soon(_drain, gateway, grace - closing, serving)


async def _drain(gateway: Gateway, grace: float, serving: trio.CancelScope) -> None:
    await gateway.drain(grace)
    serving.cancel()


def _print(echo: Callable[[str], Any], text: str) -> None:
    """Calls do not depend on whether somebody can read this."""
    try:
        echo(text)
    except OSError as error:
        log.warning("standard output cannot be written", error=error.strerror)
        # Python tries again when it ends, and would make exit code 120 of it. As its documentation
        # of SIGPIPE has it:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def banner(gateway: Gateway) -> str:
    """What it listens on and what to do next, for a person."""
    addresses, settings = gateway.addresses, gateway.settings
    control = []
    if addresses.mqtt is not None:
        control.append(f"  MQTT  {addresses.mqtt}  (embedded endpoint)")
    if addresses.mqtt_tls is not None:
        control.append(f"  MQTT  {addresses.mqtt_tls}  (embedded endpoint, TLS)")
    kind, pool = gateway.pool.kind, settings.pool
    lines = [
        "trio-gateway is up",
        *(control or ["  MQTT  external broker, see the log"]),
        f"  UDP   {addresses.udp}  (devices are told {addresses.public_udp})",
        f"  {pool.min_workers} to {pool.max_workers} codec workers ({kind})",
        f"  backend {settings.backend}",
    ]
    if addresses.http is not None:
        lines.append(f"  HTTP  {addresses.http}/api/state, /healthz, /readyz")
    lines += _reach(addresses)
    if addresses.mqtt is not None:
        lines.append(
            f"  Try it: {_try_it(addresses.mqtt, signed=settings.signature_key is not None)}"
        )
    lines.append("  Ctrl-C drains the calls and leaves; a second one leaves at once.")
    return "\n".join(lines)


def _reach(addresses: Addresses) -> list[str]:
    open_it = (
        "For a network: --mqtt-listen 0.0.0.0:1883 --udp-listen 0.0.0.0:8884 --public-host YOUR_IP"
    )
    if not addresses.udp.is_loopback:
        return []
    control = [each for each in (addresses.mqtt, addresses.mqtt_tls) if each is not None]
    if not control or not all(each.is_loopback for each in control):
        return [f"  Audio reaches this machine only. {open_it}"]
    return [f"  Only this machine can reach it. {open_it}"]


def _try_it(mqtt: Address, *, signed: bool) -> str:
    host = mqtt.host
    if mqtt.is_wildcard:
        host = "::1" if ":" in host else "127.0.0.1"
    key = " --signature-key-file FILE" if signed else ""
    to = Address(host, mqtt.port)
    return f"python -m trio_gateway simulate --mqtt {to} --devices 3 --seconds 10{key}"


def write_ready_file(path: Path, gateway: Gateway) -> None:
    """Write the bound addresses as JSON, whole or not at all: readers wait for the file.

    Raises:
        GatewayError: That cannot be done. Who waits for it would wait for ever.
    """
    content = {"pid": os.getpid(), **gateway.addresses.as_text()}
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(content) + "\n")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise GatewayError(f"cannot write the ready file {path}: {error.strerror}") from error
