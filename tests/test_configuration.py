from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trio_gateway.configuration import Loaded, load_settings, variable_of
from trio_gateway.errors import SettingsError
from trio_gateway.settings import Address, Secret, Settings, settings_by_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "gateway.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def load(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
) -> Loaded:
    return load_settings(config, environ=environ or {}, flags=flags)


def problems(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(config, environ, flags)
    return str(caught.value).splitlines()


def test_nothing_given_gives_the_defaults() -> None:
    loaded = load()
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert list(loaded.sources) == list(settings_by_path())


def test_each_layer_outweighs_the_ones_before(write: Write) -> None:
    file = write("[pool]\nmin_workers = 3\nmax_workers = 10\nin_flight = 0.5\nslots = 2000")
    loaded = load_settings(
        file,
        defaults={"pool.min_workers": ("here", 1), "pool.deadline": ("here", 0.2)},
        environ={
            "TRIO_GATEWAY_POOL_MAX_WORKERS": "11",
            "TRIO_GATEWAY_POOL_IN_FLIGHT": "0.6",
        },
        flags={"pool.in_flight": ("--in-flight", "0.7")},
    )
    pool = loaded.settings.pool
    assert (pool.deadline, pool.min_workers, pool.max_workers, pool.in_flight) == (0.2, 3, 11, 0.7)
    changed = {path: text for path, text in loaded.sources.items() if text != "default"}
    assert changed == {
        "pool.deadline": "here",
        "pool.min_workers": f"{file}, key pool.min_workers",
        "pool.slots": f"{file}, key pool.slots",
        "pool.max_workers": "variable TRIO_GATEWAY_POOL_MAX_WORKERS",
        "pool.in_flight": "flag --in-flight",
    }


def test_every_setting_has_its_own_variable() -> None:
    names = [variable_of(path) for path in settings_by_path()]
    assert len(set(names)) == len(names)
    assert "TRIO_GATEWAY_SIGNATURE_KEY_FILE" not in names


def test_text_becomes_what_the_setting_is() -> None:
    settings = load(
        environ={
            "TRIO_GATEWAY_GRACE": "3",
            "TRIO_GATEWAY_HTTP_LISTEN": "[::1]:8007",
            "TRIO_GATEWAY_AUDIO_BITRATE": "none",
            "TRIO_GATEWAY_AUDIO_UPLINK_RATE": "8000",
            "TRIO_GATEWAY_MQTT_PUBLISH_TOPICS": "a, b/{client_id}",
            "TRIO_GATEWAY_POOL_SWITCH_INTERVAL": "1e-3",
            "TRIO_GATEWAY_SIGNATURE_KEY": "5",
        }
    ).settings
    assert settings.grace == 3.0
    assert type(settings.grace) is float
    assert settings.http_listen == Address("::1", 8007)
    assert settings.audio.bitrate is None
    assert settings.audio.uplink_rate == 8000
    assert settings.mqtt.publish_topics == ("a", "b/{client_id}")
    assert settings.pool.switch_interval == 0.001
    assert settings.signature_key == Secret("5")


def test_none_switches_off_what_an_earlier_layer_set(write: Write) -> None:
    file = write('http_listen = "127.0.0.1:8007"')
    assert load(file).settings.http_listen is not None
    assert load(file, {"TRIO_GATEWAY_HTTP_LISTEN": "none"}).settings.http_listen is None


def test_paths_in_a_file_start_from_its_folder(write: Write, tmp_path: Path) -> None:
    file = write('[mqtt]\nbroker_ca_file = "ca.pem"')
    assert load(file).settings.mqtt.broker_ca_file == (tmp_path / "ca.pem").resolve()
    variable = {"TRIO_GATEWAY_MQTT_BROKER_CA_FILE": "ca.pem"}
    assert load(environ=variable).settings.mqtt.broker_ca_file == Path("ca.pem").resolve()


def test_the_file_may_be_named_by_a_variable(write: Write) -> None:
    file = write("grace = 1.5")
    assert load(environ={"TRIO_GATEWAY_CONFIG": str(file)}).settings.grace == 1.5
    other = {"TRIO_GATEWAY_CONFIG": "/no/such/file"}
    assert load(file, other).settings.grace == 1.5, "--config outweighs the variable"


@pytest.mark.parametrize(
    ("text", "shown", "allowed"),
    [
        ("pool.slots = 2.5", "pool.slots = 2.5", "a whole number from 1 to 1048576"),
        ("pool.slots = true", "pool.slots = True", "a whole number from 1 to 1048576"),
        ("pool.slots = '64k'", "pool.slots = '64k'", "a whole number from 1 to 1048576"),
        ("grace = true", "grace = True", "a number at least 0 and at most 86400"),
        ("grace = nan", "grace = nan", "a number at least 0 and at most 86400"),
        ("grace = [1]", "grace = [1]", "a number at least 0 and at most 86400"),
        ("backend = 5", "backend = 5", "echo (WebSocket chat servers arrive in a later release)"),
        ("udp.public_host = ''", "udp.public_host = ''", "a host name or IP address, or none"),
        ("mqtt.broker_ca_file = ''", "mqtt.broker_ca_file = ''", "the path of a file, or none"),
        ("mqtt.broker_ca_file = 7", "mqtt.broker_ca_file = 7", "the path of a file, or none"),
        ("log.level = 'loud'", "log.level = 'loud'", "debug, info, warning or error"),
        ("signature_key = 7", "signature_key = '***'", "a secret, or none"),
        ("signature_key = ''", "signature_key = '***'", "a secret, or none"),
    ],
)
def test_a_wrong_value_in_the_file_is_one_line(
    write: Write, text: str, shown: str, allowed: str
) -> None:
    file = write(text)
    path = shown.partition(" ")[0]
    assert problems(file) == [f"{shown} ({file}, key {path}): must be {allowed}"]


def test_a_wrong_variable_or_flag_is_one_line() -> None:
    allowed = "must be a whole number from 1 to 64"
    assert problems(environ={"TRIO_GATEWAY_POOL_MAX_WORKERS": "many"}) == [
        f"pool.max_workers = 'many' (variable TRIO_GATEWAY_POOL_MAX_WORKERS): {allowed}"
    ]
    assert problems(flags={"pool.max_workers": ("--workers", "0")}) == [
        f"pool.max_workers = '0' (flag --workers): {allowed}"
    ]


def test_values_that_contradict_each_other_name_both_sources(write: Write) -> None:
    file = write("[pool]\nmax_workers = 4")
    (line,) = problems(file, flags={"pool.min_workers": ("--workers", "5")})
    assert line == (
        f"pool.min_workers = 5 (flag --workers), pool.max_workers = 4 ({file}, key "
        "pool.max_workers): min_workers must not be above max_workers"
    )


def test_a_default_is_not_blamed_for_a_refused_value() -> None:
    environ = {"TRIO_GATEWAY_POOL_MAX_WORKERS": "x", "TRIO_GATEWAY_POOL_MIN_WORKERS": "20"}
    assert len(problems(environ=environ)) == 1


def test_all_mistakes_are_reported_at_once(write: Write) -> None:
    file = write("grase = 1\n[pool]\nslots = 0\n[audio]\ncomplexity = 11\n[nowhere]\nx = 1")
    lines = problems(file, {"TRIO_GATEWAY_LOG_LEVEL": "x", "TRIO_GATEWAY_LOG": "x"})
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("grase = 1", "'grase' ({file}): no such setting; did you mean grace?"),
        (
            "[pool]\nmin-workers = 1",
            "'pool.min-workers' ({file}): no such setting; did you mean pool.min_workers?",
        ),
        (
            "min_workers = 1",
            "'min_workers' ({file}): no such setting; did you mean pool.min_workers?",
        ),
        ("[zebra]\nx = 1", "'zebra' ({file}): no such setting"),
        ("pool = 4", "pool ({file}): holds settings: write [pool] and a line for each"),
    ],
)
def test_an_unknown_key_is_one_line(write: Write, text: str, line: str) -> None:
    file = write(text)
    assert problems(file) == [line.format(file=file)]


def test_an_unknown_variable_is_one_line() -> None:
    (line,) = problems(environ={"TRIO_GATEWAY_POOL_MIN_WORKER": "2"})
    assert line == (
        "'TRIO_GATEWAY_POOL_MIN_WORKER' (environment): no such variable; "
        "did you mean TRIO_GATEWAY_POOL_MIN_WORKERS?"
    )


def test_what_kubernetes_says_about_a_service_is_ignored() -> None:
    load(
        environ={
            "TRIO_GATEWAY_SERVICE_HOST": "10.0.0.1",
            "TRIO_GATEWAY_SERVICE_PORT": "1883",
            "TRIO_GATEWAY_SERVICE_PORT_MQTT": "1883",
            "TRIO_GATEWAY_PORT": "tcp://10.0.0.1:1883",
            "TRIO_GATEWAY_PORT_1883_TCP": "tcp://10.0.0.1:1883",
            "TRIO_GATEWAY_PORT_8884_UDP_ADDR": "10.0.0.1",
            "PATH": "/bin",
        }
    )
    assert problems(environ={"TRIO_GATEWAY_PORTS": "1"})


def test_a_file_that_cannot_be_read_is_one_line(write: Write, tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert problems(missing) == [f"'{missing}' (flag --config): No such file or directory"]
    assert problems(environ={"TRIO_GATEWAY_CONFIG": str(tmp_path)}) == [
        f"'{tmp_path}' (variable TRIO_GATEWAY_CONFIG): Is a directory"
    ]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert problems(binary) == [f"'{binary}' (flag --config): not the path of a TOML file in UTF-8"]
    assert len(problems(Path("a\0b"))) == 1
    assert len(problems(write(f"a = {'[' * 20_000}"))) == 1


def test_invalid_toml_names_file_and_line(write: Write) -> None:
    file = write("grace = 1\n[pool\nslots = 2")
    (line,) = problems(file)
    assert line.startswith(f"'{file}' (flag --config): not valid TOML: ")
    assert "line 2" in line


def test_key_file_in_each_layer(write: Write, tmp_path: Path) -> None:
    (tmp_path / "device.key").write_text("swordfish\n", encoding="utf-8")
    file = write('signature_key_file = "device.key"')
    absolute = str(tmp_path / "device.key")
    for loaded in (
        load(file),
        load(environ={"TRIO_GATEWAY_SIGNATURE_KEY_FILE": absolute}),
        load(flags={"signature_key_file": ("--signature-key-file", absolute)}),
    ):
        assert loaded.settings.signature_key == Secret("swordfish")
        assert "device.key" in loaded.sources["signature_key"]


def test_key_and_key_file_outweigh_each_other_by_layer_only(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from file", encoding="utf-8")
    named = str(tmp_path / "key")
    environ = {"TRIO_GATEWAY_SIGNATURE_KEY": "from variable"}
    loaded = load(environ=environ, flags={"signature_key_file": ("--signature-key-file", named)})
    assert loaded.settings.signature_key == Secret("from file")
    environ["TRIO_GATEWAY_SIGNATURE_KEY_FILE"] = named
    (line,) = problems(environ=environ)
    assert line.endswith("give either the secret or its file, not both")
    assert "from variable" not in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b" \n", "is empty, and a secret must not be"),
        (b"\xff", "must be the path of a UTF-8 text file"),
    ],
)
def test_a_bad_key_file_is_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    assert problems(flags={"signature_key_file": ("--signature-key-file", str(path))}) == [
        f"signature_key_file = '{path}' (flag --signature-key-file): {says}"
    ]


def test_a_key_file_that_is_no_path(write: Write) -> None:
    assert len(problems(write("signature_key_file = 5"))) == 1


def test_no_secret_in_any_message(write: Write) -> None:
    file = write('signature_key = ["swordfish"]\nsignature_keys = "swordfish"')
    environ = {
        "TRIO_GATEWAY_MQTT_URL": "http://me:swordfish@broker",
        "TRIO_GATEWAY_SIGNATUREKEY": "swordfish",
    }
    lines = problems(file, environ)
    assert len(lines) == 4
    assert "swordfish" not in str(lines)


def test_the_brokers_password_in_a_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("swordfish\n", encoding="utf-8")
    file = write('[mqtt]\nurl = "mqtts://me@broker"\npassword_file = "password"')
    assert load(file).settings.mqtt.password == Secret("swordfish")
    named = {"TRIO_GATEWAY_MQTT_PASSWORD_FILE": str(tmp_path / "password")}
    url = {"mqtt.url": ("--mqtt", "mqtt://me@broker")}
    assert load(environ=named, flags=url).settings.mqtt.password == Secret("swordfish")
    plain = {"TRIO_GATEWAY_MQTT_PASSWORD": "marlin"}
    assert load(file, environ=plain).settings.mqtt.password == Secret("marlin")


@pytest.mark.parametrize("url", ["none", "mqtt://broker", "mqtt://me:other@broker"])
def test_a_password_without_a_user_or_beside_another(url: str) -> None:
    environ = {"TRIO_GATEWAY_MQTT_PASSWORD": "swordfish", "TRIO_GATEWAY_MQTT_URL": url}
    (line,) = problems(environ=environ)
    assert line.endswith("set url to mqtt://USER@HOST, without a password")
    assert "swordfish" not in line


def test_secrets_that_others_can_read_are_mentioned(write: Write, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("swordfish", encoding="utf-8")
    file = write('signature_key_file = "key"\n[mqtt]\nurl = "mqtt://me:marlin@broker"')
    for mode, count in ((0o600, 0), (0o640, 0), (0o604, 2)):
        key.chmod(mode)
        file.chmod(mode)
        cautions = load(file).cautions
        assert len(cautions) == count
    assert [line.partition(" ")[0] for line in sorted(cautions)] == ["mqtt.url", "signature_key"]
    assert all("everybody on this machine can read the file" in line for line in cautions)
    (seen,) = load(flags={"mqtt.url": ("--mqtt", "mqtt://me:marlin@broker")}).cautions
    assert seen.startswith("mqtt.url (flag --mqtt): everybody on this machine can see it")
    assert not load(flags={"mqtt.url": ("--mqtt", "mqtt://me@broker")}).cautions
    assert "marlin" not in f"{seen} {cautions}"
