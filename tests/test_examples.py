"""The example programs, run as their users run them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import trio
from attrs import evolve
from example_programs import EXAMPLES, load
from opus_reference import ReferenceDecoder, packets
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import Address

if TYPE_CHECKING:
    from pathlib import Path

    from wire_device import WireDevice


async def say_something(device: WireDevice, frames: int) -> None:
    await device.hello()
    device.listen("start")
    await device.speak(packets(16000, frames))
    device.listen("stop")
    await device.wait_for("tts", state="stop")


async def test_the_parrot_speaks_faster_than_it_hears() -> None:
    settings = Settings()
    any_port = Address("127.0.0.1", 0)
    settings = evolve(
        settings,
        mqtt=evolve(settings.mqtt, listen=any_port),
        udp=evolve(settings.udp, listen=any_port),
    )
    with trio.fail_after(10):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve, load("parrot").parrot)
            mqtt = gateway.addresses.mqtt
            assert mqtt is not None
            async with open_device((mqtt.host, mqtt.port), "G@@@aa_bb_cc_dd_ee_ff@@@u") as device:
                await say_something(device, 10)
                assert len(device.heard) == 8
            nursery.cancel_scope.cancel()


async def test_the_talking_clock_strikes_for_a_device(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, str(EXAMPLES / "embedded.py"), "--mqtt-port", "0"]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                trio.run_process, [*command, "--ready-file", str(ready), "--seconds", "15"]
            )
            while not ready.exists():  # noqa: ASYNC110  another process: its file is all there is
                await trio.sleep(0.02)
            host, _, port = json.loads(ready.read_text())["mqtt"].rpartition(":")
            async with open_device((host, int(port)), "G@@@aa_bb_cc_dd_ee_ff@@@u") as device:
                await say_something(device, 5)
                ear = ReferenceDecoder(24000)
                pcm = np.concatenate([ear.decode(packet) for _, _, packet in device.heard])
                assert len(pcm) >= 12000, "one stroke is half a second"
                assert np.abs(pcm[:4000].astype(int)).max() > 3000
            assert process.returncode is None
            nursery.cancel_scope.cancel()
