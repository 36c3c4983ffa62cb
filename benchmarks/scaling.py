"""What the scaling policy makes of loads that rise: its cooldowns compared, without a pool.

    python benchmarks/scaling.py

Each load goes through `trio_gateway.replay` (eight cores, 2 to 8 workers) with three policies:
`strict` adds nothing for 30 s after a change, whatever comes; `default` is what the settings are;
`short` is a `cooldown_up` of 10 s for everything. Prints Markdown: seconds of overload, mean and
most workers, changes, frames dropped, slowest frame. Where a load can begin anywhere between two
samples, the first three are means over several beginnings.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

from attrs import evolve

from trio_gateway.replay import Trace, replay
from trio_gateway.replay.report import Summary, summary
from trio_gateway.replay.scenarios import DEVICE, RATE
from trio_gateway.replay.trace import Row
from trio_gateway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT: Final = Settings()
POLICIES: Final = {
    "strict": evolve(DEFAULT, scaling=evolve(DEFAULT.scaling, cooldown_overload=30.0)),
    "default": DEFAULT,
    "short": evolve(
        DEFAULT, scaling=evolve(DEFAULT.scaling, cooldown_up=10.0, cooldown_overload=30.0)
    ),
}
BEGINNINGS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 5.5)
"""Seconds after a regular check: five within a sample, one in the middle between two checks."""
PARTS: Final = 10
"""Of a second, to take its mean."""
CALM: Final = 120.0


def main() -> None:
    """Print the table."""
    print("| load | " + " | ".join(POLICIES) + " |")
    print("|---|" + "---|" * len(POLICIES))
    for name, traces in loads():
        cells = [
            cell([summary(replay(trace, settings)) for trace in traces])
            for settings in POLICIES.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def cell(totals: list[Summary]) -> str:
    """Return what came of one load: "2.3 s, 3.6 / 6 workers, 1 change, 0 dropped, 424 ms"."""

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(totals)

    overloaded = mean(total.overloaded for total in totals)
    workers = mean(total.workers_mean for total in totals)
    most = max(total.workers[1] for total in totals)
    changes = mean(total.changes for total in totals)
    dropped = max(total.dropped for total in totals)
    worst = max(total.latency_worst for total in totals) * 1000
    return (
        f"{overloaded:.1f} s, {workers:.1f} / {most} workers, {changes:.1f} changes, "
        f"{dropped} dropped, {worst:.0f} ms"
    )


def loads() -> Iterable[tuple[str, list[Trace]]]:
    """Yield the name of a load and the traces that are it."""
    for most in (84, 130):
        for seconds in (0.01, 3, 6, 10, 20, 30, 60, 120):
            name = f"10 to {most} devices in {seconds:g} s" if seconds >= 1 else f"10, then {most}"
            yield name, [ramp(10, most, seconds, begins) for begins in BEGINNINGS]
    yield (
        "10, 50, and 120 after 3, 8, 15, 25 s",
        [two_jumps(apart) for apart in (3, 8, 15, 25)],
    )
    yield "sawtooth: 10 to 84 in 60 s, every 120", [trace(sawtooth, 1200)]
    yield "sine: 10 to 84 and back in 120 s", [trace(sine, 1200)]
    for offered in (1.2, 1.8, 2.6):
        name = f"{offered:g} workers of load, sigma 25 %"
        yield name, [trace(noise(offered, 0.25, seed), 900) for seed in range(4)]
    yield "100 devices that talk half of the time", [trace(talkers(seed), 900) for seed in range(4)]


def trace(devices: Callable[[float], float], seconds: int) -> Trace:
    """Make a trace of devices over time: a row a second, of the mean in it."""
    rows = []
    for second in range(seconds):
        moments = (second + (part + 0.5) / PARTS for part in range(PARTS))
        mean = sum(devices(moment) for moment in moments) / PARTS
        rows.append(Row(time=second + 1.0, offered=max(mean, 0.0) * DEVICE, service=DEVICE / RATE))
    return Trace("load", tuple(rows), 8.0)


def ramp(least: float, most: float, seconds: float, begins: float) -> Trace:
    """Return devices that come evenly within some seconds, and stay for four minutes."""

    def devices(time: float) -> float:
        share = (time - CALM - 1 - begins) / seconds  # the first check is after a second
        return least + (most - least) * min(max(share, 0.0), 1.0)

    return trace(devices, round(CALM + seconds) + 250)


def two_jumps(apart: float) -> Trace:
    """Return two jumps, the second within the cooldown of the first."""

    def devices(time: float) -> float:
        return 10 if time < CALM else 50 if time < CALM + apart else 120

    return trace(devices, 500)


def sawtooth(time: float) -> float:
    """Return devices that come evenly within a minute and leave at once, every two minutes."""
    within = time % 120
    return 10 + 74 * within / 60 if within < 60 else 10  # noqa: PLR2004  the half of it


def sine(time: float) -> float:
    """Return devices that come and go within two minutes."""
    return 47 + 37 * math.sin(2 * math.pi * time / 120)


def noise(offered: float, sigma: float, seed: int) -> Callable[[float], float]:
    """Return devices of which each second has others, about as many; sigma is a share of them."""
    chance = random.Random(seed)  # noqa: S311  not for secrets
    seconds = [offered / DEVICE * (1 + sigma * chance.gauss(0, 1)) for _ in range(3600)]
    return lambda time: seconds[int(time)]


def talkers(seed: int) -> Callable[[float], float]:
    """Return a hundred devices of which each begins or stops every five seconds, by chance.

    One that talks offers twice what a device does on average.
    """
    chance = random.Random(seed)  # noqa: S311  not for secrets
    talking = [chance.random() < 0.5 for _ in range(100)]  # noqa: PLR2004  half of them
    seconds = []
    for _ in range(3600):
        talking = [each ^ (chance.random() < 1 / 5) for each in talking]
        seconds.append(2.0 * sum(talking) / 2)
    return lambda time: seconds[int(time)]


if __name__ == "__main__":
    main()
