"""A terrible network between real sockets: what is heard is right to the last sample.

Which packets come in time is decided by the real clock, differently in each run. So the test notes
what the pool is asked for, finds it in what arrived, and lets libopus do the same elsewhere.
"""

from __future__ import annotations

import ctypes
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import trio
from attrs import define, field
from opus_reference import ReferenceDecoder, packets
from opuslib_next.api import libopus
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import Address, AudioSettings, MqttSettings, PoolSettings, UdpSettings
from trio_gateway.simulator.network import BadNetwork, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest
    from numpy.typing import NDArray

    from trio_gateway import Gateway, Session
    from trio_gateway.core.pcm import Samples
    from trio_gateway.workers.stream import Decoder

SPACING = 0.005  # seconds between packets; the network and the gateway's patience are as fast
FRAMES = 200
WEATHER = Weather(loss=0.2, duplicate=0.2, reorder=0.1, jitter=2 * SPACING, seed=1)
SETTINGS = Settings(
    mqtt=MqttSettings(listen=Address("127.0.0.1", 0)),
    udp=UdpSettings(listen=Address("127.0.0.1", 0)),
    pool=PoolSettings(kind="thread"),
    audio=AudioSettings(reorder_wait=SPACING),
    grace=1.0,
)


@define(eq=False)
class Relay:
    """A network between a device's socket and the gateway's, one way.

    Attributes:
        taken: Datagrams that the device gave it.
        under_way: Datagrams that it holds.
        carried: Datagrams that it gave the gateway.
    """

    network: BadNetwork
    gateway: tuple[str, int]
    taken: int = 0
    under_way: int = 0
    carried: list[bytes] = field(factory=list)

    async def serve(self, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        near, far = (trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        with near, far:
            await near.bind(("127.0.0.1", 0))
            async with trio.open_nursery() as nursery:
                task_status.started(near.getsockname())
                while True:
                    data = await near.recv(2048)
                    self.taken += 1
                    for due in self.network.admit(trio.current_time()):
                        self.under_way += 1
                        nursery.start_soon(self._carry, far, data, due)

    async def _carry(self, far: trio.socket.SocketType, data: bytes, due: float) -> None:
        await trio.sleep_until(due)
        await far.sendto(data, self.gateway)
        self.carried.append(data)
        self.under_way -= 1

    async def wait_until_idle(self, gateway: Gateway) -> None:
        """Until all that was said has been lost or has arrived."""
        while (  # noqa: ASYNC110  the real clock, and real sockets
            self.taken < FRAMES
            or self.under_way
            or gateway.statistics().sessions.up.received < len(self.carried)
        ):
            await trio.sleep(0.001)


@define(eq=False)
class NotedDecoder:
    """A decoder of the pool, and what it is asked for: how, from which packet."""

    decoder: Decoder
    asked: list[tuple[str, bytes]] = field(factory=list)

    def submit_decode(self, packet: bytes, done: Callable[[Any], None]) -> None:
        self.asked.append(("decoded", packet))
        self.decoder.submit_decode(packet, done)

    def submit_conceal(self, samples: int, done: Callable[[Any], None]) -> None:
        self.asked.append(("concealed", b""))
        self.decoder.submit_conceal(samples, done)

    def submit_recover(self, packet: bytes, samples: int, done: Callable[[Any], None]) -> None:
        self.asked.append(("recovered", packet))
        self.decoder.submit_recover(packet, samples, done)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)


def as_asked(asked: Sequence[tuple[str, bytes]]) -> NDArray[np.int16]:
    """The same, by libopus as others call it, on one thread."""
    decoder = ReferenceDecoder(16000)
    frames = []
    for how, packet in asked:
        if how == "decoded":
            frames.append(decoder.decode(packet))
        elif how == "recovered":
            frames.append(decoder.recover(packet, 960))
        else:
            frames.append(decoder.conceal(960))
    return np.concatenate(frames)


def has_copy(packet: bytes) -> bool:
    return bool(libopus.opus_packet_has_lbrr(packet, ctypes.c_int32(len(packet))))


def check_fates(
    asked: Sequence[tuple[str, bytes]], said: Sequence[bytes], carried: Sequence[bytes]
) -> None:
    """Every frame in its place, from its own packet, from the copy in the next one, or from none.

    `carried` are datagrams; their sequence is the frame's place, from 1.
    """
    arrived = {int.from_bytes(data[12:16], "big") for data in carried}
    assert len(asked) == max(arrived)
    for place, ((how, packet), own) in enumerate(zip(asked, said, strict=False)):
        behind = asked[place + 1] if place + 1 < len(asked) else ("", b"")
        if how == "decoded":
            assert place + 1 in arrived
            assert packet == own
        else:
            assert (how == "recovered") == (behind[0] == "decoded" and has_copy(behind[1]))
            assert packet == (said[place + 1] if how == "recovered" else b"")


async def test_a_terrible_network_between_real_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    said = packets(16000, FRAMES, loss_percent=20)
    heard: list[Samples] = []
    decoders: list[NotedDecoder] = []
    talking, done = trio.Event(), trio.Event()

    async def listen(session: Session) -> None:
        await session.receive()  # `listen start`; audio must not overtake it by much
        talking.set()
        async for utterance in session.utterances():
            heard.append(await utterance.collect())
            done.set()

    with trio.fail_after(15):
        async with open_gateway(SETTINGS) as gateway, trio.open_nursery() as nursery:
            decoder_of = gateway.pool.decoder

            def noted(rate: int) -> NotedDecoder:
                decoders.append(NotedDecoder(decoder_of(rate)))
                return decoders[-1]

            monkeypatch.setattr(gateway.pool, "decoder", noted)
            await nursery.start(gateway.serve, listen)
            mqtt = gateway.addresses.mqtt
            assert mqtt is not None
            async with open_device((mqtt.host, mqtt.port), "G@@@aa_bb_cc_00_00_01") as device:
                await device.hello()
                relay = Relay(BadNetwork(WEATHER, 0, "up", SPACING), device.gateway)
                device.gateway = await nursery.start(relay.serve)
                device.listen("start")
                await talking.wait()
                await device.speak(said, SPACING)
                await relay.wait_until_idle(gateway)
                device.listen("stop")
                await done.wait()
                up = gateway.statistics().sessions.up
                assert gateway.statistics().unaccounted() == {}
            nursery.cancel_scope.cancel()
    [decoder], [pcm] = decoders, heard
    check_fates(decoder.asked, said, relay.carried)
    np.testing.assert_array_equal(pcm, as_asked(decoder.asked))
    hows = Counter(how for how, _ in decoder.asked)
    assert up.received == len(relay.carried)
    assert up.skipped == 0
    assert hows == {"decoded": up.decoded, "recovered": up.recovered, "concealed": up.concealed}
    assert min(up.duplicate, *hows.values()) > 0
