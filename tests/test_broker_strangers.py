"""The embedded endpoint and those who have yet to say who they are, or are no clients any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing
from mqtt_peer import open_running

from trio_gateway.broker.connection import CLOSE_TIMEOUT, STRANGER_READS
from trio_gateway.broker.peer import Peer
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    Publish,
    encode,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"


async def test_peers_are_named_as_addresses_are_written() -> None:
    for host, name in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        async with (
            listener,
            await trio.open_tcp_stream(*listener.socket.getsockname()[:2]) as stream,
            await listener.accept() as accepted,
        ):
            port = stream.socket.getsockname()[1]
            assert Peer.of(accepted).name == f"{name}:{port}"


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


async def test_connections_per_second_from_all_addresses_without_a_client(
    autojump_clock: MockClock,
) -> None:
    async with open_running(connect_rate=2.0, connect_burst=3) as run:
        for _ in range(2):
            await run.peer().connect(DEVICE, password=b"wrong")
        home = await run.client(DEVICE)
        for number in range(10):  # this address has one
            await run.client(f"device {number}")
            await run.peer().close()
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().turned_away == {}
        assert await home.ask(PingReq()) == PingResp()
    async with open_running(connect_rate=2.0, connect_burst=3) as run:
        for _ in range(3):
            await run.peer().connect(DEVICE, password=b"wrong")
        assert await run.peer().receive() is None
        assert run.broker.statistics().turned_away == {"connect_rate": 1}
        await trio.sleep(0.5)
        await run.client(DEVICE)


async def test_a_stranger_who_says_his_packet_byte_by_byte(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        stranger = run.peer()
        connect = encode(Connect(DEVICE, username="u" * 100))
        for byte in connect[: STRANGER_READS - 1]:
            await stranger.send(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().pending == 1
        await stranger.send(connect[STRANGER_READS - 1 : STRANGER_READS])
        assert await stranger.receive() is None
        assert run.broker.statistics().closed == {"dripping": 1}


async def test_a_goodbye_that_is_crowded_out_is_counted(autojump_clock: MockClock) -> None:
    async with open_running(max_pending=1, max_pending_per_address=1) as run:
        stuck = run.lockstep_peer()
        await stuck.connect(DEVICE)
        run.broker.send(DEVICE, b"goodbye")
        await stuck.stream.send_all(encode(Disconnect()))
        await trio.testing.wait_all_tasks_blocked()
        run.peer()
        await trio.testing.wait_all_tasks_blocked()
        statistics = run.broker.statistics()
        assert (statistics.pending, statistics.crowded_out) == (1, 1)
        assert statistics.closed == {"disconnect": 1}


async def test_who_is_over_is_crowded_out_before_who_has_yet_to_speak(
    autojump_clock: MockClock,
) -> None:
    for refused in (True, False):
        async with open_running(max_pending=2, max_pending_per_address=2) as run:
            silent = run.peer()
            await trio.testing.wait_all_tasks_blocked()
            over = run.lockstep_peer()
            if refused:
                assert await over.connect(DEVICE, password=b"wrong") == ConnAck(5)
            else:
                assert await over.connect(DEVICE) == ConnAck(0)
                run.broker.send(DEVICE, b"goodbye")
                await over.stream.send_all(encode(Disconnect()))
            await trio.testing.wait_all_tasks_blocked()
            assert run.broker.statistics().pending == 2
            run.peer()
            await trio.testing.wait_all_tasks_blocked()
            assert run.broker.statistics().crowded_out == 1
            assert await silent.connect("late") == ConnAck(0)


async def test_an_address_whose_last_client_has_gone_is_a_strangers_again(
    autojump_clock: MockClock,
) -> None:
    async with open_running(connect_rate=1e-9, connect_burst=2) as run:
        device = await run.client(DEVICE)
        for _ in range(5):
            assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)
        await device.close()
        await trio.testing.wait_all_tasks_blocked()
        assert await run.peer().connect(DEVICE, password=b"wrong") == ConnAck(5)
        assert await run.peer().receive() is None
        assert run.broker.statistics().turned_away == {"connect_rate": 1}


async def test_a_connection_that_is_over_crowds_nobody_out(autojump_clock: MockClock) -> None:
    async with open_running(max_pending=1, max_pending_per_address=1) as run:
        over = run.lockstep_peer()
        assert await over.connect(DEVICE) == ConnAck(0)
        run.broker.send(DEVICE, b"goodbye")
        silent = run.peer()
        await trio.testing.wait_all_tasks_blocked()
        await over.stream.send_all(encode(Disconnect()))
        await trio.testing.wait_all_tasks_blocked()
        assert run.broker.statistics().crowded_out == 1
        assert await silent.connect("late") == ConnAck(0)
