"""An external broker that is gone for a minute: calls go on, and it is found again soon after.

On the virtual clock, with a broker of a few lines instead of aiomqtt. With a real one, shorter:
test_end_to_end_external.py and test_mqtt_restart.py.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import trio
from attrs import define, field
from fake_pool import FakePool
from fake_wires import HOME, FakeDevice, FakeSender

from trio_gateway.errors import BrokerLost
from trio_gateway.mqtt import open_external_broker
from trio_gateway.mqtt.front import _check_extra
from trio_gateway.sessions import Sessions
from trio_gateway.settings import BrokerUrl, MqttSettings, SessionSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio.testing import MockClock

    from trio_gateway.mqtt import ExternalBroker
    from trio_gateway.mqtt.client import Login, Receive
    from trio_gateway.mqtt.outbox import Outgoing
    from trio_gateway.session import Session

AWAY = 60.0
SETTINGS = MqttSettings(url=BrokerUrl.parse("mqtt://broker.example"))
Absence = Literal["refuses", "swallows"]


@define(eq=False)
class Broker:
    """Takes messages, and is away at times: then it refuses connections, or says nothing at all."""

    absence: Absence = "refuses"
    is_up: bool = True
    connected_at: list[float] = field(factory=list)
    attempts: list[float] = field(factory=list)
    got: list[tuple[float, str, dict[str, Any]]] = field(factory=list)
    receive: Receive | None = None
    _lost: trio.Event = field(factory=trio.Event)

    def leave(self) -> None:
        self.is_up, self.receive = False, None
        self._lost.set()

    def come_back(self) -> None:
        self.is_up, self._lost = True, trio.Event()

    def say(self, client_id: str, **message: Any) -> None:
        """Be a device that publishes."""
        assert self.receive is not None
        self.receive(f"devices/{client_id}/data", json.dumps(message).encode(), False)

    @asynccontextmanager
    async def open_loop(self, _on_error: Callable[..., None]) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def open_session(
        self, _loop: None, login: Login, receive: Receive
    ) -> AsyncIterator[BrokerSession]:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if not self.is_up:
            if self.absence == "swallows":
                await trio.sleep(login.timeout)
            raise BrokerLost(self.absence)
        self.connected_at.append(trio.current_time())
        self.receive = receive
        yield BrokerSession(self, self._lost)


@define(eq=False)
class BrokerSession:
    """One connection with it."""

    broker: Broker
    lost: trio.Event

    @property
    def alive(self) -> bool:
        return not self.lost.is_set()

    async def subscribe(self, _filters: Sequence[str]) -> list[str]:
        await trio.lowlevel.checkpoint()
        return []

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.alive:
            raise BrokerLost("gone")
        for each in batch:
            each.handed = each.sent = True
            message = trio.current_time(), each.topic, json.loads(each.payload)
            self.broker.got.append(message)

    async def wait_lost(self) -> None:
        await self.lost.wait()
        raise BrokerLost("gone")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    _check_extra()  # imports what would warn
    monkeypatch.setattr("trio_gateway.mqtt.session.open_loop", broker.open_loop)
    monkeypatch.setattr("trio_gateway.mqtt.session.open_session", broker.open_session)
    return broker


class NoSessions:
    """A sink that hears nothing."""

    def device_connected(self, client_id: str) -> None: ...

    def device_disconnected(self, client_id: str) -> None: ...

    def deliver(self, client_id: str, message: Any) -> None: ...


@pytest.mark.parametrize("absence", ["refuses", "swallows"])
async def test_it_is_found_again_soon(
    broker: Broker, autojump_clock: MockClock, absence: Absence
) -> None:
    """Whatever the jitter, at most the longest wait after its return, and an attempt's timeout."""
    took, attempts = [], []
    broker.absence = absence
    for seed in range(40):
        async with open_external_broker(SETTINGS, sink=NoSessions(), jitter=Random(seed)) as front:
            await front.wait_connected()
            before = len(broker.attempts)
            broker.leave()
            await trio.sleep(AWAY)
            broker.come_back()
            back_at = trio.current_time()
            attempts.append(len(broker.attempts) - before)
            await front.wait_connected()
            took.append(trio.current_time() - back_at)
            assert front.statistics().failures == attempts[-1] + 1
    limit = SETTINGS.reconnect_max
    if absence == "swallows":
        limit += SETTINGS.connect_timeout
    assert max(took) <= limit
    assert max(took) > limit / 3, "or the limit says nothing"
    assert len(set(took)) == len(took), "forty gateways do not come back at once"
    assert max(attempts) <= 10, "nor do they knock all the time"


async def tell_a_long_story(session: Session) -> None:
    if session.device.text.startswith("crowd"):
        await trio.sleep_forever()
    await session.play(np.ones(24000 * 200, np.int16), 24000)


@define(eq=False)
class Caller:
    """A device that speaks and listens all the time."""

    name: str
    id: str
    audio: FakeDevice

    async def speak(self, sessions: Sessions) -> None:
        while receiver := sessions.route(self.audio.ssrc):
            receiver.receive_datagram_untrusted(self.audio.say(1), HOME, trio.current_time())
            await trio.sleep(0.06)


@asynccontextmanager
async def open_calls(
    broker: Broker, count: int
) -> AsyncIterator[tuple[ExternalBroker, Sessions, FakeSender, list[Caller]]]:
    sender = FakeSender()
    settings = Settings(sessions=SessionSettings(max_reserved=None))
    sessions = Sessions(settings, FakePool().as_pool, cores=64)
    async with (
        open_external_broker(SETTINGS, sink=sessions, jitter=Random(6)) as front,
        trio.open_nursery() as nursery,
    ):
        sessions.attach(control=front, audio=sender, public=("gateway.example", 8884))
        await nursery.start(sessions.serve, tell_a_long_story)
        await front.wait_connected()
        callers = []
        for number in range(count):
            broker.say(f"device-{number}", type="hello")
            await trio.sleep(0.001)
            answer = next(m for _, _, m in reversed(broker.got) if m["type"] == "hello")
            caller = Caller(f"device-{number}", answer["session_id"], FakeDevice.of(answer))
            nursery.start_soon(caller.speak, sessions)
            callers.append(caller)
        yield front, sessions, sender, callers
        nursery.cancel_scope.cancel()


async def test_calls_go_on_and_what_is_said_meanwhile_waits_while_it_is_worth_it(
    broker: Broker, autojump_clock: MockClock
) -> None:
    async with open_calls(broker, 8) as (front, sessions, sender, callers):
        await trio.sleep(5)
        broker.leave()
        gone_at = trio.current_time()
        live = {session.id: session for session in sessions.live}
        for second in range(int(AWAY)):
            for session in live.values():
                session.send({"type": "custom", "said": trio.current_time()})
            if second == 10:
                live.pop(callers[0].id).close()  # its goodbye will be out of date
            await trio.sleep(1)
        assert not front.connected
        broker.come_back()
        await front.wait_connected()
        back_at = trio.current_time()
        assert {session.id for session in sessions.live} == live.keys()
        await trio.sleep(1)

        ages = [at - m["said"] for at, _, m in broker.got if m["type"] == "custom"]
        assert ages, "it is back while the last ones are still worth sending"
        assert max(ages) <= SETTINGS.away_age
        said_late = int(AWAY) - (back_at - SETTINGS.away_age - gone_at)
        assert len(ages) == pytest.approx(len(live) * max(0.0, said_late), abs=len(live))
        statistics = front.statistics()
        assert statistics.dropped_stale + len(ages) == len(live) * int(AWAY) + 11 + 1
        assert statistics.dropped_full == 0

        # Control works again for the calls that were there all the time.
        told = Counter(m["type"] for at, _, m in broker.got if at >= back_at)
        broker.say(callers[1].name, type="goodbye", session_id=callers[1].id)
        await trio.sleep(0.01)
        assert Counter(m["type"] for at, _, m in broker.got if at >= back_at) == told + Counter(
            goodbye=1
        )
        # A device that missed its goodbye is told when it speaks.
        broker.say(callers[0].name, type="listen", state="start", session_id=callers[0].id)
        await trio.sleep(0.01)
        assert broker.got[-1][2] == {"type": "goodbye", "session_id": callers[0].id}

        for caller in callers[2:]:
            times = [frame.time for frame in caller.audio.heard(sender)]
            gaps = np.diff(times)[2:]
            assert gaps.max() < 0.061, "not one frame was late"
            (session,) = (each for each in sessions.live if each.id == caller.id)
            link = session.link.statistics()
            assert (link.lost, link.late, link.skipped) == (0, 0, 0)
            assert link.delivered == caller.audio.sequence


async def test_all_devices_say_hello_when_it_is_back(
    broker: Broker, autojump_clock: MockClock
) -> None:
    """At once, which is what the broker's restart makes them do. Each gets one answer, in turn."""
    names = [f"crowd-{number}" for number in range(500)]
    async with open_calls(broker, 4) as (front, sessions, sender, callers):
        for name in names:
            broker.say(name, type="hello")
        await trio.sleep(1)
        broker.leave()
        await trio.sleep(10)
        broker.come_back()
        await front.wait_connected()
        old = {session.device.text: session.id for session in sessions.live}
        seen, began = len(broker.got), trio.current_time()
        for name in names:
            broker.say(name, type="hello")
        await trio.sleep(10)
        told: dict[str, list[Any]] = {name: [] for name in names}
        for at, topic, message in broker.got[seen:]:
            assert at == pytest.approx(began, abs=0.001)
            told[topic.removeprefix("devices/p2p/")].append(message)
        for name in names:
            goodbye, hello = told[name]
            assert (goodbye["type"], goodbye["session_id"]) == ("goodbye", old[name])
            assert (hello["type"], hello["session_id"] != old[name]) == ("hello", True)
        assert len(sessions.live) == len(names) + len(callers)
        for caller in callers:
            gaps = np.diff([frame.time for frame in caller.audio.heard(sender)])[2:]
            assert gaps.max() < 0.061
