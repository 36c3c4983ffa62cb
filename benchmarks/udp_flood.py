"""Calls while somebody floods the audio port: what they notice, and what it costs.

    python benchmarks/udp_flood.py [--rate 20000] [--devices 50] [--seconds 12] [--kinds none ...]

Three processes: a gateway (the program, echo backend), this one with the simulated devices, and
udp_flooder.py. For each kind of flood there are new ones; prints a line of a Markdown table. Kinds:

    none        no flood
    garbage     random bytes
    unknown     a header with an ssrc that is nobody's
    elsewhere   a live ssrc, random audio, from another host (127.0.0.2)
    port        a live ssrc, random audio, from the devices' host and another port
    forged      a live ssrc, random audio, from the device's own address and port (needs root)

Who can forge a device's address, port and ssrc ruins its call: nothing in a datagram tells them
apart. So one call in five is such a victim; round trips, and what was lost on the way down, are
those of the other four.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio
from attrs import define, field

from trio_gateway.settings import Address
from trio_gateway.simulator.caller import Caller
from trio_gateway.simulator.handset import Meters
from trio_gateway.simulator.lines import DatagramLine
from trio_gateway.simulator.plan import Plan
from trio_gateway.simulator.surroundings import RealSurroundings
from trio_gateway.simulator.voice import voice
from trio_gateway.speech import CLIPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_gateway.core.window import Summary

KINDS: Final = ("none", "garbage", "unknown", "elsewhere", "port", "forged")
WITH_LIVE_SSRC: Final = ("elsewhere", "port", "forged")
SETTLING: Final = 3.0  # seconds from the first device to the flood
FLOODER: Final = Path(__file__).with_name("udp_flooder.py")


# --------------------------------------------------------------------------- the devices


@define(eq=False)
class Fleet:
    """Devices that talk and listen until they are cancelled. Of the victims nothing is measured."""

    plan: Plan
    victims: int
    meters: Meters = field(factory=Meters)
    callers: list[Caller] = field(factory=list)

    async def live(self) -> None:
        """From the first hello on."""
        for number in range(len(CLIPS)):
            voice(number)  # encoded now, not while the first devices talk
        surroundings = RealSurroundings()
        self.callers += [
            Caller(
                number, self.plan, surroundings, Meters() if number < self.victims else self.meters
            )
            for number in range(self.plan.devices)
        ]
        async with surroundings.open(), trio.open_nursery() as devices:
            for caller in self.callers:
                devices.start_soon(caller.run, inf)
                await trio.sleep(1.0 / len(self.callers))

    def targets(self) -> list[tuple[int, int]]:
        """Return ssrc and port of each device that has a channel, as who listens in learns them."""
        return [
            (
                int.from_bytes(caller.device.channel.nonce[4:8], "big"),
                caller.handset.line._socket.getsockname()[1],  # noqa: SLF001  only its owner knows
            )
            for caller in self.callers[: self.victims or None]
            if caller.device.channel and isinstance(caller.handset.line, DatagramLine)
        ]

    def lost(self) -> int:
        """Frames that did not come back to their device in time to be played."""
        return sum(
            counters.lost + counters.late
            for counters in (each.device.counters for each in self.callers[self.victims :])
        )

    def failures(self) -> list[str]:
        """Why devices could not go on."""
        return [caller.failure for caller in self.callers if caller.failure]


# --------------------------------------------------------------------------- the gateway


@define(eq=False)
class Program:
    """A gateway that runs."""

    process: psutil.Process
    mqtt: Address
    udp: Address
    http: str

    async def state(self) -> dict[str, Any]:
        """What it says about itself."""

        def fetch() -> dict[str, Any]:
            with urllib.request.urlopen(self.http + "/api/state", timeout=5) as answer:  # noqa: S310  our own
                found: dict[str, Any] = json.load(answer)
            return found

        return await trio.to_thread.run_sync(fetch)

    def cpu_s(self) -> float:
        """Seconds of CPU so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@asynccontextmanager
async def open_program(flags: list[str]) -> AsyncIterator[Program]:
    """Start it on ports of its own choice, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        listen = [f"--{each}-listen=127.0.0.1:0" for each in ("mqtt", "udp", "http")]
        quiet = ["--log-level=warning", f"--ready-file={ready}"]
        command = [sys.executable, "-m", "trio_gateway", *listen, *quiet, *flags]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
        try:
            while not ready.exists():  # another process: only its file tells
                if process.poll() is not None:
                    raise SystemExit("the gateway ended before it was ready")
                await trio.sleep(0.05)
            told = json.loads(ready.read_text())
            mqtt, udp = (Address.parse(told[each]) for each in ("mqtt", "udp"))
            yield Program(psutil.Process(process.pid), mqtt, udp, told["http"])
        finally:
            process.terminate()
            await process.wait()


# --------------------------------------------------------------------------- together


async def measure(kind: str, options: argparse.Namespace) -> list[str]:
    """Return the cells of one line."""
    async with open_program(options.gateway) as program:
        plan = Plan(
            gateway=program.mqtt,
            devices=options.devices,
            seconds=inf,
            mode=options.mode,
        )
        fleet = Fleet(plan, options.devices // 5 if kind == "forged" else 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.live)
            await trio.sleep(SETTLING)
            before, cpu_s = await program.state(), program.cpu_s()
            before["lost_down"], fleet.meters.round_trip = fleet.lost(), Meters().round_trip
            began = trio.current_time()
            sent = await send(kind, program, fleet, options)
            elapsed = trio.current_time() - began
            cpu_s = program.cpu_s() - cpu_s
            after = await program.state()
            times = fleet.meters.round_trip.summary(0.0)
            after["lost_down"] = fleet.lost()
            nursery.cancel_scope.cancel()
        if fleet.failures():
            print(f"{kind}: {fleet.failures()}", file=sys.stderr)
    return cells(kind, sent / elapsed, before, after, elapsed, times, 100 * cpu_s / elapsed)


async def send(kind: str, program: Program, fleet: Fleet, options: argparse.Namespace) -> int:
    """Flood, or wait as long."""
    if kind == "none":
        await trio.sleep(options.seconds)
        return 0
    order = {
        "kind": kind,
        "host": program.udp.host,
        "port": program.udp.port,
        "rate": options.rate,
        "seconds": options.seconds,
        "targets": fleet.targets() if kind in WITH_LIVE_SSRC else [],
    }
    done = await trio.run_process(
        [sys.executable, str(FLOODER), json.dumps(order)], capture_stdout=True
    )
    return int(done.stdout)


def cells(
    kind: str,
    sent: float,
    before: dict[str, Any],
    after: dict[str, Any],
    elapsed: float,
    times: Summary,
    cpu: float,
) -> list[str]:
    """Put what was measured in the table's order."""
    udp, earlier, pool = after["udp"], before["udp"], after["pool"]["latency"]
    up, earlier_up = after["sessions"]["up"], before["sessions"]["up"]
    lost_up = sum(up[each] - earlier_up[each] for each in ("lost", "skipped"))
    reasons = {
        reason: round((count - earlier["refused"].get(reason, 0)) / elapsed)
        for reason, count in udp["refused"].items()
    }
    return [
        kind,
        f"{sent:,.0f}",
        f"{(udp['received'] - earlier['received']) / elapsed:,.0f}",
        str(
            None
            if udp["kernel_dropped"] is None
            else udp["kernel_dropped"] - earlier["kernel_dropped"]
        ),
        " / ".join(f"{1000 * value:.1f}" for value in (times.p50, times.p99, times.max)),
        f"{1000 * pool['p99']:.1f} / {1000 * pool['max']:.1f}",
        f"{lost_up} / {after['lost_down'] - before['lost_down']}",
        f"{cpu:.0f}",
        ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()) if count) or "-",
    ]


COLUMNS: Final = (
    "flood", "sent/s", "read/s", "kernel dropped", "round trip p50 / p99 / max, ms",
    "pool p99 / max, ms", "lost up / down", "gateway CPU, %", "refused/s",
)  # fmt: skip


async def main(options: argparse.Namespace) -> None:
    """Measure one kind after the other, and print."""
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for kind in options.kinds:
        print("| " + " | ".join(await measure(kind, options)) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=20_000, help="datagrams a second")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=12.0, help="of flood, for each kind")
    parser.add_argument("--mode", choices=["manual", "auto", "realtime"], default="realtime")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--gateway", nargs="*", default=[], help="more flags for the gateway")
    trio.run(main, parser.parse_args())
