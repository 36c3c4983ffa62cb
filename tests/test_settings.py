from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve, fields
from attrs.exceptions import FrozenInstanceError

import trio_gateway
from trio_gateway.errors import InvalidSetting, SettingsError
from trio_gateway.settings import (
    Address,
    AudioSettings,
    BrokerUrl,
    MetricsSettings,
    MqttSettings,
    PoolSettings,
    ScalingSettings,
    Secret,
    Settings,
    UdpSettings,
    mask_url,
    sections,
    settings_by_path,
)
from trio_gateway.settings.rules import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = settings_by_path()


@pytest.mark.parametrize("path", PATHS)
def test_every_setting_says_what_it_is_and_why(path: str) -> None:
    attribute = PATHS[path]
    about = attribute.metadata
    assert about["help"].endswith((".", ")"))
    assert about["why"].endswith((".", ")"))
    assert str(about["rule"])
    assert about["rule"].accepts(attribute.default)


def test_every_setting_is_read_somewhere() -> None:
    package = Path(trio_gateway.__file__).parent
    code = "\n".join(
        file.read_text(encoding="utf-8")
        for file in package.rglob("*.py")
        if "settings" not in str(file.relative_to(package))
    )
    unread = {path for path in PATHS if not re.search(rf"\.{path.rpartition('.')[2]}\b", code)}
    assert unread == set()


def test_numbers_have_a_unit() -> None:
    without = {
        path
        for path, attribute in PATHS.items()
        if type(attribute.default) in {int, float} and not attribute.metadata["unit"]
    }
    assert without == {"audio.complexity"}


def test_names_in_messages_are_those_of_the_tree() -> None:
    for name, section in sections().items():
        assert [path_of(section, leaf.name) for leaf in fields(section)] == [
            f"{name}.{leaf.name}" for leaf in fields(section)
        ]


def test_defaults_listen_on_loopback_only() -> None:
    settings = Settings()
    assert settings.mqtt.listen is not None
    assert settings.mqtt.listen.is_loopback
    assert settings.mqtt.tls_listen is None
    assert settings.udp.listen.is_loopback
    assert settings.http_listen is None


@pytest.mark.parametrize("name", ["backend", *sections()])
def test_frozen(name: str) -> None:
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        setattr(settings, name, None)
    with pytest.raises((FrozenInstanceError, AttributeError)):
        settings.pool.unheard_of = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: PoolSettings(min_workers=0),
            "pool.min_workers = 0: must be a whole number from 1 to 64",
        ),
        (
            lambda: PoolSettings(slots=True),
            "pool.slots = True: must be a whole number from 1 to 1048576",
        ),
        (
            lambda: PoolSettings(kind="process"),  # type: ignore[arg-type]
            "pool.kind = 'process': must be auto, thread or interpreter (interpreter needs Py",
        ),
        (
            lambda: AudioSettings(uplink_rate=44100),
            "audio.uplink_rate = 44100: must be 8000, 12000, 16000, 24000 or 48000",
        ),
        (
            lambda: AudioSettings(downlink_frame_ms=30),
            "audio.downlink_frame_ms = 30: must be 10, 20, 40, 60, 80, 100 or 120",
        ),
        (
            lambda: AudioSettings(bitrate=5999),
            "audio.bitrate = 5999: must be a whole number from 6000 to 510000, or none",
        ),
        (lambda: Settings(grace=-0.1), "grace = -0.1: must be a number at least 0"),
        (lambda: Settings(grace=float("nan")), "grace = nan: must be a number at least 0"),
        (lambda: Settings(grace=float("inf")), "grace = inf: must be a number at least 0"),
        (
            lambda: Settings(backend="wss://a.example"),
            "backend = 'wss://a.example': must be echo (WebSocket chat servers arrive in a later",
        ),
        (
            lambda: MqttSettings(publish_topics=("a/+",)),
            "mqtt.publish_topics = ['a/+']: must be a list; each item a topic without wildcards",
        ),
        (
            lambda: UdpSettings(public_host="tab\there"),
            r"udp.public_host = 'tab\there': must be a host name or IP address, or none",
        ),
    ],
)
def test_a_wrong_value_is_named(build: Callable[[], object], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        build()
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (
            lambda: PoolSettings(min_workers=9),
            {"pool.min_workers": "9", "pool.max_workers": "8"},
        ),
        (
            lambda: PoolSettings(slots=7),
            {"pool.slots": "7", "pool.max_workers": "8"},
        ),
        (
            lambda: PoolSettings(decode_workers=1, decode_first=False),
            {"pool.decode_workers": "1", "pool.decode_first": "False"},
        ),
        (
            lambda: ScalingSettings(load_down=70.0),
            {"scaling.load_down": "70.0", "scaling.load_up": "70.0"},
        ),
        (
            lambda: ScalingSettings(cpu_up=20.0),
            {"scaling.cpu_down": "30.0", "scaling.cpu_up": "20.0"},
        ),
        (
            lambda: ScalingSettings(latency_up=0.01),
            {"scaling.latency_down": "0.01", "scaling.latency_up": "0.01"},
        ),
        (
            lambda: UdpSettings(listen=Address("::", 8884)),
            {"udp.listen": "[::]:8884", "udp.public_host": "none"},
        ),
        (
            lambda: MqttSettings(max_outbox_bytes=60000),
            {"mqtt.max_packet_bytes": "65536", "mqtt.max_outbox_bytes": "60000"},
        ),
        (
            lambda: MqttSettings(reconnect_min=31.0),
            {"mqtt.reconnect_min": "31.0", "mqtt.reconnect_max": "30.0"},
        ),
        (
            lambda: MetricsSettings(interval=11.0),
            {"metrics.interval": "11.0", "metrics.window": "10.0"},
        ),
    ],
)
def test_values_that_contradict_each_other_are_named(
    build: Callable[[], object], named: dict[str, str]
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        build()
    assert caught.value.values == named


def test_a_wildcard_with_a_public_host_is_fine() -> None:
    UdpSettings(listen=Address("0.0.0.0", 0), public_host="gateway.local")  # noqa: S104


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:1883", "127.0.0.1", 1883),
        ("[::1]:0", "::1", 0),
        ("gateway.local:65535", "gateway.local", 65535),
        ("0.0.0.0:0", "0.0.0.0", 0),  # noqa: S104
    ],
)
def test_address_round_trip(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "1883", ":1883", "host", "host:", "host:x", "host:65536", "::1:80", "[::1]", "a b:1",
     "h:-1", "h:1:2", "h:٣", "u@h:1", "h/p:1", "h\n:1", "h:1\n"],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(SettingsError):
        Address.parse(text)


@pytest.mark.parametrize(
    ("host", "wildcard", "loopback"),
    [
        ("0.0.0.0", True, False),  # noqa: S104
        ("::", True, False),
        ("127.0.0.1", False, True),
        ("127.9.9.9", False, True),
        ("::1", False, True),
        ("localhost", False, True),
        ("192.0.2.1", False, False),
        ("example.org", False, False),
    ],
)
def test_address_knows_who_can_reach_it(host: str, wildcard: bool, loopback: bool) -> None:  # noqa: FBT001
    address = Address(host, 1)
    assert (address.is_wildcard, address.is_loopback) == (wildcard, loopback)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("mqtt://broker", BrokerUrl(tls=False, address=Address("broker", 1883))),
        ("mqtts://broker/", BrokerUrl(tls=True, address=Address("broker", 8883))),
        ("mqtt://[::1]:9", BrokerUrl(tls=False, address=Address("::1", 9))),
        (
            "mqtt://me:p%40ss%2F@broker:1",
            BrokerUrl(
                tls=False,
                address=Address("broker", 1),
                username="me",
                password=Secret("p@ss/"),
            ),
        ),
    ],
)
def test_broker_url(text: str, url: BrokerUrl) -> None:
    assert BrokerUrl.parse(text) == url
    assert BrokerUrl.parse(str(MqttSettings(url=url).url)).address == url.address


@pytest.mark.parametrize(
    "text",
    ["", "broker", "broker:1883", "http://broker", "mqtt://", "mqtt://h:0", "mqtt://h:65536",
     "mqtt://h:x", "mqtt://h/topic", "mqtt://h?x=1", "mqtt://h#x", "mqtt://[::1", "mqtt:h"],
)  # fmt: skip
def test_no_broker_url(text: str) -> None:
    with pytest.raises(SettingsError):
        BrokerUrl.parse(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mqtt://me:hunter2@broker", "mqtt://me:***@broker"),
        ("mqtt://me:hun:ter@2@broker", "mqtt://me:***@broker"),
        ("mqtt://me:hun/ter2@broker", "mqtt://me:***@broker"),
        ("mqtt://me:hun://ter2@broker", "mqtt://me:***@broker"),
        ("mqtt:/me:hunter2@broker", "mqtt:***@broker"),
        ("me:hunter2@broker", "me:***@broker"),
        ("me:hun://ter2@broker", "me:***@broker"),
        ("mqtt://me@broker:1883", "mqtt://me@broker:1883"),
        ("mqtt://broker:1883", "mqtt://broker:1883"),
        ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
        ("mqtt://broker", "mqtt://broker"),
        ("broker:1883/", "broker:1883/"),
        ("mqtt://me:hunter2", "mqtt://me:***"),
        ("mqtt://me:hunter2/", "mqtt://me:***"),
        ("mqtt://me:hunter2broker:1883", "mqtt://me:***"),
        ("mqtt://me:123456", "mqtt://me:***"),
        ("mqtt:me:hunter2", "mqtt:***"),
        ("me:hunter2", "me:***"),
        ("mqtt://[hunter2", "mqtt://[***"),
        ("mqtt://broker?password=hunter2", "mqtt://broker?***"),
        ("mqtt://me:a@broker#hunter2", "mqtt://me:***@broker#***"),
        ("mqtt://me:a@/hunter2", "mqtt://me:***@/***"),
        ("mqtt://broker/hunter2", "mqtt://broker/***"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask_url(text) == masked
    assert "hun" not in repr(masked)


def test_secrets_show_nowhere() -> None:
    settings = Settings(
        signature_key=Secret("swordfish"),
        mqtt=MqttSettings(url=BrokerUrl.parse("mqtt://me:swordfish@broker")),
    )
    url = BrokerUrl.parse("mqtt://me:swordfish@broker")
    for thing in (settings, settings.mqtt, settings.signature_key, url):
        assert "swordfish" not in f"{thing} {thing!r}"
    with pytest.raises(InvalidSetting) as caught:
        evolve(settings, signature_key="swordfish")  # type: ignore[arg-type]
    assert "swordfish" not in str(caught.value)
    with pytest.raises(SettingsError) as bad_url:
        BrokerUrl.parse("mqtt://me:swordfish@broker/path")
    assert "swordfish" not in str(bad_url.value)


def test_secret_is_compared_by_what_it_holds() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"
    assert Secret("a").reveal() == "a"
    with pytest.raises(SettingsError):
        Secret("")


def test_importing_settings_imports_nothing_heavy() -> None:
    program = (
        "import sys, trio_gateway.settings\n"
        "print(sorted({'trio', 'numpy', 'click', 'cattrs', 'typed_settings', 'structlog',"
        " 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)  # noqa: S603
    assert done.stdout.strip() == b"[]"


def test_equal_settings_are_equal_and_hashable() -> None:
    def build(**changes: Any) -> Settings:
        return Settings(pool=PoolSettings(**changes))

    assert build(min_workers=1) == build(min_workers=1) != build(min_workers=2)
    assert hash(build()) == hash(build())
