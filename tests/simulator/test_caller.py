"""One device against a gateway in memory, on a clock that jumps."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import evolve
from fake_gateway import FRAME, FakeGateway, Fault, Surroundings
from trio.testing import MockClock, memory_stream_pair

from trio_gateway.core.identity import verify_untrusted
from trio_gateway.core.packet import parse_datagram_untrusted
from trio_gateway.errors import GatewayError
from trio_gateway.settings import Address, Secret
from trio_gateway.simulator.caller import Caller, DeviceFailed
from trio_gateway.simulator.handset import Meters
from trio_gateway.simulator.mqtt_client import ConnectionLost
from trio_gateway.simulator.network import Weather
from trio_gateway.simulator.plan import HELLO_TIMEOUT, REPLY_TIMEOUT, Plan
from trio_gateway.simulator.verify import judge
from trio_gateway.simulator.voice import voice

PLAN = Plan(gateway=Address("127.0.0.1", 1), seconds=1.0, weather=Weather(seed=1))


async def live(
    gateway: FakeGateway, plan: Plan = PLAN, number: int = 0
) -> tuple[Caller, Meters, Surroundings]:
    """Run one device to its end."""
    meters, surroundings = Meters(), Surroundings(gateway)
    caller = Caller(number, plan, surroundings, meters)
    ours, theirs = memory_stream_pair()
    failure: GatewayError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(surroundings.timers.run)
        nursery.start_soon(gateway.serve, theirs)
        try:
            await caller.run_on(ours, trio.current_time() + plan.seconds)
        except GatewayError as error:
            failure = error
        await trio.sleep(0.1)  # the gateway reads what was said last
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return caller, meters, surroundings


async def test_it_says_its_clip_on_an_absolute_clock(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    await live(gateway, number=1)
    times = [time for time, _ in gateway.heard]
    spoken = voice(1)
    assert len(times) == len(spoken.packets)
    for index, time in enumerate(times):
        assert time == pytest.approx(times[0] + index * FRAME, abs=1e-6)
    sequences = [parse_datagram_untrusted(data).sequence for _, data in gateway.heard]
    assert sequences == list(range(1, len(times) + 1))
    assert gateway._opus == list(spoken.packets)


async def test_it_speaks_as_the_firmware_does(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    await live(gateway)
    assert set(gateway.topics) == {"device-server"}
    said = [(m["type"], m.get("state"), m.get("session_id")) for m in gateway.said]
    assert said == [
        ("hello", None, None),
        ("listen", "start", "s"),
        ("listen", "stop", "s"),
        ("goodbye", None, "s"),
    ]


async def test_it_hears_back_what_it_said(autojump_clock: MockClock) -> None:
    caller, meters, surroundings = await live(FakeGateway(delay=0.25))
    (call,) = caller.calls
    assert call.finished
    assert call.playback is not None
    assert call.playback.sequence() == list(voice(0).packets)
    await judge(caller.calls)
    assert call.similarity == pytest.approx(1)
    assert meters.response.summary(0).max == pytest.approx(0.25, abs=0.001)
    assert meters.jitter.count == len(voice(0).packets) - 4
    assert meters.jitter.sigma == pytest.approx(0, abs=1e-6)
    assert surroundings.closed


async def test_it_goes_on_until_the_time_is_over(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    caller, _, _ = await live(FakeGateway(), evolve(PLAN, seconds=30.0))
    assert caller.call_count == len(caller.calls) == 4, "of 6 s each, and a pause"
    assert trio.current_time() - began < 31


async def test_of_many_calls_it_keeps_the_last(autojump_clock: MockClock) -> None:
    caller, _, _ = await live(FakeGateway(), evolve(PLAN, seconds=150.0))
    assert caller.call_count > 20
    assert len(caller.calls) == 16


async def test_realtime_it_talks_and_listens_at_once(autojump_clock: MockClock) -> None:
    gateway = FakeGateway(delay=0.0)
    _, meters, _ = await live(gateway, evolve(PLAN, mode="realtime"))
    # This gateway answers only when all was said, so that is what a frame's round trip is.
    assert meters.round_trip.summary(0).max == pytest.approx(46 * FRAME, abs=0.1)


async def test_auto_the_microphone_stays_open_until_the_reply(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    with pytest.raises(DeviceFailed, match="no reply"):  # nobody says when it has spoken
        await live(gateway, evolve(PLAN, mode="auto"))
    seconds = len(gateway.heard) * FRAME
    assert seconds == pytest.approx(len(voice(0).packets) * FRAME + REPLY_TIMEOUT, abs=0.2)
    assert [m["type"] for m in gateway.said] == ["hello", "listen"]


async def test_its_credentials_are_right(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    await live(gateway, evolve(PLAN, key=Secret("key")), number=0x0A0B)
    connect = gateway.connect
    assert connect is not None
    assert connect.client_id.startswith("GID_simulated@@@02_00_00_00_0a_0b@@@")
    verify_untrusted(b"key", connect.client_id, connect.username, connect.password)


async def test_without_a_key_it_sends_no_password(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    await live(gateway)
    assert gateway.connect is not None
    assert gateway.connect.password is None


@pytest.mark.parametrize(
    ("fault", "error", "text", "after"),
    [
        ("silent", DeviceFailed, "no answer to hello within 10 s", HELLO_TIMEOUT),
        ("refuse", DeviceFailed, r"goodbye from the gateway \(busy: no room\)", 0),
        ("deaf", DeviceFailed, "no reply to what was said within 10 s", REPLY_TIMEOUT),
        ("hang_up", ConnectionLost, "connection", 0),
        ("dismiss", DeviceFailed, "goodbye from the gateway", 0),
        ("endless", DeviceFailed, "a reply without end", REPLY_TIMEOUT),
    ],
)
async def test_what_the_gateway_does_wrong_is_told(
    autojump_clock: MockClock, fault: Fault, error: type[Exception], text: str, after: float
) -> None:
    began = trio.current_time()
    with pytest.raises(GatewayError, match=text) as caught:
        await live(FakeGateway(fault=fault))
    assert isinstance(caught.value, (error, DeviceFailed))
    assert after <= trio.current_time() - began < after + 10


async def test_something_else_is_not_what_it_said(autojump_clock: MockClock) -> None:
    caller, _, _ = await live(FakeGateway(fault="shuffle"))
    await judge(caller.calls)
    assert caller.calls[0].similarity < 0.3


@pytest.mark.parametrize(
    "weather",
    [
        Weather(loss=0.1, seed=3),
        Weather(reorder=0.2, seed=3),
        Weather(jitter=0.04, seed=3),
        Weather(loss=0.05, reorder=0.05, jitter=0.02, seed=3),
    ],
    ids=["loss", "reorder", "jitter", "all"],
)
async def test_the_bad_network_is_the_same_every_time(
    autojump_clock: MockClock, weather: Weather
) -> None:
    async def run() -> tuple[Any, ...]:
        gateway = FakeGateway()
        caller, _, _ = await live(gateway, evolve(PLAN, weather=weather))
        counters = caller.device.counters
        sequences = [parse_datagram_untrusted(data).sequence for _, data in gateway.heard]
        # In each direction what was sent is what came, what was lost, and what was too late.
        up, down = caller.handset.up.statistics(), caller.handset.down.statistics()
        assert up.passed == len(sequences) == counters.up - up.lost
        assert down.passed == counters.down + counters.late + counters.unexpected
        return sequences, counters, up, down, caller.calls[0].damaged

    first = await run()
    assert await run() == first
    sequences, _, up, down, damaged = first
    assert (sequences != sorted(sequences)) == (weather.reorder > 0)
    assert bool(up.lost) == (weather.loss > 0)
    assert damaged == up.lost + up.held + down.lost + down.held


async def test_no_connection_is_told(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    with trio.socket.socket() as nobody:  # bound and not listening: refused for sure
        await nobody.bind(("127.0.0.1", 0))
        plan = evolve(PLAN, gateway=Address(*nobody.getsockname()))
        caller = Caller(0, plan, Surroundings(gateway), Meters())
        await caller.run(trio.current_time() + 1)
    assert caller.failure.startswith(f"no connection to {plan.gateway}")
