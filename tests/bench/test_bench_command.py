"""`trio-gateway bench`, as a person types it. Nothing here depends on how fast anything is."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from math import isfinite
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from click.testing import CliRunner, Result

from trio_gateway import cli
from trio_gateway.bench.cli import bench
from trio_gateway.workers.interpreter import interpreters_work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS = ["thread", "interpreter"] if interpreters_work() else ["thread"]
SHORT = ("--rounds", "1", "--seconds", "0.01", "--workers", "2")
KEYS = ["mode", "op", "kind", "workers", "streams", "complexity"]
KEYS += ["fps", "cpu_us", "p50_ms", "p99_ms", "max_ms", "ratio"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRIO_GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command sets up the log of the whole program."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.main, ["bench", *arguments], env=environment)


def measured(*arguments: str, **environment: str) -> dict[str, Any]:
    done = call(*arguments, *SHORT, "--json", **environment)
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def configurations(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in KEYS[:6]) for row in report["results"]]


def pools(mode: str, op: str, complexity: int | None) -> Iterable[tuple[Any, ...]]:
    for kind in KINDS:
        for streams in (1, 8, 64):
            yield (mode, op, kind, 2, streams, complexity)


def test_the_whole_run_as_json() -> None:
    report = measured("pool")
    expected: set[tuple[Any, ...]]
    expected = {("start", op, kind, 1, 0, None) for op in ("fresh", "parked") for kind in KINDS}
    expected |= {("burst", "decode", kind, 2, 10, None) for kind in KINDS}
    expected |= {("burst", "encode", kind, 2, 10, 5) for kind in KINDS}
    for op, complexity in (("decode", None), ("encode", 0), ("encode", 5), ("encode", 10)):
        threads = {1, 2, report["plan"]["workers"], int(report["machine"]["cores"])}
        expected |= {("direct", op, None, count, 1, complexity) for count in threads}
        expected |= set(pools("pool", op, complexity))
        expected |= set(pools("pool-busy", op, complexity))
    found = configurations(report)
    assert len(found) == len(set(found))
    assert set(found) == expected
    for row in report["results"]:
        assert set(KEYS) <= set(row)
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["fps"] > 0
        assert row["cpu_us"] > 0
        assert row["jitter_ms"] >= 0
        assert all(isfinite(value) for value in row.values() if isinstance(value, float))
        if row["mode"] == "start":
            assert row["ratio"] is None
        elif row["mode"] == "direct":
            assert row["ratio"] == pytest.approx(1)
        else:
            assert row["ratio"] > 0
        assert (row["trio_busy"] > 0) == (row["mode"] == "pool-busy")
    assert 0 < report["quiet"] < 1.1
    judged = 2 * len(KINDS)  # starts
    judged += 4 * len(KINDS)  # decode at 1 and 64 streams, encode at 64, bursts
    assert len(report["targets"]) == judged


def test_it_says_where_it_was_measured() -> None:
    report = measured("pool", "--only", "start", "--kind", "thread")
    assert report["python"]["version"] == sys.version.split()[0]
    assert report["machine"]["cores"] > 0
    assert report["plan"] == {
        "workers": 2,
        "kinds": ["thread"],
        "rounds": 1,
        "seconds": 0.01,
        "parts": ["start"],
    }
    # What the command line sets, so that the pool runs as it would there.
    assert report["settings"]["pool"]["switch_interval"] == 0.0001


def test_settings_hold_here_too() -> None:
    environment = {
        "TRIO_GATEWAY_POOL_SWITCH_INTERVAL": "0.004",
        "TRIO_GATEWAY_AUDIO_BITRATE": "9000",
    }
    report = measured("pool", "--only", "start", "--kind", "thread", **environment)
    assert report["settings"]["pool"]["switch_interval"] == 0.004
    assert report["settings"]["bitrate"] == 9000


def test_the_switch_interval_is_as_before_in_the_end() -> None:
    before = sys.getswitchinterval()
    measured("pool", "--only", "start", "--kind", "thread")
    assert sys.getswitchinterval() == before


def test_parts_and_kinds_can_be_chosen() -> None:
    report = measured("pool", "--only", "burst", "--kind", "thread")
    modes = {(mode, op) for mode, op, *_ in configurations(report)}
    assert modes == {
        ("direct", "decode"),
        ("direct", "encode"),
        ("burst", "decode"),
        ("burst", "encode"),
    }
    assert {kind for _, _, kind, *_ in configurations(report)} == {None, "thread"}


def test_people_get_a_table() -> None:
    done = call("pool", *SHORT, "--only", "decode", "--only", "start", "--kind", "thread")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["decode,", "16", "kHz"] in lines
    starts = [tuple(line[:2]) for line in lines]
    assert starts.count(("thread", "64")) == 2  # the Trio thread idle, and half busy
    assert "targets, for two cores" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_options_as_json_and_as_a_table() -> None:
    done = call("options", *SHORT, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["results"]
    found = {(row["option"], row["kind"], row["load"]) for row in rows}
    pool = {("decode_first", "mixed"), ("decode_workers", "mixed")}
    pool |= {("pin_workers", load) for load in ("decode", "encode", "mixed")}
    expected: set[tuple[Any, ...]]
    expected = {(option, kind, load) for option, load in pool for kind in KINDS}
    expected |= {("slab", None, "decode a frame")}
    expected |= {("numpy", None, way) for way in ("int16 to float32", "float32 to int16")}
    assert found == expected
    for row in rows:
        assert row["on"] > 0
        assert row["off"] > 0
        assert row["ratio"] == pytest.approx(row["on"] / row["off"])  # of a single round
        assert 0 <= row["wins"] <= row["rounds"] == 1
    table = call("options", *SHORT, "--kind", "thread").stdout
    assert all(f"\n{name} " in table for name in ("slab", "numpy", "decode_first", "pin_workers"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pool", "--rounds", "0"], "'--rounds': 0 is not in the range"),
        (["pool", "--seconds", "0"], "'--seconds': 0.0 is not in the range"),
        (["pool", "--workers", "65"], "'--workers': 65 is not in the range"),
        (["pool", "--only", "start", "--only", "x"], "'--only': 'x' is not one of"),
        (["options", "--kind", "process"], "'--kind': 'process' is not one of"),
        (["pool", "--config", "none.toml"], "none.toml"),
        (["none"], "No such command 'none'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith("trio-gateway: ")
    assert line in said


@pytest.mark.skipif(interpreters_work(), reason="they work here")
def test_without_interpreters_asking_for_them_is_a_mistake() -> None:
    done = call("pool", "--kind", "interpreter")
    assert done.exit_code == 2
    wanted = "--kind interpreter: needs Python 3.13 or later, with a GIL"
    assert done.stderr == f"trio-gateway: {wanted}\n"


def test_a_flag_of_the_gateway_before_it_has_no_meaning() -> None:
    done = CliRunner().invoke(cli.main, ["--backend", "echo", "bench", "pool", *SHORT])
    assert done.exit_code == 2
    assert done.stderr == "trio-gateway: --backend has no meaning for pool\n"


def test_every_flag_has_help() -> None:
    for command in bench.commands.values():
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None), parameter.name


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from trio_gateway.cli import main\n"
        "main(['bench', 'pool', '--help'], standalone_mode=False)\n"
        "heavy = {'trio', 'numpy', 'rich', 'structlog', 'typed_settings', 'opuslib_next'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_ends_it_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr("trio_gateway.bench.measure.direct", interrupted)
    done = call("pool", *SHORT)
    assert (done.exit_code, done.output.strip()) == (130, "")
