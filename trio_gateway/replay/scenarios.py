"""Loads to replay by name: `scenario:NAME`.

The first seven are those that the earlier gateway's scaler was made for, each with ten times the
devices; they stand for levels of load, which is why a device here offers a tenth of what one of
those did. The others are ours, and harder: a jump between two samples, of which the first sees
half, and a load that keeps rising while a cooldown runs.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from trio_gateway.replay.model import FRAME
from trio_gateway.replay.trace import Row, Trace

__all__ = ["PREFIX", "SCENARIOS", "Earlier", "Scenario"]

PREFIX: Final = "scenario:"

RATE: Final = 2 / FRAME
"""Frames/s of a device that talks and listens."""
DEVICE: Final = 0.042
"""Workers of load that it offers, so that 100 of them need 5 to 8 workers. It makes 1.26 ms a
frame, five times of what was measured at complexity 5: a small board, or 500 devices in place of
these 100."""
CORES: Final = 8.0
"""With as many as the scaler's most workers, none of them takes turns."""

MINUTE: Final = 60.0


@frozen
class Earlier:
    """What was said of the earlier gateway, in its own words; empty where nothing was."""

    workers: str = ""
    cpu: str = ""
    latency: str = ""


@frozen
class Scenario:
    """A load by name.

    Attributes:
        name: On the command line.
        about: For people.
        points: (Seconds since the beginning, devices until then). Between two numbers of devices
            that differ lies a jump.
        earlier: With a tenth of the devices.
    """

    name: str
    about: str
    points: tuple[tuple[float, float], ...] = field(repr=False)
    earlier: Earlier = Earlier()

    def trace(self) -> Trace:
        """Return it as a trace."""
        rows = tuple(
            Row(time=time, offered=devices * DEVICE, service=DEVICE / RATE)
            for time, devices in self.points
        )
        return Trace(PREFIX + self.name, rows, CORES)


def _steady(devices: int, *earlier: str) -> Scenario:
    """The same load for ten minutes, all of it from the first second."""
    about = f"{devices} devices, 10 minutes"
    return Scenario(f"{devices}-devices", about, ((10 * MINUTE, devices),), Earlier(*earlier))


def _ramp(start: float, seconds: int, before: int, after: int) -> list[tuple[float, float]]:
    """Each second a little more."""
    step = (after - before) / seconds
    return [(start + second, before + step * second) for second in range(1, seconds + 1)]


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("idle", "no device, 10 minutes", ((10 * MINUTE, 0),), Earlier("2", "5", "1 ms")),
        _steady(10, "2", "10", "2 ms"),
        _steady(30, "2 to 3", "30", "3 ms"),
        _steady(50, "3 to 4", "50", "5 ms"),
        _steady(100, "5 to 8", "70", "8 ms"),
        Scenario(
            "traffic-spike",
            "10 devices, after 2 minutes 84 at once, after 2 more 10 again",
            # 84: the least that needs six workers
            ((2 * MINUTE, 10), (4 * MINUTE, 84), (10 * MINUTE, 10)),
            Earlier("2 to 6", "10 to 60", "2 to 12 ms"),
        ),
        Scenario(
            "after-the-spike",
            "100 devices for a minute, then none",
            ((MINUTE, 100), (8 * MINUTE, 0)),
            Earlier("back to 2"),
        ),
        Scenario(
            "straddling-spike",
            "the traffic spike, begun in the middle between two samples",
            ((2 * MINUTE, 10), (2 * MINUTE + 1, 47), (4 * MINUTE, 84), (10 * MINUTE, 10)),
        ),
        Scenario(
            "ramp",
            "10 devices, after 2 minutes 84 within half a minute",
            ((2 * MINUTE, 10), *_ramp(2 * MINUTE, 30, 10, 84), (6 * MINUTE, 84)),
        ),
    )
}
