"""Clocks that jump: the one on the wall decides nothing; a machine that slept wakes up calmly."""

from __future__ import annotations

import ast
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs
from virtual_gateway import VirtualGateway, open_virtual_gateway

import trio_gateway
from trio_gateway.backends.echo import echo
from trio_gateway.metrics.console import run_console

if TYPE_CHECKING:
    from trio.testing import MockClock

PACKAGE = Path(trio_gateway.__file__).parent

WALL = {"time", "time_ns", "localtime", "gmtime", "strftime", "ctime", "asctime"}

# Where the time of day may be asked for, and what for.
MAY_ASK = {
    "scaler.py": "stamps an event, to be shown",
    "metrics/sampler.py": "stamps a sample, to be shown",
    "metrics/console.py": "shows it",
    "metrics/live.py": "shows it",
    "broker/certificate.py": "a certificate's dates are dates",
}
# Where such a stamp may be read.
MAY_READ = {"metrics/console.py", "metrics/live.py"}


def asks_the_wall(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "datetime"}:
            if node.module == "datetime" or {alias.name for alias in node.names} & WALL:
                return True
        elif isinstance(node, ast.Import):
            if any(alias.name == "datetime" for alias in node.names):
                return True
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in WALL
            and isinstance(node.value, ast.Name)
            and node.value.id == "time"
        ):
            return True
    return False


def test_nobody_asks_for_the_time_of_day_to_decide_by_it() -> None:
    trees = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, tree in trees.items() if asks_the_wall(tree)} <= MAY_ASK.keys()
    assert asks_the_wall(trees["scaler.py"]), "this would see it"
    readers = {
        name
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "wall"
    }
    assert readers <= MAY_READ


async def talk(gateway: VirtualGateway) -> list[tuple[float, int]]:
    """What a device that speaks is answered, and when; then it is silent for too long."""
    call, began = gateway.call(), trio.current_time()
    call.listen("start")
    for _ in range(20):
        call.say(9000)
        await trio.sleep(0.06)
    call.listen("stop")
    await trio.sleep(130)
    assert gateway.gateway.sessions == ()
    frames = call.audio.heard(gateway.sender)
    assert len(frames) == 20
    ends = [(round(at - began, 6), -1) for at, _, m in gateway.front.sent if m["type"] == "goodbye"]
    return [(round(frame.time - began, 6), frame.value) for frame in frames] + ends


async def test_a_wall_clock_that_jumps_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_virtual_gateway(monkeypatch, echo) as gateway:
        expected = await talk(gateway)
        samples = len(gateway.gateway.sampler.samples)
    jumps = cycle([0.0, 4e9, 1.7e9, 1.7e9 - 3600, 1.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    async with open_virtual_gateway(monkeypatch, echo) as gateway:
        assert await talk(gateway) == expected
        assert len(gateway.gateway.sampler.samples) == pytest.approx(samples, abs=1)
        assert len({sample.wall for sample in gateway.gateway.sampler.samples}) > 3, "it did jump"


@pytest.mark.parametrize("pause", [600.0, 8 * 3600.0])
async def test_a_machine_that_was_suspended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, pause: float
) -> None:
    """Linux's monotonic clock stands still meanwhile; that of a paused virtual machine goes on."""
    blocks: list[str] = []
    with capture_logs() as log:
        async with open_virtual_gateway(monkeypatch, echo) as gateway:
            sampler, scaler = gateway.gateway.sampler, gateway.gateway.scaler
            gateway.nursery.start_soon(
                lambda: run_console(
                    sampler,
                    policy=lambda: scaler.policy,
                    events=scaler.events,
                    interval=2.0,
                    write=blocks.append,
                )
            )
            await gateway.pool.resize(6)  # type: ignore[attr-defined]
            for number in range(20):
                gateway.call(f"device {number}")
            await trio.sleep(10.5)
            taken, written = len(sampler.samples), len(blocks)
            autojump_clock.jump(pause)
            await trio.sleep(0.001)
            assert len(sampler.samples) - taken <= 1
            assert sampler.signals(10) is None, "nothing has been measured since"
            assert gateway.gateway.sessions == (), "they were silent for too long"
            await trio.sleep(4)
            assert len(sampler.samples) - taken == pytest.approx(5, abs=1), "one a second, no more"
            assert len(blocks) - written <= 3
            signals = sampler.signals(10)
            assert signals is not None
            assert signals.at - sampler.samples[taken].time < 10
            assert gateway.call().session in gateway.gateway.sessions
    goodbyes = [message["type"] for _, _, message in gateway.front.sent].count("goodbye")
    assert goodbyes == 20 + 1, "each once, and the last one's at the end"
    assert not [entry for entry in log if entry["log_level"] in ("error", "critical")]
