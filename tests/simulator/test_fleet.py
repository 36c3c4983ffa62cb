"""Simulated devices and the real gateway, over real MQTT and real UDP on loopback."""

from __future__ import annotations

import socket

import trio
from attrs import evolve

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import Address, MqttSettings, PoolSettings, Secret, UdpSettings
from trio_gateway.simulator import Plan, Report, Weather, simulate
from trio_gateway.simulator.caller import Caller
from trio_gateway.simulator.fleet import _failure
from trio_gateway.simulator.handset import Meters
from trio_gateway.speech import CLIPS

HERE = Address("127.0.0.1", 0)
KEY = Secret("a key")
SETTINGS = Settings(
    mqtt=MqttSettings(listen=HERE),
    udp=UdpSettings(listen=HERE),
    pool=PoolSettings(kind="thread"),
    signature_key=KEY,
)

# In realtime mode a call takes as long as the clip, 3 s: the shortest that there is.
PLAN = Plan(gateway=HERE, devices=3, seconds=0.1, ramp=0.0, mode="realtime", key=KEY)


async def simulated(plan: Plan, settings: Settings = SETTINGS) -> Report:
    with trio.fail_after(30):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            assert gateway.addresses.mqtt is not None
            report = await simulate(evolve(plan, gateway=gateway.addresses.mqtt))
            nursery.cancel_scope.cancel()
    return report


async def test_every_device_hears_back_what_it_said() -> None:
    plan = evolve(PLAN, devices=2 * len(CLIPS))
    report = await simulated(plan)
    assert report.failures == ()
    assert report.passed
    assert report.calls == report.judged == plan.devices
    assert report.similarity_min > 0.95
    assert report.hello.count == plan.devices
    assert report.frames_up == 2 * (47 + 50 + 55)
    assert report.frames_down >= report.frames_up
    assert report.lost == report.late == report.malformed == report.unexpected == 0


async def test_on_a_bad_network_it_says_what_the_network_did() -> None:
    report = await simulated(evolve(PLAN, weather=Weather(loss=0.05, jitter=0.01, seed=2)))
    assert report.network_lost > 0
    assert report.passed, report.failures


async def test_a_wrong_key_fails_every_device() -> None:
    report = await simulated(evolve(PLAN, key=Secret("another")))
    assert report.heard_back == report.calls == 0
    assert [failure.device for failure in report.failures] == [0, 1, 2]
    assert {failure.reason for failure in report.failures} == {
        "connection refused: not authorized (5)"
    }


async def test_nobody_there_is_a_report_too() -> None:
    with socket.socket() as nobody:  # bound and not listening: refused for sure
        nobody.bind(("127.0.0.1", 0))
        report = await simulate(evolve(PLAN, gateway=Address(*nobody.getsockname())))
    assert not report.passed
    assert "no connection to 127.0.0.1" in report.failures[0].reason


async def test_who_did_not_talk_is_no_success() -> None:
    # Only the gateway's address is used before run().
    caller = Caller(0, PLAN, None, Meters())  # type: ignore[arg-type]
    assert _failure(caller) == "did not get to talk"


async def test_the_ramp_spreads_the_devices() -> None:
    """Everyone is refused, so only the coming takes time."""
    plan = evolve(PLAN, key=None, devices=5, ramp=0.5)
    report = await simulated(plan)
    assert 0.4 <= report.elapsed < 5
    assert len(report.failures) == 5
