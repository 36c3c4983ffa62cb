from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from trio_gateway import cli
from trio_gateway.settings import Address, BrokerUrl, Secret, Settings, settings_by_path
from trio_gateway.simulator import Plan, Weather

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRIO_GATEWAY_"):
            monkeypatch.delenv(name)


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env=environment)


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "trio_gateway", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Path | None]]:
    """The gateway is not started; what it would have been started with."""
    calls: list[tuple[Settings, Path | None]] = []

    async def main(settings: Settings, ready_file: Path | None, _trace: Path | None) -> int:
        calls.append((settings, ready_file))
        return 0

    monkeypatch.setattr("trio_gateway.run.main", main)
    monkeypatch.setattr("trio_gateway.logs.configure", lambda _: None)
    return calls


def test_every_flag_reaches_its_setting(
    started: list[tuple[Settings, Path | None]], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("swordfish", encoding="utf-8")
    key.chmod(0o600)
    ready = tmp_path / "ready.json"
    done = call(
        "--mqtt=mqtts://me@broker", f"--mqtt-password-file={key}", "--mqtt-listen=[::1]:0",
        "--mqtt-tls-listen=0.0.0.0:8883", f"--mqtt-tls-cert-file={key}",
        f"--mqtt-tls-key-file={key}", "--udp-listen=0.0.0.0:0",
        "--public-host=gateway.local", "--http-listen=127.0.0.1:8007", "--backend=echo",
        "--workers=1:3", "--worker-kind=thread", f"--signature-key-file={key}",
        "--log-level=debug", f"--ready-file={ready}",
    )  # fmt: skip
    assert (done.exit_code, done.output) == (0, "")
    ((settings, ready_file),) = started
    assert ready_file == ready
    assert settings.mqtt.url == BrokerUrl.parse("mqtts://me@broker")
    assert settings.mqtt.password == Secret("swordfish")
    assert settings.mqtt.tls_listen == Address("0.0.0.0", 8883)  # noqa: S104
    assert settings.mqtt.tls_cert_file == key
    assert settings.mqtt.tls_key_file == key
    assert settings.mqtt.listen == Address("::1", 0)
    assert settings.udp.listen == Address("0.0.0.0", 0)  # noqa: S104
    assert settings.udp.public_host == "gateway.local"
    assert settings.http_listen == Address("127.0.0.1", 8007)
    assert settings.backend == "echo"
    assert (settings.pool.min_workers, settings.pool.max_workers) == (1, 3)
    assert settings.pool.kind == "thread"
    assert settings.signature_key == Secret("swordfish")
    assert settings.log.level == "debug"


def test_the_exit_code_is_the_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(_settings: Settings, *_files: Path | None) -> int:
        return 130

    monkeypatch.setattr("trio_gateway.run.main", main)
    monkeypatch.setattr("trio_gateway.logs.configure", lambda _: None)
    assert call().exit_code == 130


def test_the_process_is_ours_so_threads_switch_faster(
    started: list[tuple[Settings, Path | None]],
) -> None:
    call()
    call(TRIO_GATEWAY_POOL_SWITCH_INTERVAL="none")
    assert [settings.pool.switch_interval for settings, _ in started] == [0.0001, None]


def test_one_number_of_workers_is_both_bounds(
    started: list[tuple[Settings, Path | None]],
) -> None:
    call("--workers", "4")
    pool = started[0][0].pool
    assert (pool.min_workers, pool.max_workers) == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--workers", "2-4"), "must be MIN:MAX, or one number for both"),
        (("--workers", "4:2"), "min_workers must not be above max_workers"),
        (("--workers", "0:2"), "must be a whole number from 1 to 64"),
        (("--mqtt-listen", "1883"), "mqtt.listen = '1883' (flag --mqtt-listen): must be HOST:PORT"),
        (("--udp-listen", "0.0.0.0:1"), "(--public-host)"),
        (
            ("--backend", "ws://chat.example.org"),
            "WebSocket chat servers arrive in a later release",
        ),
        (("--backend", "parrot"), "backend = 'parrot' (flag --backend): must be echo"),
        (("--mqtt", "broker:1883"), "mqtt.url = 'broker:1883' (flag --mqtt): must be mqtt://"),
        (("--worker-kind", "process"), "must be auto, thread or interpreter"),
        (("--signature-key-file", "/no/such"), "No such file or directory"),
        (("--config", "/no/such"), "No such file or directory"),
        (("--log-level", "loud"), "must be debug, info, warning or error"),
        (("--ready-file", "/no/such/folder/x"), "no such folder"),
        (("--ready-file", "x", "config"), "--ready-file has no meaning for config"),
        (("--no-such-flag",), "--no-such-flag"),
        (("serve",), "serve"),
        (("--mqtt-listen", "h:1", "demo"), "--mqtt-listen has no meaning for demo"),
        (("demo", "--mqtt-listen", "h:1"), "--mqtt-listen"),
        (("--http-listen", "0.0.0.0:8007"), "must be HOST:PORT on loopback"),
        (("demo", "--workers", "x"), "must be MIN:MAX"),
        (("config", "--workers", "x"), "must be MIN:MAX"),
        (("simulate",), "--mqtt"),
        (("simulate", "--mqtt", "1883"), "is not HOST:PORT"),
        (("simulate", "--mqtt", "h:1", "--devices", "0"), "--devices"),
        (("simulate", "--mqtt", "h:1", "--loss", "1.5"), "--loss"),
        (("simulate", "--mqtt", "h:1", "--signature-key-file", "/no/such"), "No such file"),
        (("--workers", "2", "simulate", "--mqtt", "h:1"), "--workers has no meaning for simulate"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], line: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("trio-gateway: ")
    assert line in said


def test_a_mistake_in_a_real_process() -> None:
    done = shell("--workers", "3", TRIO_GATEWAY_SESSIONS_MAX_SESSIONS="lots")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "trio-gateway: sessions.max_sessions = 'lots' (variable "
        "TRIO_GATEWAY_SESSIONS_MAX_SESSIONS): must be a whole number, at least 1\n"
    )


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = shell(
            "--mqtt-listen", address, "--udp-listen", "127.0.0.1:0", "--log-level", "error"
        )
    assert done.returncode == 1
    assert done.stderr == (
        "trio-gateway: cannot listen: Address already in use "
        f"(--mqtt-listen {address}, --udp-listen 127.0.0.1:0)\n"
    )


def test_config_says_where_each_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("grace = 3.0", encoding="utf-8")
    done = call(
        "--workers", "3", "config", "--config", str(file), "--log-level", "debug",
        TRIO_GATEWAY_UDP_BATCH="8",
    )  # fmt: skip
    assert done.exit_code == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(rows) == list(settings_by_path())
    assert rows["grace"].endswith(f"{file}, key grace")
    assert rows["udp.batch"].endswith("variable TRIO_GATEWAY_UDP_BATCH")
    assert rows["pool.max_workers"].endswith("flag --workers")
    assert rows["log.level"].endswith("flag --log-level")
    assert rows["udp.listen"].endswith("default")


class EmptyReport:
    """Stands in for a simulation's report; the simulator's own tests have the real one."""

    passed = False

    def to_json(self) -> str:
        return "{}"

    def table(self) -> str:
        return "a table"


def test_simulate_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plans: list[Plan] = []

    async def simulate(plan: Plan) -> EmptyReport:
        plans.append(plan)
        return EmptyReport()

    monkeypatch.setattr("trio_gateway.simulator.simulate", simulate)
    key = tmp_path / "key"
    key.write_text("swordfish\n", encoding="utf-8")
    done = call(
        "simulate", "--mqtt=[::1]:1883", "--devices=3", "--seconds=2.5", "--loss=0.1",
        "--burst=3", "--duplicate=0.3", "--reorder=0.2", "--jitter-ms=30", "--seed=7",
        "--mode=auto",
        f"--signature-key-file={key}", "--json",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (1, "{}\n"), "a report that did not pass"
    assert plans == [
        Plan(
            gateway=Address("::1", 1883),
            devices=3,
            seconds=2.5,
            mode="auto",
            key=Secret("swordfish"),
            weather=Weather(loss=0.1, burst=3, duplicate=0.3, reorder=0.2, jitter=0.03, seed=7),
        )
    ]
    monkeypatch.setattr(EmptyReport, "passed", True)
    done = call("simulate", "--mqtt=127.0.0.1:1883")
    assert (done.exit_code, done.stdout) == (0, "a table\n")
    assert plans[1] == Plan(gateway=Address("127.0.0.1", 1883))
    done = call("simulate", "--mqtt=127.0.0.1:1883", "--loss=0.9", "--burst=2")
    assert done.exit_code == 2
    assert "cannot make a loss of 0.9" in done.output


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("nursery", [KeyboardInterrupt()])]
)
def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    async def simulate(_plan: Plan) -> EmptyReport:
        raise error

    monkeypatch.setattr("trio_gateway.simulator.simulate", simulate)
    done = call("simulate", "--mqtt=127.0.0.1:1883")
    assert (done.exit_code, done.output.strip()) == (130, "")


def test_a_failure_of_the_program_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(_settings: Settings, *_files: Path | None) -> int:
        raise ExceptionGroup("nursery", [OSError(9, "Bad file descriptor")])

    monkeypatch.setattr("trio_gateway.run.main", main)
    monkeypatch.setattr("trio_gateway.logs.configure", lambda _: None)
    assert isinstance(call().exception, OSError)


def test_demo_gets_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def main(settings: Settings) -> int:
        seen.append(settings)
        return 1

    monkeypatch.setattr("trio_gateway.demo.main", main)
    assert call("--workers", "1:2", "demo", "--worker-kind", "thread").exit_code == 1
    (settings,) = seen
    assert (settings.pool.min_workers, settings.pool.max_workers) == (1, 2)
    assert settings.pool.kind == "thread"


def test_a_flag_after_the_command_outweighs_one_before() -> None:
    done = call("--log-level", "debug", "config", "--json", "--log-level", "error")
    assert json.loads(done.stdout)["log.level"]["value"] == "error"


def test_config_as_json() -> None:
    report = json.loads(call("config", "--json", TRIO_GATEWAY_MQTT_LISTEN="[::]:0").stdout)
    assert list(report) == list(settings_by_path())
    assert report["mqtt.listen"] == {
        "value": "[::]:0",
        "unit": "",
        "source": "variable TRIO_GATEWAY_MQTT_LISTEN",
    }
    assert report["pool.slots"]["value"] == 2048
    assert report["http_listen"]["value"] is None


@pytest.mark.parametrize("form", [[], ["--json"], ["--markdown"]])
def test_secrets_are_never_printed(form: list[str]) -> None:
    secrets = {
        "TRIO_GATEWAY_SIGNATURE_KEY": "swordfish",
        "TRIO_GATEWAY_MQTT_URL": "mqtt://me:swordfish@broker",
    }
    done = call("config", *form, **secrets)
    assert done.exit_code == 0
    assert "swordfish" not in done.output
    for wrong in (["--workers", "x"], ["--mqtt", "http://me:swordfish@broker"]):
        done = call("config", *wrong, *form, **secrets)
        assert "swordfish" not in done.output


def test_docs_are_current() -> None:
    done = call("config", "--markdown")
    assert DOCS.read_text(encoding="utf-8") == done.stdout, (
        "python -m trio_gateway config --markdown > docs/settings.md"
    )


def test_docs_do_not_depend_on_what_is_in_force() -> None:
    assert call("config", "--markdown", TRIO_GATEWAY_GRACE="1").stdout == DOCS.read_text("utf-8")


def test_the_example_in_the_docs_is_valid(tmp_path: Path) -> None:
    example = DOCS.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    file = tmp_path / "gateway.toml"
    file.write_text(example, encoding="utf-8")
    (tmp_path / "device.key").write_text("key", encoding="utf-8")
    assert call("config", "--config", str(file)).exit_code == 0


def test_version_names_what_runs() -> None:
    done = call("--version")
    assert done.exit_code == 0
    for part in ("trio-gateway ", f"Python {sys.version.split()[0]}", "libopus"):
        assert part in done.stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from trio_gateway.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'trio', 'numpy', 'rich', 'structlog', 'typed_settings', 'opuslib_next'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_flag_and_command_has_help() -> None:
    assert isinstance(cli.main, click.Group)
    for command in (cli.main, *cli.main.commands.values()):
        assert command.help
        options = [each for each in command.params if isinstance(each, click.Option)]
        missing = [option.name for option in options if not option.help]
        assert missing == []
