"""The audio plane on loopback sockets."""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from attrs import define, evolve, field
from structlog.testing import capture_logs

from trio_gateway.core.packet import header
from trio_gateway.errors import BadPacket
from trio_gateway.settings import Address, UdpSettings
from trio_gateway.udp import MAX_DATAGRAM_BYTES, UdpPlane, open_udp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.interfaces import Address as Remote
    from trio_gateway.interfaces import DatagramReceiver

SETTINGS = UdpSettings(listen=Address("127.0.0.1", 0), batch=8)
SSRC = 7
_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
LINUX_GRANTS = int(_RMEM_MAX.read_text()) if _RMEM_MAX.exists() else None


@define
class Receiver:
    """Takes the datagrams of one ssrc."""

    got: list[tuple[bytes, Remote, float]] = field(factory=list)
    batches: list[int] = field(factory=list)
    refusal: str | None = None

    def receive_datagram_untrusted(self, data: bytes, addr: Remote, now: float) -> None:
        if self.refusal is not None:
            raise BadPacket(self.refusal)
        self.got.append((data, addr, now))

    def knows(self, addr: Remote) -> bool:
        return bool(addr)

    def route(self, ssrc: int) -> DatagramReceiver | None:
        return self if ssrc == SSRC else None

    @contextmanager
    def batch(self) -> Iterator[None]:
        before = len(self.got)
        yield
        self.batches.append(len(self.got) - before)

    async def wait_for(self, number: int) -> None:
        while len(self.got) < number:  # noqa: ASYNC110  the real clock, and a real socket
            await trio.sleep(0.001)


def datagram(number: int = 0, ssrc: int = SSRC) -> bytes:
    return header(ssrc, payload_len=1, sequence=number + 1) + b"x"


async def refused(plane: UdpPlane, number: int) -> dict[str, int]:
    while sum(plane.statistics().refused.values()) < number:  # noqa: ASYNC110  as above
        await trio.sleep(0.001)
    return plane.statistics().refused


@pytest.fixture
def device() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


async def test_datagrams_reach_the_receiver_of_their_ssrc(device: socket.socket) -> None:
    receiver = Receiver()
    with trio.fail_after(5):
        async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
            began = trio.current_time()
            device.sendto(datagram(), plane.address)
            await receiver.wait_for(1)
            [(data, addr, now)] = receiver.got
            assert (data, addr) == (datagram(), device.getsockname())
            assert began <= now <= trio.current_time()
            assert plane.statistics().received == 1


async def test_what_nobody_takes_is_counted_by_reason(device: socket.socket) -> None:
    receiver = Receiver()
    with trio.fail_after(5):
        async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
            device.sendto(b"", plane.address)
            device.sendto(bytes(15), plane.address)
            device.sendto(b"\x02" + datagram()[1:], plane.address)
            device.sendto(datagram(ssrc=8), plane.address)
            assert await refused(plane, 4) == {"short": 2, "bad_type": 1, "unknown_ssrc": 1}
            receiver.refusal = "replayed"
            device.sendto(datagram(), plane.address)
            assert (await refused(plane, 5))["replayed"] == 1
            receiver.refusal = None
            device.sendto(datagram(), plane.address)
            await receiver.wait_for(1)
            assert plane.statistics().received == 6


async def test_a_datagram_that_is_too_long_is_cut_and_so_refused_by_its_length(
    device: socket.socket,
) -> None:
    receiver = Receiver()
    with trio.fail_after(5):
        async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
            device.sendto(datagram() + bytes(5000), plane.address)
            await receiver.wait_for(1)
            assert len(receiver.got[0][0]) == MAX_DATAGRAM_BYTES


async def test_a_burst_is_read_in_batches_with_turns_for_others(device: socket.socket) -> None:
    receiver = Receiver()
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(receiver.got))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
            for number in range(100):
                device.sendto(datagram(number), plane.address)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                await receiver.wait_for(100)
                nursery.cancel_scope.cancel()
    assert [data for data, _, _ in receiver.got] == [datagram(number) for number in range(100)]
    assert max(receiver.batches) == 8
    assert len({turn for turn in turns if 0 < turn < 100}) >= 5


async def test_it_answers_from_the_port_that_it_is_reached_at(device: socket.socket) -> None:
    receiver = Receiver()
    async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
        assert plane.send(b"hello", device.getsockname())
        data, addr = await trio.to_thread.run_sync(device.recvfrom, 100)
        assert (data, addr) == (b"hello", plane.address)
        assert plane.statistics().sent == 1


@pytest.mark.parametrize(
    ("data", "to"),
    [
        (bytes(70_000), ("127.0.0.1", 9)),  # too long for UDP
        (b"x", ("127.0.0.1", 0)),  # no port
        (b"x", ("255.255.255.255", 9)),  # broadcast, which was not asked for
    ],
)
async def test_what_cannot_be_sent_is_a_counted_drop(data: bytes, to: Remote) -> None:
    receiver = Receiver()
    async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
        assert not plane.send(data, to)
        statistics = plane.statistics()
        assert (statistics.sent, statistics.send_dropped) == (0, 1)


async def test_after_it_is_closed_sending_is_a_drop_and_the_port_is_free() -> None:
    receiver = Receiver()
    async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
        pass
    assert not plane.send(b"x", ("127.0.0.1", 9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(plane.address)


async def test_an_address_that_is_taken_is_an_os_error(device: socket.socket) -> None:
    receiver = Receiver()
    settings = UdpSettings(listen=Address(*device.getsockname()))
    with pytest.raises(OSError, match="in use"):
        async with open_udp(settings, route=receiver.route, batch=receiver.batch):
            pass


async def test_an_answer_that_the_other_host_refuses_hurts_nobody(device: socket.socket) -> None:
    """The port that a device has left answers with ICMP, which the kernel may report to us."""
    receiver = Receiver()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left:
        left.bind(("127.0.0.1", 0))
        gone = left.getsockname()
    with trio.fail_after(5):
        async with open_udp(SETTINGS, route=receiver.route, batch=receiver.batch) as plane:
            for _ in range(3):
                plane.send(b"x", gone)
            device.sendto(datagram(), plane.address)
            await receiver.wait_for(1)


async def test_a_buffer_that_the_system_cuts_is_told_with_the_cure() -> None:
    receiver = Receiver()
    for asked, told in ((4096, False), (1 << 30, True)):
        settings = evolve(SETTINGS, receive_buffer_bytes=asked)
        with capture_logs() as logs:
            async with open_udp(settings, route=receiver.route, batch=receiver.batch):
                pass
        warnings = [each for each in logs if each["log_level"] == "warning"]
        assert bool(warnings) is told
    assert warnings[0]["asked_bytes"] == 1 << 30
    assert 4096 < warnings[0]["granted_bytes"] < 1 << 30
    if LINUX_GRANTS is not None:
        assert warnings[0]["granted_bytes"] == LINUX_GRANTS
    assert warnings[0]["fix"] == "sysctl -w net.core.rmem_max=1073741824"


@pytest.mark.skipif(sys.platform != "linux", reason="the counter is Linux's")
async def test_what_the_kernel_drops_is_counted(device: socket.socket) -> None:
    receiver = Receiver()
    settings = evolve(SETTINGS, receive_buffer_bytes=4096)
    with trio.fail_after(5):
        async with open_udp(settings, route=receiver.route, batch=receiver.batch) as plane:
            assert plane.statistics().kernel_dropped == 0
            for number in range(1000):  # nobody else gets a turn to read
                device.sendto(datagram(number), plane.address)
            dropped = plane.statistics().kernel_dropped
            assert dropped is not None
            assert 0 < dropped < 1000
            await receiver.wait_for(1000 - dropped)
            assert plane.statistics().kernel_dropped == dropped
            assert plane.statistics().received == 1000 - dropped
    assert plane.statistics().kernel_dropped is None
