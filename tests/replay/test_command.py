"""`trio-gateway replay`, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_gateway import cli
from trio_gateway.replay import SCENARIOS
from trio_gateway.replay.report import clock

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRIO_GATEWAY_"):
            monkeypatch.delenv(name)


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.main, ["replay", *arguments], env=environment)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "load.csv"
    file.write_text("time,rate,service\n20,400,0.001\n50,2500,0.001\n80.5,100,0.001\n")
    return file


def test_it_prints_the_changes_and_a_summary(trace: Path) -> None:
    done = call(str(trace), "--cores", "8")
    assert (done.exit_code, done.stderr) == (0, "")
    title, bounds, _, head, change, _, *summary = done.stdout.splitlines()
    assert title == f"{trace}: 1:20.5, a look every 1 s"
    assert bounds == "2 to 8 workers on 8 cores, offered load at most 2.50 workers"
    assert head.split() == ["time", "workers", "reason"]
    assert change.startswith("0:21  2 -> 4   spike: load ")
    assert [line.split()[0] for line in summary] == [
        "changes",
        "workers",
        "CPU",
        "latency",
        "overloaded",
    ]
    assert "1 (1 up, 0 down)" in summary[0]
    assert "2 to 4, 3.5 on average, 4 in the end" in summary[1]


def test_json_is_the_same_for_programs(trace: Path) -> None:
    report = json.loads(call(str(trace), "--cores", "8", "--json").stdout)
    assert list(report) == ["trace", "cores", "bounds", "settings", "summary", "changes"]
    assert report["bounds"] == [2, 8]
    assert report["settings"]["load_up"] == 70.0
    assert report["summary"]["seconds"] == 80.5
    assert report["summary"]["workers"] == [2, 4]
    (change,) = report["changes"]
    assert (change["time"], change["before"], change["after"]) == (21.0, 2, 4)
    assert change["reason"].startswith("spike: ")
    assert change["signals"]["offered"] == 2.5


def test_the_settings_are_the_usual_ones(trace: Path) -> None:
    flag = call(str(trace), "--cores", "8", "--workers", "1:3")
    assert "1 to 3 workers" in flag.stdout
    variable = call(str(trace), "--json", TRIO_GATEWAY_SCALING_LOAD_UP="50")
    assert json.loads(variable.stdout)["settings"]["load_up"] == 50.0
    before = CliRunner().invoke(cli.main, ["--workers", "1:3", "replay", str(trace)])
    assert "1 to 3 workers" in before.stdout


def test_scenarios_have_names() -> None:
    listed = [line.split()[0] for line in call("--list").stdout.splitlines()]
    assert listed == list(SCENARIOS)
    for name in listed:
        assert call(f"scenario:{name}").stdout.startswith(f"scenario:{name}: ")
    reports = json.loads(call("scenario:all", "--json").stdout)
    assert [report["trace"] for report in reports] == [f"scenario:{name}" for name in listed]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give either TRACE or --list"),
        (["--list", "scenario:idle"], "give either TRACE or --list"),
        (["scenario:none"], "scenario:none: no such scenario; there are idle, 10-devices, "),
        (["none.csv"], "none.csv: No such file or directory"),
        (["scenario:idle", "--cores", "0"], "--cores"),
        (["scenario:idle", "--workers", "3:2"], "min_workers must not be above max_workers"),
        (["scenario:all", "--plot", "x.png"], "--plot x.png: draws one scenario, not all of them"),
        (["scenario:idle", "--plot", "x.xyz"], "x.xyz: Format 'xyz' is not supported"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith("trio-gateway: ")
    assert line in said


def test_a_plot_is_drawn(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.png"
    assert call(str(trace), "--plot", str(file)).exit_code == 0
    assert file.read_bytes()[1:4] == b"PNG"


def test_without_matplotlib_the_command_that_gets_it_is_named(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert call(str(trace)).exit_code == 0
    done = call(str(trace), "--plot", "out.png")
    assert done.exit_code == 2
    missing = 'matplotlib is missing; install the extra "plot" of trio-gateway'
    assert done.stderr == f"trio-gateway: --plot out.png: {missing}\n"


def test_without_a_plot_nothing_that_draws_is_imported(trace: Path) -> None:
    program = (
        "import sys\n"
        "from trio_gateway.cli import main\n"
        f"main(['replay', {str(trace)!r}], standalone_mode=False)\n"
        "print(sorted({'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (61, "1:01"), (59.96, "1:00"), (9.5, "0:09.5"), (3675, "1:01:15")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_table_in_the_docs_is_current() -> None:
    table = DOCS.split("```text\n")[1].split("```")[0]
    assert table == call("scenario:all").stdout, (
        "python -m trio_gateway replay scenario:all, into docs/scaling.md"
    )


def test_the_traces_in_the_docs_are_valid(tmp_path: Path) -> None:
    for language in ("csv", "json"):
        file = tmp_path / f"doc.{language}"
        file.write_text(DOCS.split(f"```{language}\n")[1].split("```")[0])
        assert call(str(file)).exit_code == 0
