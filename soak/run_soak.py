"""A gateway, and devices that come and go: does anything grow, does every frame have a fate?

    python soak/run_soak.py [--minutes 5] [--devices 120] [--kind thread] [--seed N]

The gateway runs in a process of its own; the devices (device_lives.py), the rascals and the
operator (mischief.py) run here. Warm-up, rest, soak, rest, end. Prints a line every ten seconds, in
the end a Markdown table and the verdict (verdict.py); the exit code is 1 if anything is wrong.

With 120 devices the gateway takes 38 % of a core and this program 20 (measured), and on two cores
a device is now and then told that all lines are busy.

What to expect: memory rises for the first minutes, as malloc's arenas (one for each thread, up to
eight a core) get to their size, and it has 3 to 5 MB for each interpreter, of which there are as
many as ever were workers; the warm-up makes them all. What rises in the second half is a leak.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from device_lives import live_on
from gateway_program import HARMS, KEY, MAX_WORKERS
from mischief import make_trouble
from served import GatewayGone, open_served
from town import Town
from verdict import MIB, Outcome, describe, failures, memory_slope, table

from trio_gateway.settings import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from samples import Sample
    from served import Served

_SAMPLE_EVERY: Final = 2.0  # seconds, and 40 samples at least
_PRINT_EVERY: Final = 10.0  # seconds
_WARM_UP: Final = 30.0  # seconds, and at most a quarter of the soak
_RASCALS: Final = 6  # devices for each of them; a guess
_OPERATE_EVERY: Final = (3.0, 9.0)  # seconds between kills and resizes


async def soak(arguments: argparse.Namespace) -> Outcome:
    """Do it."""
    seconds = arguments.minutes * 60
    samples: list[Sample] = []
    async with open_served(arguments.kind, arguments.harm) as (served, addresses):
        town = Town(
            mqtt=Address.parse(addresses["mqtt"]),
            udp=Address.parse(addresses["udp"]),
            key=KEY,
            seed=arguments.seed,
        )
        await served.order("resize", MAX_WORKERS)
        await inhabit(served, town, arguments.devices, min(_WARM_UP, seconds / 4), [])
        before = await served.rest()
        print(f"at rest:\n{describe(before.sample)}", flush=True)
        served.began = trio.current_time()
        await inhabit(served, town, arguments.devices, seconds, samples)
        after = await served.rest(before.sample)
        reasons: dict[str, dict[str, int]] = await served.order("tell")
        left = await served.leave()
    for what, counts in {"done": town.did, **reasons}.items():
        print(f"{what}:", ", ".join(f"{count} {name}" for name, count in counts.items()))
    return Outcome(
        kind=addresses["kind"],
        samples=samples,
        before=before,
        after=after,
        surprises=town.surprises,
        errors=served.errors,
        left=left,
        exit_code=served.process.returncode or 0,
    )


async def inhabit(
    served: Served, town: Town, devices: int, seconds: float, samples: list[Sample]
) -> None:
    """Let devices come and go for a while; in the end all vanish at once, as in a power cut."""
    async with town.open():
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_samples, served, samples, min(_SAMPLE_EVERY, seconds / 40))
                nursery.start_soon(operate, served, town, Random(f"{town.seed}/{seconds}"))  # noqa: S311
                for number in range(-(-devices // _RASCALS)):
                    nursery.start_soon(make_trouble, town, number)
                for number in range(devices):
                    nursery.start_soon(live_on, town, number)


async def operate(served: Served, town: Town, draw: Random) -> None:
    """Kill a worker or change their number, now and then."""
    while True:
        await trio.sleep(draw.uniform(*_OPERATE_EVERY))
        if draw.random() < 0.5:  # noqa: PLR2004
            town.did["kills"] += 1
            await served.order("kill", draw.random())
        else:
            town.did["resizes"] += 1
            await served.order("resize", draw.randint(1, MAX_WORKERS))


async def take_samples(served: Served, samples: list[Sample], every: float) -> None:
    """Look at the gateway as often as that, and print what is seen now and then."""
    printed = trio.current_time()
    while True:
        await trio.sleep(every)
        samples.append(await served.look())
        if trio.current_time() >= printed + _PRINT_EVERY:
            printed = trio.current_time()
            print(describe(samples[-1]), flush=True)


def report(outcome: Outcome, arguments: argparse.Namespace) -> list[str]:
    """Print the table and the verdict; return what is wrong."""
    wrong = failures(outcome)
    first, last = outcome.samples[0], outcome.samples[-1]
    spent = (last.cpu_s - first.cpu_s) / max(last.at - first.at, 1e-9)
    slope = memory_slope(outcome.samples)
    version = ".".join(map(str, sys.version_info[:3]))
    print(
        f"\n{arguments.minutes:g} min, {arguments.devices} devices, workers: {outcome.kind}, "
        f"Python {version}, seed {arguments.seed}\n"
    )
    print(table(outcome))
    print(
        f"\nGateway: {100 * spent:.0f} % of a core, {last.inside.datagrams} datagrams, "
        f"{last.inside.frames} frames, {last.inside.opened} calls, {last.inside.deaths} workers "
        "killed."
    )
    print(f"Memory in the second half: {slope.estimate * 60 / MIB:+.2f} MiB a minute.")
    before, after = (sum(each.objects.values()) for each in (outcome.before, outcome.after))
    print(f"Objects at rest: {before} before, {after} after.")
    print(f"\nFAILED, seed {arguments.seed}:" if wrong else "\nNothing grew, all adds up.")
    for line in wrong:
        print(f"- {line}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, soak, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--devices", type=int, default=120, help="at once, good ones")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--kind", choices=("auto", "thread", "interpreter"), default="auto")
    parser.add_argument(
        "--harm",
        choices=HARMS,
        nargs="*",
        default=(),
        help="leak or miscount on purpose with each call, to see the soak fail",
    )
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    try:
        wrong = report(trio.run(soak, given), given)
    except* GatewayGone as gone:
        first: BaseException = gone
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        wrong = [f"the gateway's process has ended: {first}"]
        print(f"\nFAILED, seed {given.seed}: {wrong[0]}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
