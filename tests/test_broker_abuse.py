"""Attacks on the embedded endpoint over real sockets, beside a device that must not notice.

127.0.0.0/8 is all loopback on Linux: an attacker has as many addresses as he likes.
"""

from __future__ import annotations

import socket
import struct
import sys
import tracemalloc
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from certificates import Authority, client_context
from mqtt_peer import Peer, RecordingSink, check_password

from trio_gateway.broker import Broker, open_broker
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
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")

VICTIM = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
ATTACKER = "127.0.0.2"
TIMEOUT = 20.0  # seconds; everything here takes less than two
UNLIMITED = 1e9


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  neither kernel nor endpoint sets an event for this
        await trio.sleep(0.001)


class AnsweringSink(RecordingSink):
    """Answers each message, as sessions would."""

    broker: Broker

    def deliver(self, client_id: str, message: dict[str, Any]) -> None:
        super().deliver(client_id, message)
        assert self.broker.send(client_id, b"answer")


class Site:
    """An endpoint, a victim that talks with it without pause, and room for attackers."""

    def __init__(
        self,
        broker: Broker,
        sink: AnsweringSink,
        nursery: trio.Nursery,
        context: ssl.SSLContext | None,
    ) -> None:
        self.broker = broker
        self.sink = sink
        self.context = context
        self.nursery = nursery
        self.round_trips = 0
        self._streams = AsyncExitStack()

    async def open(self, host: str = ATTACKER) -> Peer:
        """Connect; the connection is closed with the site, if not before."""
        address = self.broker.tls_address if self.context else self.broker.address
        assert address is not None
        tcp = await trio.open_tcp_stream(*address, local_address=host)
        await self._streams.enter_async_context(tcp)
        if self.context is None:
            return Peer(tcp)
        return Peer(
            trio.SSLStream(tcp, self.context, server_hostname="127.0.0.1", https_compatible=True)
        )

    async def aclose(self) -> None:
        await self._streams.aclose()

    async def device(self, client_id: str, host: str = "127.0.0.1", **fields: Any) -> Peer:
        device = await self.open(host)
        assert await device.connect(client_id, **fields) == ConnAck(0)
        return device

    async def live(self, victim: Peer) -> None:
        while True:
            assert await victim.ask(PingReq()) == PingResp()
            answer = await victim.ask(Publish("device-server", b"{}"))
            assert answer == Publish(f"devices/p2p/{VICTIM}", b"answer")
            self.round_trips += 1
            await trio.sleep(0.005)

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Check that the victim talks on during the block and after it, on its one connection."""
        yield
        before = self.round_trips
        await until(lambda: self.round_trips >= before + 3)
        assert [event[0] for event in self.sink.events if event[1] == VICTIM].count(
            "connected"
        ) == 1
        assert ("disconnected", VICTIM) not in self.sink.events


Files: TypeAlias = "tuple[Path, Path, ssl.SSLContext] | None"


@pytest.fixture(params=["plain", "tls"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """What an endpoint and those who come to it need for TLS; None without."""
    if request.param == "plain":
        return None
    authority = Authority(tmp_path)
    return (*authority.issue(tmp_path), client_context(authority))


@asynccontextmanager
async def open_site(files: Files = None, **settings: Any) -> AsyncIterator[Site]:
    given: dict[str, Any] = {"message_rate": UNLIMITED, "byte_rate": UNLIMITED} | settings
    anywhere = Address("127.0.0.1", 0)
    if files is None:
        given |= {"listen": anywhere}
    else:
        given |= {"listen": None, "tls_listen": anywhere}
        given |= {"tls_cert_file": files[0], "tls_key_file": files[1]}
    mqtt = MqttSettings(**given)
    sink = AnsweringSink()
    with trio.fail_after(TIMEOUT):
        async with open_broker(mqtt, sink=sink, authenticate=check_password) as broker:
            sink.broker = broker
            async with trio.open_nursery() as nursery:
                site = Site(broker, sink, nursery, files[2] if files else None)
                async with aclosing(site):
                    nursery.start_soon(site.live, await site.device(VICTIM))
                    yield site
                    nursery.cancel_scope.cancel()


async def test_500_devices_behind_one_address_come_back_at_once(files: Files) -> None:
    devices: list[Peer] = []

    async def come(number: int) -> None:
        devices.append(await site.device(f"device {number}"))

    async with open_site(files, message_rate=50.0, byte_rate=65536.0) as site:
        # The second time all the old connections are still there: a router has been restarted.
        for time in (1, 2):
            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(come, number)
            assert len(devices) == 500 * time
            assert site.broker.statistics().clients == 501
        statistics = site.broker.statistics()
        assert (statistics.refused, statistics.turned_away) == ({}, {})
        assert set(statistics.closed) <= {"taken_over"}


async def test_silent_connections_from_one_address_keep_nobody_out(files: Files) -> None:
    async with open_site(files, max_pending=100, max_pending_per_address=50) as site:
        async with site.undisturbed():
            held = [await site.open() for _ in range(300)]
            await site.device("another", "127.0.0.3")
            await site.device("behind the same address", ATTACKER)
        statistics = site.broker.statistics()
        assert statistics.pending <= 50
        assert statistics.closed["crowded_out"] >= 249
        assert await held[0].receive() is None


async def test_silent_connections_from_everywhere_keep_nobody_out(files: Files) -> None:
    async with open_site(files, max_pending=100, max_pending_per_address=50) as site:
        async with site.undisturbed():
            held = [await site.open(f"127.1.{n // 250}.{n % 250 + 1}") for n in range(500)]
            await site.device("another", "127.0.0.3")
        assert site.broker.statistics().pending <= 100
        assert site.broker.statistics().closed["crowded_out"] >= 399
        assert await held[0].receive() is None


async def test_a_flood_of_connections_is_turned_away_at_the_door() -> None:
    async with open_site(connect_rate_per_address=1e-9, connect_burst_per_address=50) as site:
        async with site.undisturbed():
            for _ in range(500):
                await (await site.open()).close()
            await site.device("another", "127.0.0.3")
        statistics = site.broker.statistics()
        # One that is reset before it is accepted has no address any more.
        turned_away = statistics.turned_away["connect_rate_per_address"]
        assert turned_away + statistics.accepted == 502
        assert statistics.accepted < 150


@pytest.mark.parametrize("addresses", [1, 200])
async def test_wrong_passwords_for_the_victims_id(files: Files, addresses: int) -> None:
    async def guess(number: int) -> None:
        guesser = await site.open(f"127.2.0.{number % addresses + 1}")
        assert await guesser.connect(VICTIM, password=b"wrong") in {ConnAck(5), ConnAck(3)}
        assert await guesser.receive() is None
        await guesser.close()

    async with open_site(files, failed_login_rate=1e-9, failed_login_burst=100) as site:
        async with site.undisturbed():
            for batch in range(8):
                async with trio.open_nursery() as nursery:
                    for number in range(50):
                        nursery.start_soon(guess, 50 * batch + number)
        refused = site.broker.statistics().refused
        assert sum(refused.values()) == 400
        assert refused["bad_password"] == (400 if addresses > 1 else 100)
        assert len(site.sink.events) == 1 + site.broker.statistics().delivered


def held_bytes(broker: Broker) -> int:
    """What all peers together make the endpoint hold for them."""
    return sum(each._parser.held_bytes + each._outbox.total_bytes for each in broker._connections)


async def test_what_strangers_send_is_not_held() -> None:
    async with open_site() as site:
        almost = encode(Connect("x", username="u" * 4000))[:-1]
        huge = encode(Connect("x", username="u" * 60_000))[:-1]
        endless = b"\x10\xff\xff\xff\x7f" + bytes(60_000)  # 256 MiB
        held = [await site.open() for _ in range(300)]
        tracemalloc.start()
        async with site.undisturbed():
            for number, each in enumerate(held):
                with suppress(trio.BrokenResourceError):
                    await each.send((almost, huge, endless)[number % 3])
            for each in held[1::3] + held[2::3]:
                with suppress(trio.BrokenResourceError):
                    assert await each.receive() is None
        await until(lambda: held_bytes(site.broker) >= 100 * len(almost))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held_bytes(site.broker) == 100 * len(almost)
        assert site.broker.statistics().pending == 100
        assert site.broker.statistics().bad_packets == {"oversize": 200}
        assert grown < 4e6  # if it held what it was sent: 12 MB


async def test_clients_that_do_not_read_are_held_little_for(files: Files) -> None:
    async with open_site(files, max_packet_bytes=16 * 1024, max_outbox_bytes=64 * 1024) as site:
        readers = []
        for number in range(20):
            readers.append(await site.device(f"reader {number}", ATTACKER))
            assert await readers[-1].ask(Subscribe(1, (("noise", 0),))) == SubAck(1, (0,))
        noisy = await site.device("noisy", ATTACKER)
        noise = encode(Publish("noise", bytes(16_000))) * 10
        async with site.undisturbed():
            # What the kernel holds for each is not ours; then the outboxes fill, to a half.
            while site.broker.statistics().dropped.get("slow_reader", 0) < 20 * 20:
                assert await noisy.ask(noise, PingReq()) == PingResp()
                assert held_bytes(site.broker) <= 20 * 32 * 1024 + 1024
        assert site.broker.send("reader 0", b"{}")  # the other half is its own


async def test_clients_that_talk_without_pause_are_not_heard_more(files: Files) -> None:
    async def chatter(number: int) -> None:
        peer = await site.device(f"chatter {number}", ATTACKER)
        with suppress(trio.BrokenResourceError):
            while True:
                await peer.send(encode(Publish("device-server", b"{}")) * 1000)

    # 500 is what the victim itself needs: it pauses 5 ms.
    async with open_site(files, message_rate=500.0, message_burst=50) as site:
        for number in range(10):
            site.nursery.start_soon(chatter, number)
        await until(lambda: site.broker.statistics().throttled.get("messages", 0) >= 100)
        heard = sum(event[0] == "message" for event in site.sink.events)
        began = trio.current_time()
        async with site.undisturbed():
            await trio.sleep(0.3)
        heard = sum(event[0] == "message" for event in site.sink.events) - heard
        assert heard < 11 * (500 * (trio.current_time() - began) + 50)


async def test_who_is_gone_before_he_is_served_harms_nobody() -> None:
    async with open_site() as site:
        assert site.broker.address is not None
        async with site.undisturbed():
            for _ in range(100):  # in one go: the endpoint sees only connections that were reset
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.connect(site.broker.address)
            await site.device("another", "127.0.0.3")
