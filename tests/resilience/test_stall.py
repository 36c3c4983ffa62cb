"""The event loop stands still for half a second: nobody is judged by it, and nothing comes at once.

Where it matters what lies in a socket meanwhile, the sockets are real. The clock never is: a busy
machine has stalls of its own.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from attrs import define
from fake_pool import FakePool
from fake_wires import FakeDevice, FakeFront
from mqtt_peer import PASSWORD, Peer, RecordingSink, check_password
from served_sessions import FRAME, idle, serving
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_gateway.broker import open_broker
from trio_gateway.core.mqtt_packet import ConnAck, Connect, PingReq, PingResp, encode
from trio_gateway.sessions import Sessions
from trio_gateway.settings import (
    Address,
    AudioSettings,
    MqttSettings,
    SessionSettings,
    Settings,
    UdpSettings,
)
from trio_gateway.udp import UdpPlane, open_udp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_gateway.session import Session
    from trio_gateway.sessions import Handler

HERE = Address("127.0.0.1", 0)
STALL = 0.5
LEAD = AudioSettings().lead_frames


@pytest.fixture
def slow_clock() -> MockClock:
    """It stands still, until nothing has happened for a second: then something hangs."""
    return MockClock(autojump_threshold=1.0)


async def play_ten_seconds(session: Session) -> None:
    await session.play(np.ones(240_000, np.int16), 24000)
    await trio.sleep_forever()


@pytest.mark.parametrize("stall", [0.05, 0.1, 0.13, STALL, 3.0])
async def test_what_plays_goes_on_without_a_burst(autojump_clock: MockClock, stall: float) -> None:
    """A burst of five crashes small boards; after half a second nine frames are due."""
    async with serving(play_ten_seconds) as gateway:
        calls = [gateway.call(f"device {number}") for number in range(20)]
        for call in calls:
            call.say(1)
        await trio.sleep(2.02)
        before = [len(call.heard) for call in calls]
        autojump_clock.jump(stall)
        await trio.sleep(FRAME / 2)
        assert max(len(call.heard) - n for call, n in zip(calls, before, strict=True)) <= LEAD
        await trio.sleep(12)
        for call in calls:
            times = [frame.time for frame in call.audio.heard(gateway.sender)]
            assert len(times) == 167, "late, but none of them is lost"
            assert most_held(times) <= LEAD


def most_held(times: list[float]) -> int:
    """Frames that a device holds at most, if it plays one after the other as they come."""
    most, played_out = 0, 0.0
    for at in times:
        played_out = max(played_out, at) + FRAME
        most = max(most, round((played_out - at) / FRAME))
    return most


@define
class Line:
    """A device with a socket of its own, in this very thread."""

    device: FakeDevice
    plane: UdpPlane
    socket: socket.socket

    def send(self, *datagrams: bytes) -> None:
        """Return when they lie in the gateway's socket, unread."""
        for each in datagrams:
            self.socket.sendto(each, self.plane.address)
        ready, _, _ = select.select([self.plane._sock], [], [], 5)
        assert ready


@asynccontextmanager
async def open_line(
    handler: Handler = idle, **settings: float
) -> AsyncIterator[tuple[Sessions, Line]]:
    """A call between a fake pool and a real UDP plane; the device holds its button down."""
    pool, front = FakePool(), FakeFront()
    sessions = Sessions(Settings(sessions=SessionSettings(**settings)), pool.as_pool, cores=64)  # type: ignore[arg-type]
    udp_settings = UdpSettings(listen=HERE)
    async with (
        open_udp(udp_settings, route=sessions.route, batch=pool.batch) as udp,
        trio.open_nursery() as nursery,
    ):
        sessions.attach(control=front, audio=udp, public=udp.address)
        await nursery.start(sessions.serve, handler)
        sessions.deliver("device", {"type": "hello"})
        (answer,) = front.take()
        sessions.deliver("device", {"type": "listen", "state": "start", "mode": "realtime"})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            yield sessions, Line(FakeDevice.of(answer), udp, sock)
        nursery.cancel_scope.cancel()


# Whoever is ready when the stall ends runs in an order that Trio draws by lot: once is no proof.
@pytest.mark.parametrize(("stall", "rounds"), [(0.1, 8), (STALL, 1)])
async def test_what_a_device_says_meanwhile_is_heard_in_order_and_not_called_lost(
    slow_clock: MockClock, stall: float, rounds: int
) -> None:
    """Also what another packet had overtaken just before: its wait is over, and there it lies."""
    heard: list[int] = []
    send, receive = trio.open_memory_channel[int](1000)

    async def listen(session: Session) -> None:
        async for frame in session.audio:
            await send.send(int(frame[0]))

    async def hear(upto: int) -> None:
        with trio.fail_after(5):
            while not heard or heard[-1] < upto:
                heard.append(await receive.receive())

    async with open_line(listen) as (sessions, line):
        for round_ in range(rounds):
            values = range(1 + 12 * round_, 13 + 12 * round_)
            first, overtaken, ahead, *rest = map(line.device.say, values)
            line.send(first, ahead)
            await hear(values[0])
            line.send(overtaken, *rest)
            slow_clock.jump(stall)
            await hear(values[-1])
        (session,) = sessions.live
        link = session.link.statistics()
    assert heard == list(range(1, 12 * rounds + 1))
    assert (link.lost, link.late) == (0, 0)


async def test_a_device_that_spoke_meanwhile_is_not_idle(slow_clock: MockClock) -> None:
    async with open_line(idle_timeout=0.1) as (sessions, line):
        for value in range(8):
            line.send(line.device.say(value))
            slow_clock.jump(0.15)
            await wait_all_tasks_blocked()
            assert len(sessions.live) == 1
        slow_clock.jump(0.15)
        await wait_all_tasks_blocked()
        assert sessions.live == (), "one that is silent still is"


def unacknowledged(descriptor: int) -> int:
    """Bytes that the other end's kernel does not have yet: SIOCOUTQ, tcp(7)."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def test_a_client_whose_ping_lies_unread_is_not_gone(slow_clock: MockClock) -> None:
    settings = MqttSettings(listen=HERE, max_keepalive=0.1, keepalive_factor=1.0)
    async with open_broker(settings, sink=RecordingSink(), authenticate=check_password) as broker:
        assert broker.address is not None
        stream = await trio.open_tcp_stream(*broker.address)
        peer = Peer(stream)
        async with stream:
            connect = Connect("device", username="user", password=PASSWORD)
            assert await peer.ask(connect) == ConnAck(0)
            for _ in range(5):
                os.write(stream.socket.fileno(), encode(PingReq()))
                while unacknowledged(stream.socket.fileno()):
                    pass
                slow_clock.jump(0.15)
                with trio.fail_after(5):
                    assert await peer.receive() == PingResp()
            slow_clock.jump(0.15)
            assert await peer.receive() is None, "one that is silent still is"
