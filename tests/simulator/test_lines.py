"""Real sockets on loopback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_gateway.simulator.lines import DatagramLines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def lines() -> AsyncIterator[DatagramLines]:
    with DatagramLines() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.run)
            yield lines
            nursery.cancel_scope.cancel()


@pytest.fixture
async def server() -> AsyncIterator[trio.socket.SocketType]:
    with trio.socket.socket(type=socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        yield server


async def test_each_line_hears_what_is_sent_to_it(
    lines: DatagramLines, server: trio.socket.SocketType
) -> None:
    heard = []
    with trio.fail_after(5):
        for number in range(20):
            send, receive = trio.open_memory_channel[bytes](10)
            heard.append(receive)
            line = await lines.open(server.getsockname(), send.send_nowait)
            line.send(b"%d" % number)
            data, address = await server.recvfrom(100)
            for repeat in range(3):
                await server.sendto(data + b"." * repeat, address)
        for number, receive in enumerate(heard):
            datagrams = [await receive.receive() for _ in range(3)]
            assert datagrams == [b"%d" % number, b"%d." % number, b"%d.." % number]


async def test_a_stranger_is_not_heard(
    lines: DatagramLines, server: trio.socket.SocketType
) -> None:
    send, receive = trio.open_memory_channel[bytes](10)
    line = await lines.open(server.getsockname(), send.send_nowait)
    line.send(b"hello")
    with trio.fail_after(5), trio.socket.socket(type=socket.SOCK_DGRAM) as stranger:
        _, address = await server.recvfrom(100)
        await stranger.sendto(b"from a stranger", address)
        await server.sendto(b"from the server", address)
        assert await receive.receive() == b"from the server"


async def test_a_closed_port_is_loss_and_no_error(lines: DatagramLines) -> None:
    with trio.socket.socket(type=socket.SOCK_DGRAM) as gone:
        await gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    line = await lines.open(address, lambda _: None)
    with trio.fail_after(5):
        while not lines.unsent:  # the refusal of one datagram is reported to a later one
            line.send(b"anybody?")
            await trio.lowlevel.checkpoint()
    line.close()


async def test_a_line_may_be_closed_by_what_it_hears(
    lines: DatagramLines, server: trio.socket.SocketType
) -> None:
    heard: list[bytes] = []

    def hang_up(data: bytes) -> None:
        heard.append(data)
        line.close()

    other = trio.Event()
    with trio.fail_after(5):
        line = await lines.open(server.getsockname(), hang_up)
        line.send(b"first")
        _, address = await server.recvfrom(100)
        await server.sendto(b"bye", address)
        await server.sendto(b"too late", address)
        second = await lines.open(server.getsockname(), lambda _: other.set())
        second.send(b"second")
        _, address = await server.recvfrom(100)
        await server.sendto(b"go on", address)
        await other.wait()
    assert heard == [b"bye"]


async def test_control_that_came_before_audio_is_read_before_it(lines: DatagramLines) -> None:
    """Also when both have been waiting: without care the order would be random."""
    order: list[bytes] = []
    heard = trio.Event()

    def hear(data: bytes) -> None:
        order.append(data)
        heard.set()

    async def read_control(stream: trio.socket.SocketType) -> None:
        order.append(await stream.recv(100))

    ours, theirs = socket.socketpair()
    # Plain sockets on the far side: nothing may run between the two messages.
    with theirs, trio.socket.from_stdlib_socket(ours) as control, udp_socket() as server:
        ours.setblocking(False)
        line = await lines.open(server.getsockname(), hear)
        line.send(b"hello")
        _, address = server.recvfrom(100)
        for _ in range(20):
            heard = trio.Event()
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_control, control)
                    await wait_all_tasks_blocked()
                    theirs.send(b"control")
                    server.sendto(b"audio", address)
                    await heard.wait()
    assert order == [b"control", b"audio"] * 20


def udp_socket() -> socket.socket:
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    return server


async def test_a_host_that_does_not_exist(lines: DatagramLines) -> None:
    with pytest.raises(OSError, match=r"."):
        await lines.open(("host.invalid", 1), lambda _: None)
