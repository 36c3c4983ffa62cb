"""What attacks on the embedded MQTT endpoint do to a device that has nothing to do with them.

    python benchmarks/mqtt_flood.py [--seconds 3] [--rate 2000] [--only NAME ...]

Endpoint, victims and attacker are processes of their own, so none of them measures another's event
loop. Each of ten victims sends a message, waits for the answer of the gateway's side, and begins
again 60 ms later. Prints one Markdown table; RSS and CPU are the endpoint's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import structlog
import trio

from trio_gateway.broker import Broker, open_broker
from trio_gateway.core.identity import sign, verify_untrusted
from trio_gateway.core.mqtt_packet import Connect, Parser, Publish, Subscribe, encode
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KEY = b"key"
VICTIM = "G@@@aa_bb_cc_dd_ee_ff@@@victim"
VICTIMS = 10
PAUSE = 0.06  # seconds between a victim's round trips: it stays within its own limits
HELD = 2000  # connections that an attacker holds at most
ADDRESSES = 1000
CHATTERERS = 50
TABLE = ("attack", "attempts/s", "victim p50 / p99 / max ms", "RSS growth MB", "CPU %")


def connect(client_id: str, **fields: Any) -> bytes:
    """A CONNECT with the right password, unless `fields` says otherwise."""
    good = {"username": "user", "password": sign(KEY, client_id, "user").encode()}
    return encode(Connect(client_id, **(good | fields)))


# The endpoint


class Answering:
    """Answers each message of a device, as sessions would."""

    broker: Broker

    def device_connected(self, client_id: str) -> None:
        """Do nothing."""

    def device_disconnected(self, client_id: str) -> None:
        """Do nothing."""

    def deliver(self, client_id: str, message: dict[str, Any]) -> None:
        """Send it back."""
        self.broker.send(client_id, json.dumps(message).encode())


async def serve() -> None:
    """Be the endpoint; print its port."""
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    sink = Answering()
    settings = MqttSettings(listen=Address("127.0.0.1", 0))
    async with open_broker(settings, sink=sink, authenticate=partial(verify_untrusted, KEY)) as it:
        sink.broker = it
        print((it.address or ("", 0))[1], flush=True)
        await trio.sleep_forever()


# The victims


async def suffer(port: int, seconds: float) -> None:
    """Print the milliseconds of all round trips as a JSON list; fail if one does not come."""
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        for number in range(VICTIMS):
            client_id = f"{VICTIM}{number or ''}"
            nursery.start_soon(be_a_victim, port, client_id, seconds, times)
            await trio.sleep(PAUSE / VICTIMS)
    print(json.dumps(times), flush=True)


async def be_a_victim(port: int, client_id: str, seconds: float, times: list[float]) -> None:
    """Talk on one connection, and note the milliseconds of each round trip."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    parser = Parser(1 << 16)
    ends = time.perf_counter() + seconds
    await stream.send_all(connect(client_id))
    await stream.receive_some()
    while (began := time.perf_counter()) < ends:
        await stream.send_all(encode(Publish("device-server", b"{}")))
        while not parser.feed_untrusted(data := await stream.receive_some()):
            if not data:
                raise SystemExit("the victim was disconnected")
        times.append((time.perf_counter() - began) * 1000)
        await trio.sleep(PAUSE)


# The attacker


class Attacker:
    """Makes attempts and counts them; those who hold connections hold the newest ones."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = port
        self.rate = rate
        self.attempts = 0
        self.held: list[trio.SocketStream] = []

    async def open(self, host: str = "127.0.0.2") -> trio.SocketStream:
        """Connect from one of this machine's addresses."""
        return await trio.open_tcp_stream("127.0.0.1", self.port, local_address=host)

    def hold(self, stream: trio.SocketStream) -> None:
        """Keep a connection open."""
        self.held.append(stream)
        if len(self.held) > HELD:
            self.held.pop(0).socket.close()

    async def attempt(self, act: Callable[[Attacker, int], Awaitable[None]], number: int) -> None:
        """Make one attempt; whatever becomes of it is no surprise."""
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await act(self, number)
            self.attempts += 1

    async def run(self, act: Callable[[Attacker, int], Awaitable[None]], seconds: float) -> None:
        """Make attempts at the rate asked for; print how many."""
        began = trio.current_time()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in count():
                    await trio.sleep_until(began + number / self.rate)
                    if len(nursery.child_tasks) < HELD // 4:
                        nursery.start_soon(self.attempt, act, number)
        print(self.attempts, flush=True)


def one_of_many(number: int) -> str:
    """One of 1,000 addresses."""
    return f"127.1.{number % ADDRESSES >> 8}.{number & 255}"


async def connect_and_go(attacker: Attacker, _: int) -> None:
    """Connect and close."""
    async with await attacker.open():
        pass


async def half_open(attacker: Attacker, _: int) -> None:
    """Connect and say nothing."""
    attacker.hold(await attacker.open())


async def half_open_from_many(attacker: Attacker, number: int) -> None:
    """The same from many addresses."""
    attacker.hold(await attacker.open(one_of_many(number)))


async def nearly_a_connect(attacker: Attacker, number: int) -> None:
    """Make the endpoint hold as much as it holds for a stranger."""
    stream = await attacker.open(one_of_many(number))
    await stream.send_all(connect("x", username="u" * 4000)[:-1])
    attacker.hold(stream)


async def wrong_password(attacker: Attacker, _: int, host: str = "127.0.0.2") -> None:
    """Be the victim, without its password."""
    async with await attacker.open(host) as stream:
        await stream.send_all(connect(VICTIM, password=b"wrong"))
        while await stream.receive_some():
            pass


async def wrong_password_from_many(attacker: Attacker, number: int) -> None:
    """The same from many addresses."""
    await wrong_password(attacker, number, one_of_many(number))


async def slow_reader(attacker: Attacker, number: int) -> None:
    """Let the outboxes of clients fill, of which each makes noise for all."""
    stream = await attacker.open(one_of_many(number))
    await stream.send_all(connect(f"G@@@aa_bb_cc_dd_ee_00@@@{number}"))
    await stream.send_all(encode(Subscribe(1, (("noise", 0),))))
    attacker.hold(stream)
    await stream.send_all(encode(Publish("noise", bytes(16_000))) * 8)


async def chatter(attacker: Attacker, number: int) -> None:
    """Send as fast as TCP takes it; an attempt is a packet that a socket has taken."""
    if number >= CHATTERERS:
        await trio.sleep_forever()
    async with await attacker.open(one_of_many(number)) as stream:
        await stream.send_all(connect(f"G@@@aa_bb_cc_dd_ee_00@@@{number}"))
        while True:
            await stream.send_all(encode(Publish("device-server", b"{}")) * 100)
            attacker.attempts += 100


async def takeover(attacker: Attacker, number: int) -> None:
    """Log in with the right password, as one and the same client."""
    async with await attacker.open(one_of_many(number)) as stream:
        await stream.send_all(connect("G@@@aa_bb_cc_dd_ee_00@@@twice"))
        await stream.receive_some()


ATTACKS: dict[str, Callable[[Attacker, int], Awaitable[None]] | None] = {
    "none": None,
    "connections that close at once, one address": connect_and_go,
    "connections that stay silent, one address": half_open,
    "connections that stay silent, 1,000 addresses": half_open_from_many,
    "CONNECT but for its last byte, 1,000 addresses": nearly_a_connect,
    "wrong passwords for the victim's id, one address": wrong_password,
    "wrong passwords for the victim's id, 1,000 addresses": wrong_password_from_many,
    "clients that subscribe, publish and never read": slow_reader,
    "50 clients that send packets without pause": chatter,
    "one client id from everywhere (takeover)": takeover,
}


# The measurement


@contextmanager
def role(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a part of this file in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:  # noqa: S603  ours
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> Any:
    """Wait for the next line that a part prints."""
    return json.loads((running.stdout or sys.stdin).readline())


def measure(name: str, seconds: float, rate: float) -> tuple[str, ...]:
    """One line of the table."""
    attempts = 0.0
    with role("serve") as endpoint:
        port, watched = said(endpoint), psutil.Process(endpoint.pid)
        with role("suffer", port, 0.5) as warming:
            said(warming)
        before, cpu = watched.memory_info().rss, watched.cpu_times()
        with (
            role("suffer", port, seconds) as victim,
            role("attack", port, rate, seconds, name) as it,
        ):
            if ATTACKS[name] is not None:
                attempts = said(it) / seconds
            times = np.array(said(victim))
            used = sum(watched.cpu_times()[:2]) - sum(cpu[:2])
            grown = watched.memory_info().rss - before
    p50, p99 = np.percentile(times, [50, 99])
    return (
        name,
        f"{attempts:,.0f}",
        f"{p50:.1f} / {p99:.1f} / {times.max():.1f}",
        f"{grown / 1e6:.1f}",
        f"{100 * used / seconds:.0f}",
    )


def main() -> None:
    """Measure all attacks, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float, default=2000, help="attempts a second")
    parser.add_argument("--only", nargs="*", default=list(ATTACKS), metavar="NAME")
    given = parser.parse_args()
    print("|", " | ".join(TABLE), "|")
    print("|", " | ".join("---" for _ in TABLE), "|")
    for name in given.only:
        print("|", " | ".join(measure(name, given.seconds, given.rate)), "|", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            trio.run(serve)
        case ["suffer", port, seconds]:
            trio.run(suffer, int(port), float(seconds))
        case ["attack", port, rate, seconds, name]:
            if (attack := ATTACKS[name]) is not None:
                trio.run(Attacker(int(port), float(rate)).run, attack, float(seconds))
        case _:
            main()
