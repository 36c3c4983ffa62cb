"""Peers of the TLS port that are no clients, and what a handshake may cost."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
import trio
from certificates import Authority, client_context
from mqtt_peer import PASSWORD
from tls_endpoint import ANYWHERE, connected, endpoint, eventually, port_of, refuse

from trio_gateway.broker.certificate import Certificate
from trio_gateway.broker.tls import HANDSHAKE_READS
from trio_gateway.core.mqtt_packet import Connect, PingReq, PingResp, encode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(
    ("said_first", "reason"),
    [
        (encode(Connect("device", username="user", password=PASSWORD)), "wrong_version_number"),
        (b"GET / HTTP/1.1\r\n\r\n", "http_request"),
        (b"", "eof"),
        (b"\x16\x03\x01\x02\x00\x01", "eof"),
    ],
)
async def test_a_peer_that_does_not_speak_tls(
    authority: Authority, tmp_path: Path, said_first: bytes, reason: str
) -> None:
    async with endpoint(authority.issue(tmp_path)) as (broker, sink):
        async with await trio.open_tcp_stream("127.0.0.1", port_of(broker)) as tcp:
            if said_first:
                await tcp.send_all(said_first)
            if reason == "eof":
                await tcp.send_eof()
            while await tcp.receive_some():  # an alert, perhaps; in any case the end
                pass
        await eventually(broker, handshakes_failed={reason: 1}, connections=0)
        assert sink.events == []


async def test_a_tls_client_at_the_plain_port(authority: Authority, tmp_path: Path) -> None:
    async with endpoint(authority.issue(tmp_path), listen=ANYWHERE) as (broker, _):
        assert broker.address is not None
        tcp = await trio.open_tcp_stream(*broker.address)
        async with trio.SSLStream(tcp, client_context(authority), server_hostname="x") as tls:
            with pytest.raises(trio.BrokenResourceError):
                await tls.do_handshake()
        await eventually(broker, connections=0)
        assert sum(broker.statistics().bad_packets.values()) == 1
        assert broker.statistics().handshakes_failed == {}


async def test_a_client_that_does_not_trust_us_has_its_reason_logged(
    authority: Authority, tmp_path: Path
) -> None:
    other = client_context(Authority(tmp_path, "other"))
    with structlog.testing.capture_logs() as logs:
        async with endpoint(authority.issue(tmp_path)) as (broker, _):
            for _ in range(3):
                await refuse(broker, other)
            await eventually(broker, handshakes_failed={"tlsv1_alert_unknown_ca": 3})
    failures = [each for each in logs if each["event"] == "TLS handshake failed"]
    assert failures[0]["reason"] == "tlsv1_alert_unknown_ca"
    assert failures[0]["peer"].startswith("127.0.0.1:")
    assert len(failures) == 1, "at most one a second"


async def test_a_version_that_is_too_old(authority: Authority, tmp_path: Path) -> None:
    old = client_context(authority)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # else this end would not even try
    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        with pytest.raises(trio.BrokenResourceError):
            async with connected(broker, old):
                pass
        await eventually(broker, handshakes_failed={"unsupported_protocol": 1})


async def test_a_reset_in_the_middle_of_a_handshake(authority: Authority, tmp_path: Path) -> None:
    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(broker))
        await tcp.send_all(b"\x16\x03\x01")
        await eventually(broker, accepted=1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await tcp.aclose()
        await eventually(broker, handshakes_failed={"reset": 1}, connections=0)


async def test_a_handshake_that_stalls_holds_up_nobody_and_ends_in_time(
    authority: Authority, tmp_path: Path
) -> None:
    """`connect_timeout` is for TLS and CONNECT together."""
    files = authority.issue(tmp_path)
    async with endpoint(files, connect_timeout=2.0) as (broker, _):
        async with connected(broker, client_context(authority)) as client:
            stalled = [await trio.open_tcp_stream("127.0.0.1", port_of(broker)) for _ in range(20)]
            for tcp in stalled:
                await tcp.send_all(b"\x16")
            assert await client.ask(PingReq()) == PingResp()
            for tcp in stalled:
                assert await tcp.receive_some() == b""
                await tcp.aclose()
            assert await client.ask(PingReq()) == PingResp()
        await eventually(broker, handshakes_failed={"unfinished": 20}, connections=0)
        assert broker.statistics().closed["connect_timeout"] == 20


class Turns(trio.abc.Instrument):
    """Numbers the turns of the event loop."""

    number = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  as overridden
        self.number += 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The turn of each handshake step of the endpoint that got something to work on."""
    turns = Turns()
    noted: list[int] = []
    inputs: dict[ssl.SSLObject, ssl.MemoryBIO] = {}
    wrap_bio = ssl.SSLContext.wrap_bio

    def noting(
        context: ssl.SSLContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **how: Any
    ) -> ssl.SSLObject:
        made = wrap_bio(context, incoming, outgoing, **how)
        inputs[made] = incoming
        return made

    class Noting(ssl.SSLObject):
        def do_handshake(self) -> None:
            if self.server_side:
                if not noted:
                    trio.lowlevel.add_instrument(turns)
                if inputs[self].pending:
                    noted.append(turns.number)
            super().do_handshake()

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", noting)
    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", Noting)
    return noted


@pytest.mark.parametrize("ahead", [0, 1, 100])
async def test_handshakes_take_one_step_in_a_turn_whatever_comes_first(
    authority: Authority, tmp_path: Path, steps: list[int], ahead: int
) -> None:
    context = client_context(authority)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with endpoint(authority.issue(tmp_path)) as (broker, _), AsyncExitStack() as stack:
        waiting = []
        for _ in range(20):
            outgoing = ssl.MemoryBIO()
            client = context.wrap_bio(ssl.MemoryBIO(), outgoing)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            hello = outgoing.read()
            tcp = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(broker))))
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tcp.sendall(hello[:ahead])
            waiting.append((tcp, hello[ahead:]))
        await eventually(broker, accepted=20)
        while len(steps) < (20 if ahead else 0):  # noqa: ASYNC110  OpenSSL sets no event
            await trio.sleep(0.001)
        for tcp, rest in waiting:  # in one turn
            tcp.sendall(rest)
        while len(steps) < (40 if ahead else 20):  # noqa: ASYNC110
            await trio.sleep(0.001)
    assert len(set(steps)) == len(steps)


async def test_a_handshake_in_too_many_pieces_is_given_up(
    authority: Authority, tmp_path: Path
) -> None:
    sent = 0
    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(broker))
        for _ in range(10 * HANDSHAKE_READS):
            if broker.statistics().handshakes_failed:
                break
            await tcp.send_all(b"\0" if sent else b"\x16\x03\x01\x04\x00")
            sent += 1
            await trio.sleep(0.001)  # else the kernel makes one piece of two
        assert sent < 2 * HANDSHAKE_READS
        await eventually(broker, handshakes_failed={"dripping": 1}, connections=0)
        await tcp.aclose()


async def test_a_certificate_is_not_looked_at_for_who_says_nothing(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Certificate] = []
    context = Certificate.context

    def noting(self: Certificate) -> ssl.SSLContext:
        looked.append(self)
        return context(self)

    monkeypatch.setattr(Certificate, "context", noting)
    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(broker))
        await eventually(broker, accepted=1)
        async with tcp, connected(broker, client_context(authority)):
            assert len(looked) == 1


async def test_whatever_looking_at_the_certificate_raises_ends_one_connection(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_self: Certificate) -> ssl.SSLContext:
        raise RuntimeError("what nobody thought of")

    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        with monkeypatch.context() as patch:
            patch.setattr(Certificate, "context", crash)
            with pytest.raises(trio.BrokenResourceError):
                async with connected(broker, client_context(authority)):
                    pass
            await eventually(broker, closed={"crashed": 1}, connections=0)
        async with connected(broker, client_context(authority)) as client:
            assert await client.ask(PingReq()) == PingResp()


@pytest.mark.parametrize(("alert", "reason"), [(99, "unknown"), (48, "tlsv1_alert_unknown_ca")])
async def test_alerts_with_and_without_a_name(
    authority: Authority, tmp_path: Path, alert: int, reason: str
) -> None:
    context = client_context(authority, newest=ssl.TLSVersion.TLSv1_2)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with endpoint(authority.issue(tmp_path)) as (broker, _):
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(broker))
        await tcp.send_all(outgoing.read())
        assert await tcp.receive_some()
        await tcp.send_all(b"\x15\x03\x03\x00\x02\x02" + bytes((alert,)))
        await eventually(broker, handshakes_failed={reason: 1}, connections=0)
        await tcp.aclose()


async def test_a_peer_that_is_turned_away_costs_no_handshake(
    authority: Authority, tmp_path: Path
) -> None:
    limits = {"connect_burst_per_address": 1, "connect_rate_per_address": 0.001}
    async with (
        endpoint(authority.issue(tmp_path), **limits) as (broker, _),
        connected(broker, client_context(authority)),
    ):
        with pytest.raises(trio.BrokenResourceError):
            async with connected(broker, client_context(authority)):
                pass
        assert broker.statistics().turned_away == {"connect_rate_per_address": 1}
        assert broker.statistics().handshakes_failed == {}
