"""What the soak looks at: the gateway from within, its process from outside, and both at rest."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio
from attrs import field, frozen

from trio_gateway.workers.interpreter import interpreters_work

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psutil

    from trio_gateway.gateway import Gateway

__all__ = ["Inside", "Rest", "Sample", "look_inside", "look_outside", "objects_by_type"]

_IDLE: Final = "Trio thread "  # the name of a thread that Trio keeps for 10 s in case of need


@frozen(kw_only=True)
class Inside:
    """What the gateway's process knows of itself at one moment; counters start with the gateway.

    Attributes:
        tasks: Trio tasks.
        idle_threads: Threads that Trio keeps although nothing runs in them.
        interpreters: The main one included.
        timers: Entries in the sessions' heap, stale ones included.
        sessions: Open ones.
        streams: Encoders and decoders.
        slots: Of the slab, in use.
        in_pool: Frames that wait for a worker or are with one.
        under_way: Datagrams and frames without a final fate, both ways (core/fates.py).
        connections: To the MQTT endpoint.
        opened: Sessions so far.
        frames: Decoded and sent so far.
        datagrams: Received so far.
        refused: Of them those that no session took.
        deaths: Workers that died so far.
        unaccounted: `GatewayStatistics.unaccounted()`.
    """

    tasks: int
    idle_threads: int
    interpreters: int
    timers: int
    sessions: int
    streams: int
    slots: int
    in_pool: int
    under_way: int
    connections: int
    opened: int
    frames: int
    datagrams: int
    refused: int
    deaths: int
    unaccounted: Mapping[str, int]

    @property
    def busy(self) -> dict[str, int]:
        """What must be nothing when no device is left, and is not."""
        names = ("sessions", "streams", "slots", "in_pool", "under_way", "connections")
        return {name: value for name in names if (value := getattr(self, name))}


@frozen(kw_only=True)
class Sample:
    """One moment.

    Attributes:
        at: Seconds since the soak began.
        rss_bytes: Resident memory.
        descriptors: Open ones.
        threads: Of the operating system, without those that Trio keeps idle.
        cpu_s: Seconds of CPU so far.
    """

    at: float
    rss_bytes: int
    descriptors: int
    threads: int
    cpu_s: float
    inside: Inside


@frozen(kw_only=True)
class Rest:
    """The gateway without devices, with its least number of workers and after a collection.

    Attributes:
        objects: By the name of their type, those that the garbage collector knows.
    """

    sample: Sample
    objects: Mapping[str, int] = field(repr=False)


def look_inside(gateway: Gateway) -> Inside:
    """Return the numbers of this moment."""
    statistics = gateway.statistics()
    pool, sessions, udp = statistics.pool, statistics.sessions, statistics.udp
    up, down = sessions.up, sessions.down
    return Inside(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        idle_threads=sum(each.name.startswith(_IDLE) for each in threading.enumerate()),
        interpreters=_interpreters(),
        timers=len(gateway._sessions._timers),  # noqa: SLF001  nobody else needs to know
        sessions=sessions.active,
        streams=pool.streams,
        slots=pool.slots_used,
        in_pool=pool.waiting + pool.in_flight,
        under_way=up.waiting + up.decoding + up.readable + down.queued,
        connections=statistics.control.connections,
        opened=sessions.opened,
        frames=sessions.frames_up + sessions.frames_down,
        datagrams=udp.received,
        refused=sum(udp.refused.values()),
        deaths=pool.deaths,
        unaccounted=statistics.unaccounted(),
    )


def look_outside(process: psutil.Process, inside: Inside, at: float) -> Sample:
    """Return what the operating system says of a process, together with what it says itself."""
    with process.oneshot():
        times = process.cpu_times()
        return Sample(
            at=at,
            rss_bytes=process.memory_info().rss,
            descriptors=process.num_fds(),
            threads=process.num_threads() - inside.idle_threads,
            cpu_s=times.user + times.system,
            inside=inside,
        )


def objects_by_type() -> dict[str, int]:
    """Count all objects that the collector knows, after a collection."""
    gc.collect()
    return dict(Counter(type(each).__qualname__ for each in gc.get_objects()))


def _interpreters() -> int:
    if not interpreters_work():
        return 1
    import _interpreters  # noqa: PLC0415  private, as in workers/interpreter.py

    return len(_interpreters.list_all())
