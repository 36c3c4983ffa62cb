"""The gateway as a program: says what it listens on, waits for signals, drains, leaves."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import click
import structlog
import trio

from trio_gateway.gateway import open_gateway
from trio_gateway.metrics.console import run_console
from trio_gateway.replay.record import record
from trio_gateway.settings import Address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_gateway.gateway import Addresses, Gateway
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
    echo: Callable[[str], Any] = click.echo,
) -> int:
    """Run the gateway until SIGINT or SIGTERM.

    The first signal drains: no new calls, and within `settings.grace` seconds the program has left.
    The second ends everything at once.

    Args:
        settings: All of them.
        ready_file: Gets the bound addresses as JSON when calls are taken.
        trace: Gets the load, as `trio-gateway replay` reads it.
        echo: Prints a line for a person.

    Returns:
        The exit code: 0 after a drain, 130 when that was cut short.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        with trio.CancelScope() as everything:
            async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
                await nursery.start(gateway.serve)
                await nursery.start(_leave, signals, gateway, everything, nursery.cancel_scope)
                nursery.start_soon(_console, gateway)
                if trace is not None:
                    await nursery.start(record, gateway.sampler, trace)
                echo(banner(gateway))
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
            everything.deadline = trio.current_time() + grace
            nursery.start_soon(_drain, gateway, max(grace - GOODBYES, grace / 2), serving)


async def _drain(gateway: Gateway, grace: float, serving: trio.CancelScope) -> None:
    await gateway.drain(grace)
    serving.cancel()


def banner(gateway: Gateway) -> str:
    """What it listens on and what to do next, for a person."""
    addresses, settings = gateway.addresses, gateway.settings
    if addresses.mqtt is not None:
        control = f"MQTT  {addresses.mqtt}  (embedded endpoint)"
    else:
        control = "MQTT  external broker, see the log"
    kind, pool = gateway.pool.kind, settings.pool
    lines = [
        "trio-gateway is up",
        f"  {control}",
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
    if addresses.mqtt is None or not addresses.mqtt.is_loopback:
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
    """Write the bound addresses as JSON, whole or not at all: readers wait for the file."""
    addresses = gateway.addresses
    content = {
        "pid": os.getpid(),
        "mqtt": None if addresses.mqtt is None else str(addresses.mqtt),
        "udp": str(addresses.udp),
        "public_udp": str(addresses.public_udp),
        "http": addresses.http,
    }
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content) + "\n")
    part.replace(path)
