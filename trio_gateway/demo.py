"""`trio-gateway demo`: a gateway in this process, simulated devices in others, and what came of it.

A few devices talk all the time. A crowd comes, talks in chorus twice, and leaves: that takes more
workers for a while. The load is real (MQTT and UDP on loopback, speech, every frame coded) and so
are the thresholds of the scaling; only its times are shortened, or nobody would wait for the end.

The devices run in processes of their own, so that the gateway's event loop is the gateway's alone.
"""

from __future__ import annotations

import math
import secrets
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, evolve, field, frozen
from rich.console import Console

from trio_gateway import logs
from trio_gateway.demo_summary import Outcome
from trio_gateway.gateway import open_gateway
from trio_gateway.metrics.console import event_line
from trio_gateway.metrics.live import LiveState, run_live
from trio_gateway.metrics.units import megabytes, milliseconds
from trio_gateway.settings import Address, Secret, Settings
from trio_gateway.simulator.codec import encode, gateway_encoder
from trio_gateway.simulator.report import Report
from trio_gateway.simulator.voice import voice

if TYPE_CHECKING:
    from trio_gateway.gateway import Gateway
    from trio_gateway.settings import AudioSettings

__all__ = ["Cast", "main", "run_demo"]

SHORTENED: Final = {"interval": 1.0, "window": 2.0, "cooldown_up": 4.0, "cooldown_down": 2.0}
"""Seconds, in place of the defaults of `ScalingSettings`, so that all is over in half a minute."""

SAMPLES: Final = 0.5  # seconds between two
LINES: Final = 2.0  # seconds between two lines where there is no terminal
SHOWN_SAMPLES: Final = 120  # columns of a graph on a wide terminal
DRAINED_WITHIN: Final = 20.0
# Seconds from the last goodbye until the workers are down to the minimum: from eight it takes 12.

NOTE: Final = (
    "shortened: interval {interval:g} s, window {window:g} s, cooldowns {cooldown_up:g} and "
    "{cooldown_down:g} s; default thresholds"
).format(**SHORTENED)


@frozen(kw_only=True)
class Cast:
    """Who talks, and for how many seconds."""

    soloists: int = 4
    """Come first, talk each for itself, and stay when the crowd has left."""
    solo_s: float = 22.0
    crowd: int
    """Comes later, within two seconds, and talks in chorus."""
    crowd_after_s: float = 2.0
    crowd_s: float = 17.5
    """Enough for two calls of 7 s each."""


def main(settings: Settings) -> int:
    """Run the demo; the exit code is 1 unless all went as it should."""
    logs.configure(evolve(settings.log, level="error"))  # lines of a log would tear the picture
    return trio.run(_until_interrupted, settings)


async def _until_interrupted(settings: Settings) -> int:
    code = 130  # 128 + SIGINT, as shells say it
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            code = await run_demo(settings)
            nursery.cancel_scope.cancel()
    return code


async def run_demo(
    settings: Settings, *, cast: Cast | None = None, console: Console | None = None
) -> int:
    """Run it all; see the module.

    Args:
        settings: Of the gateway; addresses, backend and the times of scaling are the demo's own.
        cast: Who talks; by default a crowd that this machine's codec finds hard.
        console: Where to; standard output if None.

    Returns:
        0 if every device heard back what it said and workers were added and retired, else 1.
    """
    console = console or Console()
    cast = cast or Cast(crowd=_crowd_size(settings.audio))
    settings = _demo_settings(settings)
    audience = _Audience()
    began = time.perf_counter()
    async with open_gateway(settings) as gateway:
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            display = _picture if console.is_terminal else _lines
            nursery.start_soon(display, gateway, console, cast)
            await _perform(gateway, cast, audience)
            with trio.move_on_after(DRAINED_WITHIN):
                await _until_drained(gateway)
            nursery.cancel_scope.cancel()
        outcome = Outcome(
            reports=tuple(audience.reports),
            errors=tuple(audience.errors),
            samples=tuple(gateway.sampler.samples),  # minutes of them: more than a demo takes
            events=tuple(gateway.scaler.events),
            sessions=gateway.statistics().sessions,
            elapsed=time.perf_counter() - began,
        )
    console.print(outcome.table())
    return 0 if outcome.passed else 1


def _demo_settings(settings: Settings) -> Settings:
    here = Address("127.0.0.1", 0)
    return evolve(
        settings,
        backend="echo",
        signature_key=settings.signature_key or Secret(secrets.token_urlsafe()),
        mqtt=evolve(settings.mqtt, url=None, password=None, listen=here, tls_listen=None),
        udp=evolve(settings.udp, listen=here, public_host=None, public_port=None),
        scaling=evolve(settings.scaling, **SHORTENED),
        metrics=evolve(settings.metrics, interval=SAMPLES, window=SHORTENED["window"]),
    )


def _crowd_size(audio: AudioSettings) -> int:
    """How many devices in chorus are well beyond what asks for a third worker, on this machine.

    When n devices hear at the same moments, n frames are to be encoded every 60 ms. Two workers
    take n c / 2 for that (c = seconds of codec for a frame), and n / 2 frames are pending
    meanwhile: n**2 c / 0.24 on average, which is a load of n**2 c / 2.4 in workers of 5 pending
    frames each. So n goes with 1 / sqrt(c). 2.0 is measured, on two cores, c = 0.09 ms: 150 devices
    and a load of 85 to 170 % with either kind of worker, where 70 % scale up, and no device falls
    silent. With 2.8 (180 devices) a few do when the machine is busy with other things, too.
    """
    rate = audio.downlink_rate
    frame_samples = rate * audio.downlink_frame_ms // 1000
    pcm = voice(0).said(rate)
    encoder = gateway_encoder(rate, complexity=audio.complexity, bitrate=audio.bitrate)
    costs = []
    for _ in range(8):  # 50 ms or so; the least is the one that nothing disturbed
        began = time.perf_counter()
        count = len(encode(encoder, pcm, frame_samples))
        costs.append((time.perf_counter() - began) / count)
    return min(max(round(math.sqrt(2.0 / min(costs))), 40), 300)


# ----------------------------------------------------------------------------------- devices


@define
class _Audience:
    """What the devices' processes said in the end."""

    reports: list[Report] = field(factory=list)
    errors: list[str] = field(factory=list)

    async def attend(self, command: list[str]) -> None:
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
        try:
            self.reports.append(Report.from_json(done.stdout.decode()))
        except ValueError:
            said = done.stderr.decode(errors="replace").strip()
            self.errors.append(f"the simulator ended with {done.returncode}: {said}")


async def _perform(gateway: Gateway, cast: Cast, audience: _Audience) -> None:
    key = gateway.settings.signature_key
    assert key is not None  # noqa: S101  _demo_settings made one
    with TemporaryDirectory() as folder:
        key_file = Path(folder) / "key"  # the folder is ours alone; a command line is everybody's
        key_file.write_text(key.reveal())
        simulate = [sys.executable, "-m", "trio_gateway", "simulate", "--json"]
        simulate += ["--mqtt", str(gateway.addresses.mqtt), "--signature-key-file", str(key_file)]
        solo = ["--devices", cast.soloists, "--seconds", cast.solo_s]
        crowd = ["--devices", cast.crowd, "--seconds", cast.crowd_s, "--ramp", 1.5, "--together"]
        crowd += ["--first-device", cast.soloists]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(audience.attend, [*simulate, *map(str, solo)])
            await trio.sleep(cast.crowd_after_s)
            nursery.start_soon(audience.attend, [*simulate, *map(str, crowd)])


async def _until_drained(gateway: Gateway) -> None:
    least = gateway.settings.pool.min_workers
    while gateway.pool.statistics().target > least:  # noqa: ASYNC110  nobody announces it
        await trio.sleep(SAMPLES)


# ----------------------------------------------------------------------------------- display


async def _picture(gateway: Gateway, console: Console, cast: Cast) -> None:
    def state() -> LiveState:
        return LiveState(
            samples=tuple(gateway.sampler.samples)[-SHOWN_SAMPLES:],
            policy=gateway.scaler.policy,
            events=tuple(gateway.scaler.events),
            last=gateway.scaler.last,
            title=_title(cast),
            note=NOTE,
        )

    await run_live(state, console=console, interval=SAMPLES)


async def _lines(gateway: Gateway, console: Console, cast: Cast) -> None:
    """Say the same in lines, for what is no terminal."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(_title(cast))
    say(NOTE)
    began, told = trio.current_time(), 0
    while True:
        await trio.sleep(LINES)
        events = list(gateway.scaler.events)
        for event in events[told:]:
            say(f"  scaled {event_line(event)}")
        told = len(events)
        say(_line(gateway, trio.current_time() - began))


def _line(gateway: Gateway, since: float) -> str:
    sample = gateway.sampler.samples[-1]
    signals = gateway.sampler.signals(SHORTENED["window"])
    load = 0.0 if signals is None else signals.load
    return (
        f"{since:3.0f} s  sessions {len(gateway.sessions)}  workers {sample.pool.target}  "
        f"load {load:.0f} %  latency max {milliseconds(sample.pool.latency.max)}  "
        f"CPU {sample.cpu:.0f} %  memory {megabytes(sample.process.rss_bytes)}"
    )


def _title(cast: Cast) -> str:
    return f"trio-gateway demo: {cast.soloists} devices, then {cast.crowd} more in chorus"
