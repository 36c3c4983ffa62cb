"""Messages through an external broker: a real mosquitto, and paho's client as the device."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio
from keeping_sink import PATIENCE, KeepingSink, settings_for
from mosquitto import open_mosquitto
from paho_device import open_paho_device

from trio_gateway.mqtt import open_external_broker
from trio_gateway.settings import BrokerUrl, MqttSettings

if TYPE_CHECKING:
    from trio_gateway.core.control import Message

THREE = "GID@@@aa_bb_cc_dd_ee_ff@@@3f9c"
TWO = "GID@@@aa_bb_cc_dd_ee_ff"
LISTEN = {"type": "listen", "state": "start"}


def text(message: object) -> bytes:
    return json.dumps(message).encode()


def envelope(client_id: str, message: object) -> bytes:
    return text({"sender_client_id": client_id, "orginal_payload": message})


async def test_devices_are_heard_on_every_topic_that_names_them() -> None:
    sink = KeepingSink()
    with trio.fail_after(PATIENCE):
        async with open_mosquitto() as broker, open_paho_device(broker.port) as device:
            settings = settings_for(broker, publish_topics=("up", "site/{client_id}/up"))
            async with open_external_broker(settings, sink=sink) as front:
                await front.wait_connected()
                device.publish("up", text({"type": "nobody knows who said this"}))
                device.publish(f"devices/{THREE}/hello", text({"type": "hello"}))
                device.publish(f"devices/{THREE}/data", text(LISTEN))
                device.publish("internal/server-ingest", envelope(TWO, LISTEN))
                device.publish(f"site/{THREE}/up", text({"type": "goodbye"}))
                assert await sink.wait_for(4) == [
                    (THREE, {"type": "hello"}),
                    (THREE, LISTEN),
                    (TWO, LISTEN),
                    (THREE, {"type": "goodbye"}),
                ]
                assert front.statistics().delivered == front.statistics().received == 4


@pytest.mark.parametrize(
    ("client_id", "reply_to", "topic"),
    [
        (THREE, "auto", f"devices/p2p/{THREE}"),
        (TWO, "auto", "devices/p2p/aa_bb_cc_dd_ee_ff"),
        (THREE, "mac", "devices/p2p/aa_bb_cc_dd_ee_ff"),
        (TWO, "client_id", f"devices/p2p/{TWO}"),
        ("speaker", "auto", "devices/p2p/speaker"),
    ],
)
async def test_devices_are_reached(client_id: str, reply_to: str, topic: str) -> None:
    with trio.fail_after(PATIENCE):
        async with (
            open_mosquitto() as broker,
            open_paho_device(broker.port, topic="devices/p2p/+") as device,
            open_external_broker(
                settings_for(broker, reply_to=reply_to), sink=KeepingSink()
            ) as front,
        ):
            assert front.send(client_id, b"{}")
            assert await device.inbox.receive() == (topic, b"{}")


async def test_each_way_keeps_its_order() -> None:
    count, sink = 1000, KeepingSink()
    with trio.fail_after(PATIENCE):
        async with (
            open_mosquitto() as broker,
            open_paho_device(broker.port, topic="devices/p2p/+") as device,
            open_external_broker(settings_for(broker), sink=sink) as front,
        ):
            await front.wait_connected()
            for number in range(count):
                device.publish(f"devices/{THREE}/data", text({"n": number}))
                assert front.send(THREE, b"%d" % number)
            got = [message["n"] for _, message in await sink.wait_for(count)]
            assert got == list(range(count))
            assert [int((await device.inbox.receive())[1]) for _ in range(count)] == got


async def test_what_cannot_be_used_is_counted_and_hurts_nobody() -> None:
    class Touchy(KeepingSink):
        def deliver(self, client_id: str, message: Message) -> None:
            super().deliver(client_id, message)
            if message.get("type") == "poison":
                raise RuntimeError("a session's fault")

    sink = Touchy()
    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        async with open_mosquitto() as broker, open_paho_device(broker.port) as device:
            device.publish("devices/long-gone/hello", text({"type": "hello"}), retain=True)
            await broker.wait_log("Received PUBLISH")
            async with open_external_broker(settings_for(broker), sink=sink) as front:
                await front.wait_connected()
                device.publish("devices/x/data", b"\xff")
                device.publish("devices/x/data", b"not json")
                device.publish("devices/x/data", text("a" * 70_000))
                device.publish("devices/p2p/data", text(LISTEN))  # a downlink topic, nobody's data
                device.publish("internal/server-ingest", text(LISTEN))
                device.publish("devices/x/data", text({"type": "poison"}))
                device.publish("devices/x/data", text(LISTEN))
                await sink.wait_for(2)
                assert sink.got == [("x", {"type": "poison"}), ("x", LISTEN)]
                numbers = front.statistics()
    assert (numbers.received, numbers.retained, numbers.delivered) == (8, 1, 2)
    assert numbers.refused == {"not_utf8": 1, "not_json": 1, "too_long": 1, "bad_sender": 2}
    assert [each["client_id"] for each in logs if each["log_level"] == "error"] == ["x"]


@pytest.mark.parametrize("client_id", ["", "a/b", "#", "+", "a\0", "a\x01b", "\ud800", "a" * 300])
async def test_an_id_that_no_topic_can_carry_is_refused(client_id: str) -> None:
    settings = MqttSettings(url=BrokerUrl.parse("mqtt://127.0.0.1:1"))
    async with open_external_broker(settings, sink=KeepingSink()) as front:
        assert not front.send(client_id, b"{}")
        assert front.statistics().dropped_unaddressable == 1
        assert front.statistics().queued == 0


async def test_it_starts_without_a_broker_and_sends_when_there_is_one() -> None:
    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        async with open_mosquitto() as broker:
            await broker.stop()
            async with open_external_broker(settings_for(broker), sink=KeepingSink()) as front:
                assert not front.connected
                assert front.send(THREE, b'{"type":"tts","state":"stop"}')
                while not logs:
                    await trio.lowlevel.checkpoint()
                await broker.start()
                await front.wait_connected()
                await broker.wait_log(f"'devices/p2p/{THREE}'")
    assert "Connection refused" in logs[0]["reason"]
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["broker"] == broker.url


async def test_leaving_sends_what_is_queued_and_says_disconnect() -> None:
    with trio.fail_after(PATIENCE):
        async with open_mosquitto() as broker:
            async with open_external_broker(settings_for(broker), sink=KeepingSink()) as front:
                await front.wait_connected()
                for _ in range(200):
                    front.send(THREE, b'{"type":"goodbye"}')
            await broker.wait_log("disconnected.")
            assert sum("Received PUBLISH from trio-gateway" in line for line in broker.log) == 200
            assert not any("closed its connection" in line for line in broker.log)


async def test_asyncio_stays_inside() -> None:
    """Neither the caller nor what `deliver` starts may believe that asyncio runs."""
    found: list[object] = []

    async def look(done: trio.Event) -> None:
        found.append(asyncio._get_running_loop())
        done.set()

    with trio.fail_after(PATIENCE):
        async with (
            trio.open_nursery() as nursery,
            open_mosquitto() as broker,
            open_paho_device(broker.port) as device,
        ):
            done = trio.Event()

            class Starter(KeepingSink):
                def deliver(self, client_id: str, message: Message) -> None:
                    super().deliver(client_id, message)
                    nursery.start_soon(look, done)

            async with open_external_broker(settings_for(broker), sink=Starter()) as front:
                await front.wait_connected()
                await look(trio.Event())
                device.publish("devices/x/data", text(LISTEN))
                await done.wait()
    assert found == [None, None]
