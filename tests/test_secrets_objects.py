"""No object that holds a secret shows it."""

from __future__ import annotations

import base64
import json
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
import pytest
import trio
from hidden import DEVICE, KEY, PASSWORD, PATIENCE, assert_hidden
from keeping_sink import KeepingSink
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.identity import sign
from trio_gateway.core.link import AudioLink
from trio_gateway.core.mqtt_packet import Connect, Publish
from trio_gateway.core.mqtt_types import Will
from trio_gateway.core.sealing import Sealer
from trio_gateway.mqtt import open_external_broker
from trio_gateway.mqtt.client import Login
from trio_gateway.mqtt.outbox import Outgoing
from trio_gateway.settings import Address, BrokerUrl, MqttSettings, Secret, UdpSettings
from trio_gateway.simulator.plan import Plan

if TYPE_CHECKING:
    from trio_gateway import Session


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


async def test_nothing_in_a_gateway_shows_one() -> None:
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
