"""The program shows no secret, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import trio
from certificates import Authority, client_context
from hidden import BASE64, DEVICE, KEY, PASSWORD, PATIENCE, assert_hidden
from mosquitto import open_mosquitto
from running_program import RunningProgram, open_running_program
from wire_device import WireDevice, open_device

from trio_gateway.core.identity import sign
from trio_gateway.core.mqtt_packet import Connect, encode
from trio_gateway.errors import SettingsError
from trio_gateway.settings import BrokerUrl

FAULTY = (str(Path(__file__).with_name("faulty_program.py")),)


class Scene:
    """Files with secrets, and what must not be seen of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.certificate, self.key = self.authority.issue(folder)
        self.held: list[str | bytes] = [KEY, PASSWORD, BASE64, sign(KEY.encode(), DEVICE, "user")]
        pem = self.key.read_text().splitlines()[1:-1]
        self.held += [line[:40] for line in pem]
        for name, text in (("signature.key", KEY), ("password", PASSWORD)):
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o600)

    def write(self, text: str) -> str:
        """Write a TOML file; return its path."""
        file = self.folder / "gateway.toml"
        file.write_text(text, encoding="utf-8")
        return str(file)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


CONFIG = """
signature_key_file = "signature.key"
http_listen = "127.0.0.1:0"
[mqtt]
tls_listen = "127.0.0.1:0"
tls_cert_file = "server.crt"
tls_key_file = "server.key"
[log]
level = "debug"
format = "{}"
[metrics]
console_interval = 0.2
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_the_program_shows_none_whatever_fails(scene: Scene, log_format: str) -> None:
    output, trace = scene.folder / "output", scene.folder / "trace"
    flags = ["--config", scene.write(CONFIG.format(log_format)), "--record-trace", str(trace)]
    with trio.fail_after(PATIENCE), output.open("wb") as file:
        async with open_running_program(
            scene.folder, *flags, program=FAULTY, stdout=file.fileno(), stderr=file.fileno()
        ) as program:
            for how in ("raise", "group"):
                await call_that_fails(program, scene, how)
            await knock(program, scene)
            for path in ("api/state", "readyz", "api/nothing"):
                assert_hidden(await fetch(program, path), scene.held, path)
            assert program.addresses["mqtt_tls"] in await fetch(program, "api/state")
            await call_that_fails(program, scene, "program")
            assert program.process.returncode != 0
    shown = output.read_text(encoding="utf-8")
    assert shown.count("failed for <trio_gateway.session.Session") >= 4, "handlers failed"
    assert "TrioInternalError" in shown, "the program crashed"
    assert "TLS handshake failed" in shown
    for written in (output, trace, scene.folder / "ready.json"):
        assert_hidden(written.read_text(encoding="utf-8"), scene.held, written.name)


async def call_that_fails(program: RunningProgram, scene: Scene, how: str) -> None:
    password = sign(KEY.encode(), DEVICE, "user")
    async with open_device(program.mqtt, DEVICE, username="user", password=password) as device:
        await device.hello()
        scene.held += [device.key]
        device.publish({"type": "fail", "how": how, "session_id": device.session_id})
        if how == "program":
            await program.process.wait()  # here: a device that leaves may take its words with it
        else:
            await device.wait_for("goodbye", session_id=device.session_id)
            await talk_nonsense(device)


async def talk_nonsense(device: WireDevice) -> None:
    """Say what is refused, with a secret in it."""
    key = device.key.hex()
    for nonsense in (
        device.key,
        b'{"type": "' + key.encode(),
        {"type": "hello", "audio_params": {"format": key}},
    ):
        device.publish(nonsense)
    await device.wait_for("alert")


async def knock(program: RunningProgram, scene: Scene) -> None:
    """Be refused at the door, in several ways, with secrets in hand."""
    password = sign(KEY.encode(), DEVICE, "user").encode()
    tls = ("127.0.0.1", int(program.addresses["mqtt_tls"].rpartition(":")[2]))
    wrong_user = encode(Connect(DEVICE, username=KEY, password=password))
    for where, data in (
        (program.mqtt, wrong_user),
        (program.mqtt, encode(Connect(KEY, username="user", password=password))),
        (program.mqtt, wrong_user.replace(b"MQTT", b"MQTx")),
        (program.mqtt, KEY.encode()),
        (tls, wrong_user),
        (tls, KEY.encode()),
    ):
        async with await trio.open_tcp_stream(*where) as stream:
            await stream.send_all(data)
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
    stream = await trio.open_tcp_stream(*tls)
    async with trio.SSLStream(
        stream, client_context(scene.authority), server_hostname="x"
    ) as wrong:
        with pytest.raises(trio.BrokenResourceError):
            await wrong.do_handshake()


async def fetch(program: RunningProgram, path: str) -> str:
    def blocking() -> str:
        try:
            with urlopen(f"{program.addresses['http']}/{path}") as answer:  # noqa: S310  our own
                return str(answer.read(), "utf-8")
        except HTTPError as error:
            return str(error.read(), "utf-8")

    return await trio.to_thread.run_sync(blocking)


def ended(scene: Scene, *arguments: str, **variables: str) -> str:
    """Run the program until it ends by itself; return what it said."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "trio_gateway", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        cwd=scene.folder,
        env=os.environ | {f"TRIO_GATEWAY_{name}": value for name, value in variables.items()},
    )
    return done.stdout + done.stderr


MISTAKES: dict[str, tuple[list[str], dict[str, str]]] = {
    "config": (["config"], {}),
    "config --json": (["config", "--json"], {}),
    "a bad flag beside it": (["--workers", "x"], {}),
    "another scheme": ([], {"MQTT_URL": f"http://me:{quote(PASSWORD, safe='')}@host"}),
    "not escaped": ([], {"MQTT_URL": f"mqtt://me:{PASSWORD}@host"}),
    "no host": ([], {"MQTT_URL": f"mqtt://me:{quote(PASSWORD, safe='')}"}),
    "no host, not escaped": ([], {"MQTT_URL": f"mqtt://me:{PASSWORD}"}),
    "no host, a letter in the password": ([], {"MQTT_URL": f"mqtt://me:{PASSWORD[:9]}"}),
    "no @": ([], {"MQTT_URL": f"mqtt://me:{PASSWORD[:9]}broker:1883"}),
    "no scheme": (["--mqtt", f"me:{PASSWORD[:9]}"], {}),
    "a bracket": ([], {"MQTT_URL": f"mqtt://me:[{PASSWORD}@host"}),
    "a query": ([], {"MQTT_URL": f"mqtt://host?password={PASSWORD[:9]}"}),
    "a character that URLs do not have": ([], {"MQTT_URL": f"mqtt://me:{PASSWORD}\u2100@host"}),
    "the key for its file": ([], {"SIGNATURE_KEY": "none", "SIGNATURE_KEY_FILE": KEY}),
    "base64 for its file": ([], {"SIGNATURE_KEY": "none", "SIGNATURE_KEY_FILE": BASE64}),
    "base64 from the root": ([], {"SIGNATURE_KEY": "none", "SIGNATURE_KEY_FILE": f"/{BASE64}"}),
    "a long key for its file": (
        [],
        {"SIGNATURE_KEY": "none", "SIGNATURE_KEY_FILE": f"{KEY}{'x' * 300}"},
    ),
    "the key and its file": ([], {"SIGNATURE_KEY_FILE": KEY}),
    "a flag for its file": (["--mqtt-password-file", PASSWORD.replace("/", "")], {}),
    "no user": ([], {"MQTT_URL": "mqtt://host", "MQTT_PASSWORD": PASSWORD}),
    "twice": ([], {"SIGNATURE_KEY_FILE": "signature.key"}),
    "another name": ([], {"SIGNATUREKEY": KEY}),
    "a file that is binary": ([], {"SIGNATURE_KEY": "none", "MQTT_PASSWORD_FILE": "binary"}),
    "a key for a certificate": ([], {"MQTT_TLS_CERT_FILE": "server.key"}),
    "another's key": ([], {"MQTT_TLS_KEY_FILE": "other.key"}),
    "a TLS key for an authority": (
        [],
        {"MQTT_URL": "mqtts://127.0.0.1:1", "MQTT_BROKER_CA_FILE": "server.key"},
    ),
    "secrets in a flag": (["config", "--mqtt", f"mqtt://me:{quote(PASSWORD, safe='')}@host"], {}),
    "a file that is no TOML": (["--config", "password"], {}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show_none(scene: Scene, mistake: str) -> None:
    arguments, variables = MISTAKES[mistake]
    (scene.folder / "binary").write_bytes(b"\xff" + PASSWORD.encode("utf-16"))
    Authority(scene.folder, "another").issue(scene.folder, "other")
    given = {
        "SIGNATURE_KEY": KEY,
        "MQTT_TLS_LISTEN": "127.0.0.1:0",
        "MQTT_LISTEN": "127.0.0.1:0",
        "UDP_LISTEN": "127.0.0.1:0",
        "MQTT_TLS_CERT_FILE": "server.crt",
        "MQTT_TLS_KEY_FILE": "server.key",
        "LOG_LEVEL": "debug",
    }
    given |= variables
    if given["SIGNATURE_KEY"] == "none":
        del given["SIGNATURE_KEY"]
    said = ended(scene, *arguments, **given)
    assert said, "it has something to say"
    assert "Traceback" not in said
    assert_hidden(said, [*scene.held, PASSWORD.encode("utf-16")], mistake)


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://me:{}",
        "mqtt://me:{}/",
        "mqtt://me:{}@host:x",
        "mqtt://me:p@ss:{}@host/topic",
        "mqtt://me:\u2100{}@host",
        "mqtt://me:[{}@host",
        "mqtt:me:{}",
        "mqtt://host?password={}",
        "http://me:{}@host",
    ],
)
def test_the_traceback_of_a_url_that_is_none_shows_no_password(text: str) -> None:
    given = text.format("swordfish")
    with pytest.raises(SettingsError) as caught:
        BrokerUrl.parse(given)
    shown = "".join(traceback.format_exception(caught.value))
    assert "Traceback" in shown
    assert_hidden(shown, ["swordfish"], text)


def test_the_name_of_a_secret_file_that_is_missing_is_shown_if_it_is_a_path(scene: Scene) -> None:
    (scene.folder / "secrets").mkdir()
    for name, shown in (("secrets/missing", "'secrets/missing'"), ("missing", "'***'")):
        said = ended(scene, SIGNATURE_KEY_FILE=name)
        assert f"signature_key_file = {shown} (" in said
        assert "No such file or directory" in said


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_broker_that_refuses_us_makes_us_show_none(scene: Scene, log_format: str) -> None:
    output = scene.folder / "output"
    with trio.fail_after(PATIENCE), output.open("wb") as file:
        async with open_mosquitto(users={"gate": "another"}) as broker:
            url = broker.url.replace("://", "://gate@")
            log = f'[log]\nlevel = "debug"\nformat = "{log_format}"\n'
            config = f'{log}[mqtt]\nurl = "{url}"\npassword_file = "password"\n'
            async with open_running_program(
                scene.folder,
                "--config",
                scene.write(config),
                stdout=file.fileno(),
                stderr=file.fileno(),
            ) as program:
                await broker.wait_log("not authorised")
                while "refused" not in output.read_text(encoding="utf-8"):  # noqa: ASYNC110  a file
                    await trio.sleep(0.01)
                program.process.send_signal(signal.SIGTERM)
                await program.process.wait()
    assert_hidden(output.read_text(encoding="utf-8"), scene.held, log_format)
