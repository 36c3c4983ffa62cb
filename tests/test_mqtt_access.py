"""How an external broker is reached: passwords, TLS, ACLs, what is missing; and what is logged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
import trio
from keeping_sink import PATIENCE, KeepingSink, settings_for
from mosquitto import open_mosquitto
from paho_device import open_paho_device

import trio_gateway.mqtt
from trio_gateway.broker import open_broker
from trio_gateway.errors import BrokerUnavailable
from trio_gateway.mqtt import open_external_broker
from trio_gateway.settings import Address, BrokerUrl, MqttSettings

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path


def errors(logs: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [each for each in logs if each["log_level"] == "error"]


def url_of(port: int, *, tls: bool = False) -> BrokerUrl:
    return BrokerUrl(tls=tls, address=Address("127.0.0.1", port))


def everybody(_client_id: str, _username: str | None, _password: bytes | None) -> None:
    """Let them in."""


async def test_a_broker_with_passwords() -> None:
    with trio.fail_after(PATIENCE):
        async with open_mosquitto(users={"gate": "p@ss:w/rd"}) as broker:
            settings = settings_for(broker, url=broker.url_for("gate", "p%40ss%3Aw%2Frd"))
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await front.wait_connected()


async def test_a_wrong_password_is_named_never_shown_and_forgiven_once_it_is_right() -> None:
    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        async with open_mosquitto(users={"gate": "other"}) as broker:
            settings = settings_for(broker, url=broker.url_for("gate", "s3cret"))
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await broker.wait_log("not authorised")
                assert not front.connected
                broker.set_users({"gate": "s3cret"})
                await front.wait_connected()
                assert "s3cret" not in repr(vars(front))
    assert {each["reason"] for each in errors(logs)} == {"refused: Not authorized"}
    assert "s3cret" not in repr(logs)


async def test_refused_subscriptions_are_named() -> None:
    """By our own endpoint, which lets no client hear other devices, and knows us for one."""

    class Indifferent(KeepingSink):
        def device_connected(self, client_id: str) -> None:
            pass

        device_disconnected = device_connected

    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        here = MqttSettings(listen=Address("127.0.0.1", 0))
        async with open_broker(here, sink=Indifferent(), authenticate=everybody) as broker:
            assert broker.address is not None
            settings = MqttSettings(url=url_of(broker.address[1]))
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await front.wait_connected()
    assert {each["filter"] for each in errors(logs)} == {
        "internal/server-ingest",
        "devices/+/hello",
        "devices/+/data",
    }


async def test_tls_both_ways() -> None:
    count, sink = 100, KeepingSink()
    with trio.fail_after(PATIENCE):
        async with (
            open_mosquitto(tls=True) as broker,
            open_paho_device(broker.port, topic="devices/p2p/x", ca_file=broker.ca_file) as device,
            open_external_broker(
                settings_for(broker, broker_ca_file=broker.ca_file), sink=sink
            ) as front,
        ):
            await front.wait_connected()
            for number in range(count):
                device.publish("devices/x/data", b'{"n":%d}' % number)
                front.send("x", b"%d" % number)
            got = [message["n"] for _, message in await sink.wait_for(count)]
            assert got == list(range(count))
            assert [int((await device.inbox.receive())[1]) for _ in range(count)] == got


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        async with (
            open_mosquitto(tls=True) as broker,
            open_external_broker(settings_for(broker), sink=KeepingSink()) as front,
        ):
            while not logs:
                await trio.lowlevel.checkpoint()
            assert not front.connected
    assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["reason"]


async def test_a_server_that_hangs_up_is_tried_again_without_waiting_for_its_answer() -> None:
    answers = 0
    again = trio.Event()

    async def hang_up(_stream: trio.SocketStream) -> None:
        nonlocal answers
        answers += 1
        if answers > 1:
            again.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        settings = MqttSettings(
            url=url_of(listener.socket.getsockname()[1]),
            connect_timeout=60,
            reconnect_min=0.01,
        )
        with trio.fail_after(PATIENCE):
            async with open_external_broker(settings, sink=KeepingSink()):
                await again.wait()
        nursery.cancel_scope.cancel()


async def test_leaving_does_not_wait_for_a_thread_that_connects() -> None:
    accepted, hung_up = trio.Event(), trio.Event()

    async def say_nothing(stream: trio.SocketStream) -> None:
        accepted.set()
        await stream.receive_some(1)  # the client's half of a handshake that goes no further
        await hung_up.wait()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, say_nothing, [listener])
        settings = MqttSettings(url=url_of(port, tls=True), connect_timeout=60)
        with trio.fail_after(PATIENCE):
            async with open_external_broker(settings, sink=KeepingSink()):
                await accepted.wait()
        hung_up.set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("library", ["aiomqtt", "trio_asyncio"])
async def test_a_missing_extra_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in ("client", "session"):
        monkeypatch.delitem(sys.modules, f"trio_gateway.mqtt.{name}", raising=False)
        monkeypatch.delattr(trio_gateway.mqtt, name, raising=False)
    with pytest.raises(BrokerUnavailable, match='the extra "external"'):
        async with open_external_broker(
            MqttSettings(url=BrokerUrl.parse("mqtt://localhost")), sink=KeepingSink()
        ):
            pass


async def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"mqtt\.url"):
        async with open_external_broker(MqttSettings(), sink=KeepingSink()):
            pass
    missing = MqttSettings(url=url_of(1, tls=True), broker_ca_file=tmp_path / "missing.pem")
    with pytest.raises(BrokerUnavailable, match=r"missing\.pem"):
        async with open_external_broker(missing, sink=KeepingSink()):
            pass
