"""The embedded endpoint's limits, one by one, on the virtual clock: logins, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing
from mqtt_peer import RecordingSink, open_running
from structlog.testing import capture_logs

from trio_gateway.core.mqtt_packet import ConnAck, PingReq, PingResp, Publish

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
OTHER = "GID_test@@@11_22_33_44_55_66@@@uuid"
MESSAGE = Publish("device-server", b"{}")
UNAVAILABLE = ConnAck(3)


# Logins


async def test_wrong_logins_beyond_the_rate_are_told_to_come_later_and_right_ones_are_let_in(
    autojump_clock: MockClock,
) -> None:
    async with open_running(failed_login_rate=1.0, failed_login_burst=3) as run:
        for _ in range(3):
            assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)
        assert await run.peer().connect(DEVICE, password=b"wrong") == UNAVAILABLE
        assert await run.peer().connect("+") == UNAVAILABLE
        await run.client(DEVICE)
        assert run.broker.statistics().refused == {"bad_password": 3, "failed_login_rate": 2}
        await trio.sleep(1)
        assert await run.peer().connect("+") == ConnAck(2)


async def test_a_neighbour_who_guesses_passwords_keeps_nobody_out(
    autojump_clock: MockClock,
) -> None:
    """Memory streams all have one address, as devices behind one NAT have."""

    async def guess() -> None:
        while True:
            guesser = run.peer()
            await guesser.connect(DEVICE, password=b"wrong")
            await guesser.close()
            await trio.sleep(1 / 90)

    async with open_running() as run:
        run.nursery.start_soon(guess)
        await trio.sleep(60)
        assert run.broker.statistics().refused["failed_login_rate"] > 1000
        for number in range(100):
            await run.client(f"device {number}")
            await trio.sleep(0.2)
        run.nursery.cancel_scope.cancel()


async def test_a_login_that_finds_no_room_costs_none(autojump_clock: MockClock) -> None:
    async with open_running(max_clients=1, login_rate_per_client=1e-9) as run:
        first = await run.client("first")
        for _ in range(30):
            assert await run.peer().connect("late") == UNAVAILABLE
        assert run.broker.statistics().refused == {"max_clients": 30}
        await first.close()
        await trio.testing.wait_all_tasks_blocked()
        await run.client("late")


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
