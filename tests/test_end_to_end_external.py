"""The whole gateway with a broker that others wrote: a real mosquitto, which may go away."""

from __future__ import annotations

import numpy as np
import pytest
import trio
from attrs import evolve
from mosquitto import open_mosquitto
from opus_reference import packets
from wire_device import WireDevice, open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import Address, BrokerUrl, MqttSettings, UdpSettings

CLIENT = "GID_test@@@aa_bb_cc_00_00_01@@@uuid-1"


def settings_for(url: str) -> Settings:
    return Settings(
        mqtt=MqttSettings(url=BrokerUrl.parse(url), reconnect_min=0.05, reconnect_max=0.2),
        udp=UdpSettings(listen=Address("127.0.0.1", 0)),
        grace=1.0,
    )


async def heard_more(device: WireDevice, frames: int) -> None:
    target = len(device.heard) + frames
    while len(device.heard) < target:
        device.first_heard = trio.Event()
        await device.first_heard.wait()


@pytest.mark.parametrize("tls", [False, True], ids=["mqtt", "mqtts"])
async def test_a_call_through_mosquitto(*, tls: bool) -> None:
    with trio.fail_after(20):
        async with open_mosquitto(users={"gw": "secret"}, tls=tls) as broker:
            settings = settings_for(broker.url_for("gw", "secret"))
            if tls:
                settings = evolve(
                    settings, mqtt=evolve(settings.mqtt, broker_ca_file=broker.ca_file)
                )
            async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
                await nursery.start(gateway.serve)
                await gateway.control.wait_connected()
                assert gateway.not_ready() == []
                if not tls:  # the device's own way is plain TCP here
                    async with open_device(
                        ("127.0.0.1", broker.port),
                        CLIENT,
                        username="gw",
                        password="secret",
                        topic=f"devices/{CLIENT}/data",
                        subscribe=f"devices/p2p/{CLIENT}",
                    ) as device:
                        await device.hello()
                        device.listen("start")
                        await device.speak(packets(16000, 10))
                        device.listen("stop")
                        await device.wait_for("tts", state="stop")
                        assert len(device.heard) == 10
                nursery.cancel_scope.cancel()


async def test_a_live_call_goes_on_while_the_broker_is_away() -> None:
    with trio.fail_after(30):
        async with (
            open_mosquitto() as broker,
            open_gateway(settings_for(broker.url)) as gateway,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(gateway.serve)
            await gateway.control.wait_connected()
            async with open_device(
                ("127.0.0.1", broker.port),
                CLIENT,
                topic=f"devices/{CLIENT}/data",
                subscribe=f"devices/p2p/{CLIENT}",
            ) as device:
                await device.hello()
                device.listen("start", "realtime")
                nursery.start_soon(device.speak, packets(16000, 600), 0.06)
                await device.wait_for("tts", state="start")
                await heard_more(device, 5)
                await broker.stop()
                await heard_more(device, 15)
                assert len(gateway.sessions) == 1
                assert "the external MQTT broker is not connected" in gateway.not_ready()
                device.connected = trio.Event()
                await broker.start()
                await gateway.control.wait_connected()
                await device.connected.wait()
                assert gateway.not_ready() == []
                session = gateway.sessions[0]
                # Control works again on the same call, and not one frame was lost meanwhile.
                session.send({"type": "custom", "session_id": session.id, "back": True})
                await device.wait_for("custom", back=True)
                sequences = np.array([sequence for sequence, _, _ in device.heard])
                assert np.all(np.diff(sequences) == 1)
            nursery.cancel_scope.cancel()
