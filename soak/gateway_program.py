"""The gateway that is soaked, in a process of its own; ordered about over its standard input.

    python soak/gateway_program.py {"kind": "thread", "harm": []}

Rule 1: an order is a JSON list on a line, [name, argument ...]; each is answered by a JSON line.
Rule 2: the first line that it writes has its addresses, the last one what it left behind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio
from attrs import asdict, define, field
from moods import moody
from samples import look_inside, objects_by_type

from trio_gateway import Settings, logs, open_gateway
from trio_gateway.errors import WorkerFailed
from trio_gateway.settings import (
    Address,
    LogSettings,
    MqttSettings,
    PoolSettings,
    ScalingSettings,
    Secret,
    UdpSettings,
)
from trio_gateway.workers.wire import TICKET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_gateway import Gateway, Session
    from trio_gateway.core.fates import DownlinkStatistics, UplinkStatistics

__all__ = ["HARMS", "KEY", "MAX_WORKERS", "MIN_WORKERS"]

KEY: Final = "the soak's own"
MIN_WORKERS: Final = 2
MAX_WORKERS: Final = 4  # a guess: more than two cores are kept busy by
GRACE: Final = 1.0  # seconds; no device is left by then
HARMS: Final = ("memory", "object", "descriptor", "thread", "frame", "crash")
_LEAK_BYTES: Final = 4 << 20  # with each session; both so that a soak of seconds sees it
_LEAK_OBJECTS: Final = 1000
_NOT_A_TICKET: Final = TICKET.pack(0, 0xDEAD, 0, 0, 0, 99)  # an operation that there is not


def settings_of(kind: str) -> Settings:
    """Scaling has its default thresholds, but is quicker: so that it happens in a short soak."""
    here = Address("127.0.0.1", 0)
    return Settings(
        signature_key=Secret(KEY),
        grace=GRACE,
        mqtt=MqttSettings(listen=here),
        udp=UdpSettings(listen=here),
        pool=PoolSettings(kind=kind, min_workers=MIN_WORKERS, max_workers=MAX_WORKERS),  # type: ignore[arg-type]
        scaling=ScalingSettings(interval=2.0, window=2.0, cooldown_up=4.0, cooldown_down=6.0),
    )


@define
class Harm:
    """Leaks on purpose, with each session: shows that the soak sees it."""

    kinds: Sequence[str]
    gateway: Gateway
    kept: list[object] = field(factory=list)

    async def handle(self, session: Session) -> None:
        """Do it, then handle the call."""
        for kind in self.kinds:
            getattr(self, f"_{kind}")(session)
        await moody(session)

    def _memory(self, _: Session) -> None:
        self.kept.append(b"x" * _LEAK_BYTES)

    def _object(self, _: Session) -> None:
        self.kept += [[] for _ in range(_LEAK_OBJECTS)]

    def _descriptor(self, _: Session) -> None:
        os.dup(sys.stderr.fileno())

    def _thread(self, _: Session) -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    def _frame(self, session: Session) -> None:
        session._uplink._became["decoded"] += 1  # noqa: SLF001  counted, and there was none

    def _crash(self, _: Session) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@define
class Obedience:
    """What can be ordered; each method is an order."""

    gateway: Gateway

    async def look(self) -> dict[str, Any]:
        """Say how it does."""
        await trio.lowlevel.checkpoint()
        return asdict(look_inside(self.gateway))

    async def resize(self, workers: int) -> None:
        """Have so many workers. What is written to standard error fails the soak."""
        try:
            await self.gateway.pool.resize(workers)
        except WorkerFailed as error:
            print("resize:", error, file=sys.stderr)

    async def kill(self, draw: float) -> None:
        """Have a worker answer what it was not asked: it is believed no more, and replaced."""
        await trio.lowlevel.checkpoint()
        workers = self.gateway.pool._supervisor.workers  # noqa: SLF001  the victims
        ready = [worker for worker in workers if worker.lane.ready and not worker.lane.closed]
        if ready:
            random.Random(draw).choice(ready)._write(_NOT_A_TICKET)  # noqa: S311, SLF001

    async def count(self) -> dict[str, int]:
        """Count objects, but for samples: they fill up for five minutes, and then no more."""
        await self.resize(MIN_WORKERS)
        self.gateway.sampler.samples.clear()
        return objects_by_type()

    async def tell(self) -> dict[str, dict[str, int]]:
        """Say what became of whatever did not go well, by reason."""
        await trio.lowlevel.checkpoint()
        statistics = self.gateway.statistics()
        control = statistics.control
        return {
            "calls ended": statistics.sessions.closed,
            "hellos refused": statistics.sessions.refused,
            "datagrams refused": statistics.udp.refused,
            "logins refused": dict(control.refused),
            "connections closed": dict(control.closed),
            "messages refused": dict(control.bad_messages),
            "frames up": _fates(statistics.sessions.up),
            "frames down": _fates(statistics.sessions.down),
        }


def _fates(statistics: UplinkStatistics | DownlinkStatistics) -> dict[str, int]:
    counts = asdict(statistics)
    counts.pop("refused", None)
    return {name: count for name, count in counts.items() if count}


async def obey(gateway: Gateway) -> None:
    """Carry out what comes, one order after the other, to the end of the input."""
    orders, rest = Obedience(gateway), b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for chunk in stream:
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            for line in lines:
                name, *arguments = json.loads(line)
                say(await getattr(orders, name)(*arguments))


async def main(kind: str, harm: Sequence[str]) -> None:
    """Serve until the input ends, then say what is left."""
    process = psutil.Process()
    before = process.num_fds()
    async with open_gateway(settings_of(kind)) as gateway, trio.open_nursery() as nursery:
        handler = partial(Harm.handle, Harm(harm, gateway)) if harm else moody
        await nursery.start(gateway.serve, handler)
        say({"kind": gateway.pool.kind, **gateway.addresses.as_text()})
        await obey(gateway)
        await gateway.drain(GRACE)
        nursery.cancel_scope.cancel()
    inside = look_inside(gateway)
    say(
        {
            "descriptors": process.num_fds() - before,
            "workers": len(gateway.statistics().pool.workers),
            "interpreters": inside.interpreters - 1,
            **inside.busy,
            **inside.unaccounted,
        }
    )


def say(what: object) -> None:
    """Write a line."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    logs.configure(LogSettings(level="warning", format="json"))
    trio.run(partial(main, **json.loads(sys.argv[1])))
