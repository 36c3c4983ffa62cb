"""A Trio program with tasks of its own that embeds the gateway: a talking clock.

Who speaks to a device hears as many strokes of a gong as the minute's last digit says (ten for 0),
and all devices hear one stroke every ten seconds. `--ready-file` and `--seconds` are for scripts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio

from trio_gateway import Gateway, Session, Settings, open_gateway
from trio_gateway.errors import SessionClosed
from trio_gateway.run import write_ready_file
from trio_gateway.settings import Address, MqttSettings, UdpSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 24000


def gong(strokes: int) -> NDArray[np.float32]:
    """A decaying chord for each stroke, half a second apart."""
    seconds = np.arange(RATE // 2, dtype=np.float32) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (392.0, 523.3, 659.3))
    return np.tile((0.2 * chord * np.exp(-6 * seconds)).astype(np.float32), strokes)


async def tell_time(session: Session) -> None:
    """The gateway's side: one task for each call."""
    async for utterance in session.utterances():
        await utterance.collect()
        await session.play(gong(time.localtime().tm_min % 10 or 10), rate=RATE)


async def strike(gateway: Gateway) -> None:
    """The program's own side: reaches into all live calls."""
    while True:
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            for session in gateway.sessions:
                nursery.start_soon(strike_one, session)


async def strike_one(session: Session) -> None:
    """One stroke, unless the call ends first."""
    try:
        await session.play(gong(1), rate=RATE)
    except SessionClosed:
        print(f"{session.device.text} hung up")


async def main(port: int, seconds: float, ready_file: Path | None) -> None:
    """Run everything under one nursery."""
    settings = Settings(
        mqtt=MqttSettings(listen=Address("127.0.0.1", port)),
        udp=UdpSettings(listen=Address("127.0.0.1", 0)),
    )
    with trio.move_on_after(seconds):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve, tell_time)
            nursery.start_soon(strike, gateway)
            print(f"a talking clock on MQTT {gateway.addresses.mqtt}; Ctrl-C ends")
            if ready_file is not None:
                write_ready_file(ready_file, gateway)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt-port", type=int, default=1883)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--ready-file", type=Path)
    arguments = parser.parse_args()
    trio.run(main, arguments.mqtt_port, arguments.seconds, arguments.ready_file)
