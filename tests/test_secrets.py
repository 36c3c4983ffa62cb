"""No secret is shown: by the program whatever happens to it, and by no object that holds one."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import attrs
import pytest
import trio
from certificates import Authority, client_context
from keeping_sink import KeepingSink
from mosquitto import open_mosquitto
from running_program import RunningProgram, open_running_program
from wire_device import WireDevice, open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.identity import sign
from trio_gateway.core.link import AudioLink
from trio_gateway.core.mqtt_packet import Connect, Publish, encode
from trio_gateway.core.mqtt_types import Will
from trio_gateway.core.sealing import Sealer
from trio_gateway.errors import SettingsError
from trio_gateway.mqtt import open_external_broker
from trio_gateway.mqtt.client import Login
from trio_gateway.mqtt.outbox import Outgoing
from trio_gateway.settings import Address, BrokerUrl, MqttSettings, Secret, UdpSettings
from trio_gateway.simulator.plan import Plan

if TYPE_CHECKING:
    from trio_gateway import Session

PATIENCE = 30.0
FAULTY = (str(Path(__file__).with_name("faulty_program.py")),)
DEVICE = "GID@@@aa_bb_cc_dd_ee_ff@@@uuid"
KEY = "halibut-é'\"\\-marlin"
PASSWORD = "barracuda-é'\"\\ :@/%-swordfish"
BASE64 = "q83vEjRWeJq83vAS/NFZ4mrze8BI0VniavN7wEjRWeI="
SEVEN = 7
"""Characters of a secret or of base64 that no text has by chance; bytes, of what is escaped."""


@lru_cache
def parts(secret: str | bytes) -> dict[int, frozenset[str]]:
    """How parts of a secret look when they are shown, by their length."""
    data = secret.encode() if isinstance(secret, str) else secret
    # A byte is two digits; escaped it is four characters, but not if it is a letter.
    wide = {data.hex(): 2, data.hex().upper(): 2, data.hex(" "): 3}
    if isinstance(secret, bytes):
        wide[repr(data)[2:-1]] = 4
    found: dict[int, frozenset[str]] = {}
    for form in forms(secret):
        width = min(SEVEN * wide.get(form, 1), len(form))
        found[width] = found.get(width, frozenset()) | windows(form, width)
    return found


def windows(text: str, width: int) -> set[str]:
    return {text[at : at + width] for at in range(len(text) - width + 1)}


def forms(secret: str | bytes) -> set[str]:
    """How a whole secret looks when it is shown."""
    data = secret.encode() if isinstance(secret, str) else secret
    text = data.decode("latin-1") if isinstance(secret, bytes) else secret
    encoded = {base64.b64encode(bytes(skip) + data).decode()[4:-4] for skip in range(3)}
    encoded |= {each.replace("+", "-").replace("/", "_") for each in encoded}
    shown = {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text), quote(text, safe="")}
    shown |= {ascii(text)[1:-1], repr(data)[2:-1], data.hex(), data.hex(" "), data.hex().upper()}
    return {each for each in shown | encoded if len(each) >= SEVEN}


def assert_hidden(text: str, held: Iterable[str | bytes], where: object) -> None:
    """Check that no seven characters (or bytes) of a secret are shown in any form."""
    for secret in held:
        for width, hidden in parts(secret).items():
            shown = windows(text, width) & hidden
            assert not shown, f"{where} shows {sorted(shown)}"


def test_a_secret_is_found_in_every_form_and_in_parts() -> None:
    secret = "swordfish é'\\"
    for shown in (
        f"a {secret}",
        f"{secret!r}",
        f"{[secret]}",
        json.dumps({"a": secret}),
        f"{secret.encode()!r}",
        base64.b64encode(f"me:{secret}".encode()).decode(),
        secret.encode().hex(),
        f"mqtt://me:{quote(secret)}@host",
        secret[:7],
        f"port could not be cast: {secret[3:]!r}",
        secret.encode().hex()[4:-4],
    ):
        with pytest.raises(AssertionError):
            assert_hidden(shown, [secret], "this")
    with pytest.raises(AssertionError):
        assert_hidden("the wordfish", ["swordfish"], "this")
    assert_hidden("a sword, a fish", [secret], "this")


# The program


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


# Objects


def test_objects_that_hold_one_do_not_show_it() -> None:
    key = secrets.token_bytes(16)
    url = BrokerUrl.parse(f"mqtts://me:{quote(PASSWORD, safe='')}@broker")
    settings = Settings(signature_key=Secret(KEY), mqtt=MqttSettings(url=url))
    password = PASSWORD.encode()
    for thing in (
        settings,
        settings.mqtt,
        attrs.asdict(settings),
        attrs.asdict(settings, recurse=False),
        Settings(mqtt=MqttSettings(url=BrokerUrl.parse("mqtt://me@h"), password=Secret(PASSWORD))),
        url,
        Secret(KEY),
        [Secret(KEY)],
        Login(url=url, identifier="x", tls=None, timeout=1.0),
        Plan(gateway=Address("h", 1), key=Secret(KEY)),
        AudioLink(key, 1),
        AudioCipher(key),
        Sealer(key, 1),
        Connect(DEVICE, username=KEY, password=password, will=Will("topic", password)),
        Will("topic", password),
        Publish("topic", key.hex().encode()),
        Outgoing("topic", key.hex().encode(), 0.0),
    ):
        for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>5}"):
            assert_hidden(text, [KEY, PASSWORD, key], type(thing).__name__)


async def test_nothing_in_a_gateway_shows_one(scene: Scene) -> None:
    """All objects of ours that can be reached from a gateway with a call."""
    sessions: list[Session] = []

    async def listen(session: Session) -> None:
        sessions.append(session)
        await trio.sleep_forever()

    settings = Settings(
        signature_key=Secret(KEY),
        mqtt=MqttSettings(listen=Address("127.0.0.1", 0)),
        udp=UdpSettings(listen=Address("127.0.0.1", 0)),
    )
    with trio.fail_after(PATIENCE):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve, listen)
            address = gateway.control.address
            password = sign(KEY.encode(), DEVICE, "user")
            async with open_device(address, DEVICE, username="user", password=password) as device:
                await device.hello()
                held: list[str | bytes] = [KEY, password, device.key]
                kinds = {type(each).__name__ for each in walk(gateway, held)}
                task = trio.lowlevel.current_root_task()
                assert task is not None
                assert_tasks_hide(task, held)
                statistics = gateway.statistics()
                as_json = json.dumps(attrs.asdict(statistics))
                assert_hidden(f"{as_json} {statistics!r}", held, "statistics")
            nursery.cancel_scope.cancel()
    assert len(sessions) == 1
    expected = {"Session", "AudioLink", "Sealer", "AudioCipher", "Secret", "Broker", "Connection"}
    assert expected <= kinds, "it has looked everywhere"


async def test_nothing_in_the_front_of_an_external_broker_shows_one() -> None:
    url = BrokerUrl.parse("mqtt://gate@127.0.0.1:1")
    settings = MqttSettings(url=url, password=Secret(PASSWORD))
    key = secrets.token_bytes(16)
    async with open_external_broker(settings, sink=KeepingSink()) as front:
        front.send(DEVICE, json.dumps({"key": key.hex()}).encode())
        kinds = {type(each).__name__ for each in walk(front, [PASSWORD, key])}
        assert {"Outgoing", "MqttSettings", "Secret"} <= kinds


def walk(root: object, held: list[str | bytes]) -> Iterator[object]:
    """Yield each object of ours that `root` leads to; none may show what is held."""
    seen: set[int] = set()
    todo = deque([root])
    keep: list[object] = []  # so that no id is used twice
    while todo:
        thing = todo.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        keep.append(thing)
        todo += inside(thing)
        if isinstance(thing, (partial, FunctionType, MethodType)) or is_ours(thing):
            assert_hidden(f"{thing!r} {thing}", held, type(thing).__name__)
            yield thing


def is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith("trio_gateway")


def inside(thing: object) -> Iterable[object]:
    """What an object of ours, a container or a function holds."""
    match thing:
        case Mapping():
            held = [*thing.keys(), *thing.values()]
        case list() | tuple() | set() | frozenset() | deque():
            held = list(thing)
        case partial():
            held = [thing.func, *thing.args, *thing.keywords.values()]
        case MethodType():
            held = [thing.__self__]
        case FunctionType():
            held = [cell.cell_contents for cell in thing.__closure__ or () if filled(cell)]
        case _ if is_ours(thing) and not isinstance(thing, type):
            slots = [
                each for kind in type(thing).__mro__ for each in getattr(kind, "__slots__", ())
            ]
            held = [getattr(thing, each) for each in slots if hasattr(thing, each)]
            held += getattr(thing, "__dict__", {}).values()
        case _:
            held = []
    return held


def filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  raises when it is empty
    except ValueError:
        return False
    return True


def assert_tasks_hide(task: trio.lowlevel.Task, held: list[str | bytes]) -> None:
    """Trio names tasks in its own messages."""
    assert_hidden(f"{task!r} {task.name}", held, "task")
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            assert_tasks_hide(child, held)
