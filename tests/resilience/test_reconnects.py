"""Devices that come back: one of them every second, or all of them at once."""

from __future__ import annotations

import math
import resource
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from light_device import device_name, open_light_device
from opus_reference import packets
from served_sessions import FRAME, serving
from trio.testing import wait_all_tasks_blocked
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.backends.echo import echo
from trio_gateway.settings import (
    Address,
    MqttSettings,
    PoolSettings,
    SessionSettings,
    UdpSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_pool import FakePool, FakeStream
    from served_sessions import Call, FakeGateway
    from trio.testing import MockClock

    from trio_gateway.session import Session

CALM = 20
RECONNECTS = 60
DEVICES = 500
PATIENCE = 10.0  # seconds that a device waits for the answer to its hello (firmware)


def open_streams(pool: FakePool) -> list[FakeStream]:
    return [stream for stream in pool.streams if not stream.closed]


async def handler(session: Session) -> None:
    if session.device.text == "restless":
        await echo(session)
    async for _ in session.audio:
        pass


async def come_and_go(gateway: FakeGateway, *, disconnects: bool) -> None:
    """Be cut off in the middle of a word, or of an answer."""
    for number in range(RECONNECTS):
        call = gateway.call("restless")
        call.listen("start")
        call.say(*[9000] * 5)
        if number % 2:
            call.listen("stop")
        await trio.sleep(1)
        if disconnects:
            gateway.sessions.device_disconnected("restless")
        del gateway.front.sent[:]
    gateway.sessions.device_disconnected("restless")


async def talk(call: Call) -> None:
    call.listen("start", "realtime")
    for _ in range(int(RECONNECTS / FRAME)):
        call.say(9000)
        await trio.sleep(FRAME)


@pytest.mark.parametrize("disconnects", [True, False])
async def test_one_that_comes_back_every_second(
    autojump_clock: MockClock, *, disconnects: bool
) -> None:
    """Twenty others talk on beside it, and it leaves nothing behind."""
    async with serving(handler) as gateway:
        calls = [gateway.call(f"calm {number}") for number in range(CALM)]
        assert len(open_streams(gateway.pool)) == 2 * CALM
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(come_and_go, gateway, disconnects=disconnects))
            for call in calls:
                nursery.start_soon(talk, call)
        await wait_all_tasks_blocked()

        for call in calls:
            link = call.session.link.statistics()
            assert (link.delivered, link.lost, link.late) == (call.audio.sequence, 0, 0)
        check_nothing_is_left_but(gateway, calls)


def check_nothing_is_left_but(gateway: FakeGateway, calls: list[Call]) -> None:
    sessions = gateway.sessions
    assert {session.device.text for session in sessions.live} == {c.client_id for c in calls}
    assert len(open_streams(gateway.pool)) == 2 * len(calls), "decoders and encoders are closed"
    assert len(sessions._by_ssrc) == len(calls)
    assert sessions._nursery is not None
    assert len(sessions._nursery.child_tasks) == len(calls) + 1, "and the timers"
    scheduled = [each for _, entry, each in sessions._timers._heap if each.entry == entry]
    assert len(scheduled) == len(calls)
    assert all(timer.deadline < math.inf for timer in scheduled)


def storm_settings() -> Settings:
    here = Address("127.0.0.1", 0)
    return Settings(
        mqtt=MqttSettings(listen=here),
        udp=UdpSettings(listen=here),
        pool=PoolSettings(kind="thread"),
        # More calls than this machine could encode for at the same time: they are quiet.
        sessions=SessionSettings(max_reserved=None),
        grace=1.0,
    )


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Both ends of all connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * DEVICES + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_five_hundred_come_at_once(many_descriptors: None) -> None:
    """As after a restart of the gateway, each from an address of its own; two calls talk on."""
    took: list[float] = []
    sessions: set[str] = set()
    all_here = trio.Event()

    async def come(number: int) -> None:
        began = trio.current_time()
        address = f"127.1.{1 + number // 250}.{1 + number % 250}"
        async with open_light_device(mqtt, device_name(number), address=address) as device:
            sessions.add((await device.hello())["session_id"])
            took.append(trio.current_time() - began)
            assert [message["type"] for message in device.passed] == ["hello"]
            if len(took) == DEVICES:
                all_here.set()
            await all_here.wait()

    with trio.fail_after(2 * PATIENCE):
        async with (
            open_gateway(storm_settings()) as gateway,
            trio.open_nursery() as nursery,
            AsyncExitStack() as stack,
        ):
            assert gateway.addresses.mqtt is not None
            mqtt = gateway.addresses.mqtt.host, gateway.addresses.mqtt.port
            await nursery.start(gateway.serve)
            talkers = [
                await stack.enter_async_context(open_device(mqtt, device_name(DEVICES + number)))
                for number in range(2)
            ]
            for talker in talkers:
                await talker.hello()
                talker.listen("start", "realtime")
                nursery.start_soon(talker.speak, packets(16000, 200), FRAME)
            await trio.sleep(0.3)
            async with trio.open_nursery() as coming:
                for number in range(DEVICES):
                    coming.start_soon(come, number)
            await trio.sleep(0.3)
            statistics = gateway.statistics()
            for session in gateway.sessions:
                link = session.link.statistics()
                assert (link.lost, link.late, link.skipped) == (0, 0, 0)
            delivered = sum(each.link.statistics().delivered for each in gateway.sessions)
            assert delivered == pytest.approx(sum(each.sequence for each in talkers), abs=4)
            nursery.cancel_scope.cancel()
    assert max(took) < PATIENCE
    assert len(sessions) == DEVICES
    assert statistics.control.connected == DEVICES + 2
    assert statistics.sessions.opened == DEVICES + 2
    assert statistics.sessions.refused == {}
    assert statistics.pool.dropped == 0
