"""The embedded endpoint: how a connection ends, for the peer and for everybody else."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from attrs import define
from certificates import Authority, client_context
from mqtt_peer import PASSWORD, Peer, RecordingSink, check_password, open_running
from structlog.testing import capture_logs

from trio_gateway.broker import Broker, open_broker
from trio_gateway.broker.connection import CLOSE_TIMEOUT
from trio_gateway.core.mqtt_packet import ConnAck, Connect, PingReq, PingResp, Publish, encode
from trio_gateway.core.mqtt_types import Will
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
PATIENCE = 20.0


@define
class Port:
    """A port of an endpoint, with TLS or without, and how to get there."""

    authority: Authority
    tls: bool

    def settings(self, **changes: Any) -> MqttSettings:
        anywhere = Address("127.0.0.1", 0)
        if not self.tls:
            return MqttSettings(listen=anywhere, **changes)
        certificate, key = self.authority.issue(self.authority.file.parent)
        return MqttSettings(
            listen=None, tls_listen=anywhere, tls_cert_file=certificate, tls_key_file=key, **changes
        )

    async def open(self, broker: Broker) -> tuple[Peer, trio.SocketStream]:
        """A peer, and the TCP stream below; with the smallest buffers that there are."""
        address = broker.tls_address if self.tls else broker.address
        assert address is not None
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(address)
        tcp = trio.SocketStream(sock)
        if not self.tls:
            return Peer(tcp), tcp
        context = client_context(self.authority)
        tls = trio.SSLStream(tcp, context, server_hostname="127.0.0.1", https_compatible=True)
        return Peer(tls), tcp


@pytest.fixture(params=["plain", "tls"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Port:
    return Port(Authority(tmp_path), request.param == "tls")


async def test_the_goodbye_reaches_a_client_that_has_said_more_than_was_read(port: Port) -> None:
    settings = port.settings(message_rate=5.0, message_burst=5, byte_rate=1e9)
    with trio.fail_after(PATIENCE):
        async with open_broker(settings, sink=RecordingSink(), authenticate=check_password) as it:
            peer, tcp = await port.open(it)
            async with tcp:
                assert await peer.connect(DEVICE) == ConnAck(0)
                await peer.send(*[Publish("device-server", b"{}" * 10)] * 2000)
                while not it.statistics().throttled:  # noqa: ASYNC110  nothing to wait on
                    await trio.sleep(0.001)
                for payload in (bytes(9000), bytes(9000), b"goodbye"):
                    assert it.send(DEVICE, payload)
                it.end_all()
                got = []
                while isinstance(packet := await peer.receive(), Publish):
                    got.append(len(packet.payload))
                assert (got, packet) == ([9000, 9000, 7], None)


async def test_the_answer_reaches_who_is_refused_and_talks_on(port: Port) -> None:
    with trio.fail_after(PATIENCE):
        async with open_broker(
            port.settings(), sink=RecordingSink(), authenticate=check_password
        ) as it:
            peer, tcp = await port.open(it)
            async with tcp:
                connect = encode(Connect(DEVICE, username="user", password=b"wrong"))
                noise = encode(Publish("device-server", bytes(1000))) * 100
                assert await peer.ask(connect + noise) == ConnAck(5)
                assert await peer.receive() is None


async def test_who_never_closes_is_closed_in_time(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        refused = run.peer()
        assert await refused.connect(DEVICE, password=b"wrong") == ConnAck(5)
        assert await refused.receive() is None
        assert run.broker.statistics().closed == {"refused": 1}
        started = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while True:
                await refused.send(b"x" * 1000)
                await trio.sleep(0.01)
        assert trio.current_time() == pytest.approx(started + CLOSE_TIMEOUT, abs=0.02)
        assert run.broker.statistics().connections == 0


async def test_who_was_told_nothing_is_closed_at_once(autojump_clock: MockClock) -> None:
    async with open_running(connect_timeout=5.0) as run:
        run.peer()
        await trio.sleep(5.01)
        assert run.broker.statistics().connections == 0


# Sinks that raise


async def test_a_will_that_makes_the_sink_raise_is_the_dead_clients_crash(
    autojump_clock: MockClock,
) -> None:
    will = Will("device-server", b'{"raise":"boom"}')
    with capture_logs() as logs:
        async with open_running() as run:
            await (await run.client(DEVICE, will=will)).close()
            await trio.testing.wait_all_tasks_blocked()
            assert run.sink.events == [("connected", DEVICE), ("disconnected", DEVICE)]
            assert run.broker.statistics().clients == 0
    assert "mqtt connection crashed" in [each["event"] for each in logs]


async def test_a_will_that_makes_the_sink_raise_does_not_hurt_who_takes_over(
    autojump_clock: MockClock,
) -> None:
    class Raising(RecordingSink):
        def device_disconnected(self, client_id: str) -> None:
            super().device_disconnected(client_id)
            raise RuntimeError(client_id)

    async with open_running(Raising()) as run:
        await run.client(DEVICE, will=Will("device-server", b'{"raise":"boom"}'))
        second = await run.client(DEVICE)
        assert await second.ask(PingReq()) == PingResp()
        events = [event for event, _ in run.sink.events]
        assert events == ["connected", "disconnected", "connected"]
        assert run.broker.statistics().clients == 1


# TLS records of one byte


async def test_a_client_that_puts_each_byte_into_a_record_is_throttled(tmp_path: Path) -> None:
    port = Port(Authority(tmp_path), tls=True)
    settings = port.settings(byte_rate=16 * 1024, byte_burst=16 * 1024)
    with trio.fail_after(PATIENCE):
        async with open_broker(settings, sink=RecordingSink(), authenticate=check_password) as it:
            peer, tcp = await port.open(it)
            async with tcp:
                connect = Connect(DEVICE, username="user", password=PASSWORD)
                assert await peer.ask(connect) == ConnAck(0)
                for byte in encode(Publish("device-server", b"x" * 200)):
                    await peer.send(bytes((byte,)))
                while not it.statistics().throttled:  # noqa: ASYNC110  nothing to wait on
                    await trio.sleep(0.001)
                assert it.statistics().throttled.keys() == {"bytes"}


async def test_a_stranger_that_puts_each_byte_into_a_record_is_given_up(tmp_path: Path) -> None:
    port = Port(Authority(tmp_path), tls=True)
    with trio.fail_after(PATIENCE):
        async with open_broker(
            port.settings(), sink=RecordingSink(), authenticate=check_password
        ) as it:
            peer, tcp = await port.open(it)
            async with tcp:
                for byte in encode(Connect(DEVICE, username="u" * 200))[:-1]:
                    try:
                        await peer.send(bytes((byte,)))
                    except trio.BrokenResourceError:
                        break
                while it.statistics().connections:  # noqa: ASYNC110  nothing to wait on
                    await trio.sleep(0.001)
                assert it.statistics().closed == {"dripping": 1}
