"""The embedded endpoint's limits, one by one, on the virtual clock: per address, per client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from attrs import define, field
from mqtt_peer import RecordingSink, open_running
from structlog.testing import capture_logs

from trio_gateway.broker.connection import CLOSE_TIMEOUT
from trio_gateway.broker.intake import Intake
from trio_gateway.broker.peer import Peer
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    encode,
)
from trio_gateway.settings import MqttSettings

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
OTHER = "GID_test@@@11_22_33_44_55_66@@@uuid"
MESSAGE = Publish("device-server", b"{}")
UNAVAILABLE = ConnAck(3)


@define(eq=False)
class FakeConnection:
    address: str
    ending: str | None = None
    peer: Peer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.peer = Peer(f"{self.address}:1", self.address)

    def abort(self, reason: str) -> None:
        self.ending = reason


def fill(intake: Intake, *addresses: str) -> list[FakeConnection]:
    made = [FakeConnection(address) for address in addresses]
    for each in made:
        intake.add(each)
    return made


def gone(connections: list[FakeConnection]) -> list[int]:
    return [at for at, each in enumerate(connections) if each.ending == "crowded_out"]


# Strangers


def test_a_crowded_intake_closes_the_oldest_of_the_address_that_holds_most() -> None:
    intake = Intake(MqttSettings(max_pending=4, max_pending_per_address=3))
    held = fill(intake, "device", "flood", "flood", "flood", "another")
    assert gone(held) == [1]
    held += fill(intake, "flood")  # both have as many as they may now, so it is its own again
    assert gone(held) == [1, 2]
    assert len(intake) == 4


def test_an_address_never_takes_from_another() -> None:
    intake = Intake(MqttSettings(max_pending=100, max_pending_per_address=10))
    devices = fill(intake, *[f"device {number}" for number in range(90)])
    flood = fill(intake, *["flood"] * 1000)
    assert gone(devices) == []
    assert gone(flood) == list(range(990))


def test_of_many_addresses_with_one_each_the_oldest_goes() -> None:
    intake = Intake(MqttSettings(max_pending=3, max_pending_per_address=3))
    assert gone(fill(intake, *"abcdef")) == [0, 1, 2]


def test_an_intake_forgets_who_has_left() -> None:
    intake = Intake(MqttSettings(max_pending=2, max_pending_per_address=2))
    first, second = fill(intake, "a", "b")
    intake.discard(first)
    intake.discard(first)
    assert len(intake) == 1
    third = fill(intake, "a")
    assert gone([first, second, *third]) == []


async def test_strangers_do_not_count_against_clients_nor_the_other_way(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_clients=2, max_pending=2, max_pending_per_address=2) as run:
        first = await run.client("first")
        strangers = []
        for _ in range(5):
            strangers.append(run.peer())
            await trio.testing.wait_all_tasks_blocked()
        statistics = run.broker.statistics()
        assert (statistics.connections, statistics.pending, statistics.clients) == (3, 2, 1)
        assert statistics.closed == {"crowded_out": 3}
        assert await strangers[0].receive() is None
        await run.client("second")  # crowds one out more, and is in before its own turn comes
        assert await first.ask(PingReq()) == PingResp()
        assert run.broker.statistics().closed == {"crowded_out": 4}
        assert run.broker.statistics().pending == 1


async def test_a_connection_that_is_over_counts_as_a_strangers_until_it_has_closed(
    autojump_clock: MockClock,
) -> None:
    async with open_running() as run:
        stuck = run.lockstep_peer()
        assert await stuck.connect(DEVICE) == ConnAck(0)
        assert run.broker.send(DEVICE, b"never read")
        await run.client(DEVICE)
        assert run.broker.statistics().pending == 1
        await trio.sleep(CLOSE_TIMEOUT + 0.01)
        assert run.broker.statistics().pending == 0
        assert run.broker.statistics().closed == {"taken_over": 1}


async def test_on_leaving_nobody_is_crowded_out(autojump_clock: MockClock) -> None:
    still_there = []

    async def count() -> None:
        await trio.sleep(CLOSE_TIMEOUT / 2)
        still_there.append(run.broker.statistics().connections)

    async with (
        trio.open_nursery() as nursery,
        open_running(max_pending=1, max_pending_per_address=1) as run,
    ):
        for client_id in ("a", "b", "c"):
            assert await run.lockstep_peer().connect(client_id) == ConnAck(0)
            assert run.broker.send(client_id, b"goodbye")
        nursery.start_soon(count)
    assert still_there == [3]  # waiting for them to read it


async def test_connections_per_second_from_one_address(autojump_clock: MockClock) -> None:
    async with open_running(connect_rate_per_address=2.0, connect_burst_per_address=3) as run:
        for _ in range(3):
            await run.client(DEVICE)
        for _ in range(4):
            assert await run.peer().receive() is None
        assert run.broker.statistics().turned_away == {"connect_rate_per_address": 4}
        assert run.broker.statistics().accepted == 3
        await trio.sleep(0.5)
        await run.client(DEVICE)


async def test_a_strangers_packet_is_short(autojump_clock: MockClock) -> None:
    async with open_running(max_connect_bytes=1000) as run:
        stranger = run.peer()
        # Two bytes are enough: it need not be sent to be refused.
        assert await stranger.ask(encode(Connect(DEVICE, username="u" * 1000))[:3]) is None
        assert run.broker.statistics().bad_packets == {"oversize": 1}
        device = await run.client(DEVICE)
        large = Publish("device-server", b'{"x":"%s"}' % (b"x" * 60_000))
        assert await device.ask(large, PingReq()) == PingResp()
        assert run.broker.statistics().delivered == 1


# Logins


async def test_who_failed_too_often_is_not_asked_again(autojump_clock: MockClock) -> None:
    async with open_running(failed_login_rate=1.0, failed_login_burst=3) as run:
        for _ in range(3):
            assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)
        assert await run.peer().connect(DEVICE, password=b"wrong") == UNAVAILABLE
        assert await run.peer().connect(DEVICE) == UNAVAILABLE  # unheard: right or wrong
        assert run.broker.statistics().refused == {"bad_password": 3, "failed_login_rate": 2}
        await trio.sleep(1)
        await run.client(DEVICE)


async def test_an_id_that_was_let_in_from_an_address_is_heard_from_there(
    autojump_clock: MockClock,
) -> None:
    async with open_running(failed_login_rate=1e-9, failed_login_burst=3) as run:
        known = await run.client(DEVICE)
        for _ in range(3):
            assert await run.peer().connect("+") == ConnAck(2)
        await known.close()
        assert await run.peer().connect(OTHER) == UNAVAILABLE
        await run.client(DEVICE)
        assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)


async def test_a_takeover_storm_is_slowed_and_the_connection_there_is_stays(
    autojump_clock: MockClock,
) -> None:
    async with open_running(login_rate_per_client=1.0, login_burst_per_client=3) as run:
        for _ in range(3):
            device = await run.client(DEVICE)
        for _ in range(100):
            assert await run.peer().connect(DEVICE) == UNAVAILABLE
        assert await device.ask(MESSAGE, PingReq()) == PingResp()
        assert run.broker.statistics().refused == {"login_rate_per_client": 100}
        assert run.broker.statistics().closed["taken_over"] == 2
        await run.client(OTHER)
        await trio.sleep(1)
        await run.client(DEVICE)


async def test_wrong_passwords_do_not_use_up_the_devices_logins(autojump_clock: MockClock) -> None:
    async with open_running(login_rate_per_client=1e-9, login_burst_per_client=1) as run:
        for _ in range(100):
            assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)
        await run.client(DEVICE)


async def test_clients_of_one_address_are_limited_but_one_may_come_again(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_clients_per_address=2) as run:
        await run.client("a")
        b = await run.client("b")
        assert await run.peer().connect("c") == UNAVAILABLE
        await run.client("a")
        await b.close()
        await trio.testing.wait_all_tasks_blocked()
        await run.client("c")
        assert run.broker.statistics().refused == {"max_clients_per_address": 1}


# What one client says


async def test_who_talks_too_fast_is_read_slowly_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_running(message_rate=10.0, message_burst=20) as run:
        fast, other = await run.client(DEVICE), await run.client(OTHER)
        started = trio.current_time()
        await fast.send(*[MESSAGE] * 50)
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().delivered == 20
        assert await other.ask(MESSAGE, PingReq()) == PingResp()
        assert trio.current_time() == started
        assert await fast.ask(PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 3.1, abs=0.1)
        statistics = run.broker.statistics()
        assert statistics.delivered == 51
        assert statistics.throttled == {"messages": 31}
        assert statistics.throttled_seconds == pytest.approx(3.1, abs=0.1)
        assert statistics.closed == {}


async def test_bytes_are_limited_as_well(autojump_clock: MockClock) -> None:
    async with open_running(byte_rate=1000.0, byte_burst=20_000) as run:
        device = await run.client(DEVICE)
        started = trio.current_time()
        tools = Publish("device-server", b'{"tools":"%s"}' % (b"x" * 9_000))
        assert await device.ask(tools, tools, PingReq()) == PingResp()
        assert trio.current_time() == started  # 18 kB
        assert await device.ask(tools, PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 7.1, abs=0.1)
        assert run.broker.statistics().throttled["bytes"] >= 1
        assert run.broker.statistics().delivered == 3


async def test_defaults_let_a_device_say_all_it_has_at_once(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        tools = Publish("device-server", b'{"tools":"%s"}' % (b"x" * 16_000))
        assert await device.ask(*[tools] * 15, *[MESSAGE] * 200, PingReq()) == PingResp()
        assert run.broker.statistics().throttled == {}


async def test_being_kept_waiting_is_not_silence(autojump_clock: MockClock) -> None:
    async with open_running(byte_rate=1000.0, byte_burst=16 * 1024) as run:
        device = await run.client(DEVICE, keepalive=10)
        large = Publish("device-server", b'{"x":"%s"}' % (b"x" * 60_000))
        assert await device.ask(large, PingReq()) == PingResp()  # 44 s
        assert trio.current_time() > 40
        assert run.broker.statistics().delivered == 1


async def test_who_is_kept_waiting_can_be_taken_over_at_once(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=0.001, message_burst=1) as run:
        first = await run.client(DEVICE)
        await first.send(*[MESSAGE] * 5)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        second = await run.client(DEVICE)
        assert await first.receive() is None
        assert trio.current_time() == started
        assert run.broker.statistics().delivered == 1
        # A new connection is not a new allowance.
        await second.send(MESSAGE)
        assert await second.is_silent()
        assert run.broker.statistics().delivered == 1
    assert trio.current_time() < started + 1
    assert run.broker.statistics().closed == {"taken_over": 1, "shutdown": 1}


async def test_going_through_what_is_retained_counts(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=10) as run:
        device = await run.client(DEVICE)
        await device.send(Publish("t", b"kept", retain=True))
        filters = (*((f"t/{number}/#", 0) for number in range(19)), ("t", 0))
        started = trio.current_time()
        assert await device.ask(Subscribe(1, filters)) == SubAck(1, (0,) * 20)
        assert trio.current_time() == started
        assert await device.receive() == Publish("t", b"kept", retain=True)
        assert trio.current_time() == pytest.approx(started + 12, abs=0.1)


async def test_each_copy_of_a_message_counts(autojump_clock: MockClock) -> None:
    async with open_running(message_rate=1.0, message_burst=10) as run:
        readers = [await run.client(f"reader {number}") for number in range(6)]
        for each in readers:
            await each.ask(Subscribe(1, (("news", 0),)))
        writer = await run.client("writer")
        await writer.send(Publish("news"), Publish("news"), Publish("news"))
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().published == 2  # 6 of 10; the second goes out on credit
        started = trio.current_time()
        assert await writer.ask(PingReq()) == PingResp()
        assert trio.current_time() == pytest.approx(started + 9, abs=0.1)
        assert [await each.receive() for each in readers] == [Publish("news")] * 6


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    async with open_running(send_timeout=20.0) as run:
        stuck, other = run.lockstep_peer(), await run.client(OTHER)
        assert await stuck.connect(DEVICE) == ConnAck(0)
        started = trio.current_time()
        assert run.broker.send(DEVICE, b"{}")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(19.9)
        assert run.broker.statistics().clients == 2
        await trio.sleep(0.2)
        assert run.broker.statistics().closed == {"slow_reader": 1}
        assert trio.current_time() < started + 21
        assert await other.ask(PingReq()) == PingResp()


async def test_a_client_that_takes_some_is_served(autojump_clock: MockClock) -> None:
    async with open_running(send_timeout=20.0) as run:
        slow = run.lockstep_peer()
        assert await slow.connect(DEVICE) == ConnAck(0)
        assert run.broker.send(DEVICE, bytes(64 * 1024))
        for _ in range(4):
            await trio.sleep(15)
            await slow.stream.receive_some(16 * 1024)
        assert run.broker.statistics().closed == {}


# The log


async def test_a_flood_is_a_line_a_second(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        with capture_logs() as lines:
            for _ in range(3):
                for _ in range(100):
                    await run.peer().connect(DEVICE, password=b"wrong")
                await run.peer().connect("+")
                await trio.sleep(1)
        said = [line for line in lines if line["event"] == "mqtt client refused"]
        assert [(line["reason"], line.get("suppressed")) for line in said] == [
            ("bad_password", None),
            ("client_id", None),
            ("bad_password", 99),
            ("client_id", None),
            ("bad_password", 99),
            ("client_id", None),
        ]
        assert run.broker.statistics().refused == {"bad_password": 300, "client_id": 3}


async def test_a_crash_that_a_peer_can_repeat_is_told_with_its_traceback_once(
    autojump_clock: MockClock,
) -> None:
    async with open_running(RecordingSink(), login_burst_per_client=100) as run:
        with capture_logs() as lines:
            for _ in range(50):
                device = await run.client(DEVICE)
                assert await device.ask(Publish("device-server", b'{"raise":"oh"}')) is None
        crashes = [line for line in lines if line["event"] == "mqtt connection crashed"]
        assert [(line["reason"], line["exc_info"]) for line in crashes] == [("RuntimeError", True)]
        assert run.broker.statistics().closed == {"crashed": 50}
