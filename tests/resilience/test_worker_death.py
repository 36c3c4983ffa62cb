"""Codec workers die under live calls, from device to device: who is not hit hears every sample."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
from mortal_workers import fate
from opus_reference import packets
from wire_device import WireDevice, open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import (
    Address,
    MqttSettings,
    PoolSettings,
    SessionSettings,
    UdpSettings,
)

if TYPE_CHECKING:
    from mortal_workers import Fate

    from trio_gateway import Gateway

CALLS = 6
FRAMES = 12
PACE = 0.02  # seconds; three times as fast as people
HERE = Address("127.0.0.1", 0)
SETTINGS = Settings(
    mqtt=MqttSettings(listen=HERE),
    udp=UdpSettings(listen=HERE),
    pool=PoolSettings(kind="thread", min_workers=2, max_workers=2),
    sessions=SessionSettings(max_reserved=None),
    grace=1.0,
)


async def talk(device: WireDevice) -> None:
    """Say a dozen frames, and hear them again."""
    device.heard.clear()
    await device.hello()
    device.listen("start")
    await device.speak(packets(16000, FRAMES), PACE)
    device.listen("stop")
    await device.wait_for("tts", state="start")
    await device.wait_for("tts", state="stop")


def opus_of(device: WireDevice) -> list[bytes]:
    return [packet for _, _, packet in device.heard]


async def strike_all_the_time(doom: Fate, gateway: Gateway, deaths: int) -> None:
    """Each when the last one's successor is there."""
    for number in range(deaths):
        doom.strike(after=number % 3)
        while gateway.pool.statistics().deaths <= number:  # noqa: ASYNC110  a thread's doing
            await trio.sleep(0.005)
        await trio.sleep(0.05)


async def test_at_most_the_frames_that_it_held_are_lost() -> None:
    with trio.fail_after(15), fate() as doom:
        async with (
            open_gateway(SETTINGS) as gateway,
            trio.open_nursery() as nursery,
            AsyncExitStack() as stack,
        ):
            assert gateway.addresses.mqtt is not None
            mqtt = gateway.addresses.mqtt.host, gateway.addresses.mqtt.port
            await nursery.start(gateway.serve)
            devices = [
                await stack.enter_async_context(
                    open_device(mqtt, f"GID@@@aa_00_00_00_00_{n:02x}@@@u")
                )
                for n in range(CALLS)
            ]
            await talk(devices[0])
            expected = opus_of(devices[0])
            assert len(expected) == FRAMES
            async with trio.open_nursery() as talking:
                for device in devices:
                    talking.start_soon(talk, device)
                talking.start_soon(strike_all_the_time, doom, gateway, 4)
            pool = gateway.pool.statistics()
            assert [session.end_reason for session in gateway.sessions] == [None] * CALLS
            sessions = gateway.statistics().sessions
            assert doom.struck() == (4, 0)
            nursery.cancel_scope.cancel()
    assert pool.deaths == 4
    assert [len(device.heard) for device in devices] == [FRAMES] * CALLS
    hit = sum(opus_of(device) != expected for device in devices)
    assert hit <= pool.concealed, "those whose frame a worker held when it died, and no other"
    assert pool.concealed <= 4 * CALLS, "of a stream it holds one frame at most"
    assert sessions.frames_down == FRAMES * (CALLS + 1)
    assert pool.dropped == 0
