"""The embedded endpoint behind TLS: real sockets, real clients, and those who are none."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import components
import pytest
import structlog.testing
import trio
import trio.testing
from certificates import Authority, client_context
from mqtt_peer import PASSWORD
from paho_device import open_paho_device
from tls_endpoint import (
    ANYWHERE,
    PATIENCE,
    TlsClient,
    connected,
    endpoint,
    eventually,
    port_of,
)

from trio_gateway import Settings, open_gateway
from trio_gateway.broker.certificate import Certificate
from trio_gateway.broker.peer import Peer
from trio_gateway.broker.tls import TlsStream
from trio_gateway.core.mqtt_packet import (
    ConnAck,
    Connect,
    PingReq,
    PingResp,
    Publish,
    encode,
)
from trio_gateway.errors import InvalidSetting
from trio_gateway.run import banner, write_ready_file
from trio_gateway.settings import Address, MqttSettings, UdpSettings

if TYPE_CHECKING:
    from pathlib import Path

    from trio_gateway.broker import Broker


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# Clients


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_of_either_version(
    authority: Authority, tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    context = client_context(authority, newest=newest)
    with structlog.testing.capture_logs() as logs:
        async with (
            endpoint(authority.issue(tmp_path)) as (broker, sink),
            connected(broker, context) as client,
        ):
            assert client.stream.version() == newest.name.replace("v1_", "v1.")
            assert await client.ask(PingReq()) == PingResp()
            assert sink.events == [("connected", "device")]
            ours = client.stream.transport_stream.socket.getsockname()
            (welcome,) = [each for each in logs if each["event"] == "mqtt client connected"]
            assert welcome["peer"] == f"127.0.0.1:{ours[1]}"
            assert broker.statistics().handshakes_failed == {}


async def test_paho_and_its_messages(authority: Authority, tmp_path: Path) -> None:
    async with endpoint(authority.issue(tmp_path)) as (broker, sink):
        async with open_paho_device(
            port_of(broker), ca_file=authority.file, username="user", password=PASSWORD.decode()
        ) as device:
            device.publish("devices/device/hello", b'{"type":"hello"}')
            while len(sink.events) < 2:  # noqa: ASYNC110  paho is in a thread
                await trio.sleep(0.001)
            assert broker.send("device", bytes(50_000))  # several TLS records
            assert await device.inbox.receive() == ("devices/p2p/device", bytes(50_000))
        assert sink.events[1] == ("message", "device", {"type": "hello"})


async def test_mosquitto_pub(authority: Authority, tmp_path: Path) -> None:
    program = components.find("mosquitto_pub", "mosquitto-clients")
    async with endpoint(authority.issue(tmp_path)) as (broker, sink):
        where = ["-h", "127.0.0.1", "-p", str(port_of(broker)), "--cafile", str(authority.file)]
        who = ["-i", "device", "-u", "user", "-P", PASSWORD.decode()]
        what = ["-t", "devices/device/data", "-m", '{"type":"listen"}', "-q", "1"]
        await trio.run_process([program, *where, *who, *what])
        assert ("message", "device", {"type": "listen"}) in sink.events


async def test_both_listeners_serve_the_same_clients(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue(tmp_path)
    async with (
        endpoint(files, listen=ANYWHERE) as (broker, sink),
        connected(broker, client_context(authority)),
    ):
        assert broker.address is not None
        async with await trio.open_tcp_stream(*broker.address) as plain:
            await plain.send_all(encode(Connect("device", username="u", password=PASSWORD)))
            assert await plain.receive_some() == encode(ConnAck(0))
            assert [event for event, _ in sink.events] == ["connected", "disconnected", "connected"]
            await eventually(broker, closed={"taken_over": 1})


# The end of a connection


async def test_a_client_that_just_closes_tcp_is_gone_like_any_other(
    authority: Authority, tmp_path: Path
) -> None:
    async with endpoint(authority.issue(tmp_path)) as (broker, sink):
        async with connected(broker, client_context(authority)) as client:
            await client.stream.transport_stream.aclose()
            await eventually(broker, clients=0)
        assert sink.events[-1] == ("disconnected", "device")
        assert broker.statistics().closed == {"eof": 1}


async def test_leaving_gives_clients_what_is_queued(authority: Authority, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with endpoint(authority.issue(tmp_path)) as (broker, _):
            client = await nursery.start(_stay_connected, broker, client_context(authority))
            assert broker.send("device", b"goodbye")
        assert (await client.stream.receive_some()).endswith(b"goodbye")
        assert await client.stream.receive_some() == b""
        nursery.cancel_scope.cancel()


async def _stay_connected(
    broker: Broker, context: ssl.SSLContext, task_status: trio.TaskStatus[TlsClient]
) -> None:
    async with connected(broker, context) as client:
        task_status.started(client)
        await trio.sleep_forever()


# Addresses and settings


async def test_the_stream_of_a_peer_knows_its_address(authority: Authority, tmp_path: Path) -> None:
    certificate = Certificate(*authority.issue(tmp_path))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()[:2]) as tcp:
        accepted = await listener.accept()
        async with TlsStream(accepted, certificate, trio.Lock()) as stream:
            assert Peer.of(stream).address == "127.0.0.1"
            assert Peer.of(stream).name == f"127.0.0.1:{tcp.socket.getsockname()[1]}"


async def test_a_second_address_that_is_taken_frees_the_first(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue(tmp_path)
    async with endpoint(files) as (broker, _):
        taken = Address("127.0.0.1", port_of(broker))
        with pytest.raises(OSError, match="in use"):
            async with endpoint(files, listen=ANYWHERE, tls_listen=taken):
                pass


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tls_listen": ANYWHERE}, {"mqtt.tls_listen", "mqtt.tls_cert_file"}),
        ({"listen": None}, {"mqtt.listen", "mqtt.tls_listen"}),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], named: set[str]) -> None:
    with pytest.raises(InvalidSetting) as caught:
        MqttSettings(**changes)
    assert set(caught.value.values) == named


async def test_a_gateway_with_tls_only_answers_a_hello_and_says_where_it_listens(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    settings = Settings(
        mqtt=MqttSettings(
            listen=None, tls_listen=ANYWHERE, tls_cert_file=certificate, tls_key_file=key
        ),
        udp=UdpSettings(listen=ANYWHERE),
    )
    hello = {"type": "hello", "version": 3, "transport": "udp", "audio_params": {"format": "opus"}}
    with trio.fail_after(PATIENCE):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            async with connected(gateway.control, client_context(authority)) as client:
                answer = await client.ask(Publish("device-server", json.dumps(hello).encode()))
                assert answer.topic == "devices/p2p/device"
                assert b'"udp"' in answer.payload
            where = f"127.0.0.1:{port_of(gateway.control)}"
            assert gateway.addresses.mqtt is None
            assert gateway.addresses.as_text()["mqtt_tls"] == where
            text = banner(gateway)
            write_ready_file(tmp_path / "ready.json", gateway)
            nursery.cancel_scope.cancel()
    assert f"MQTT  {where}  (embedded endpoint, TLS)" in text
    assert "Only this machine can reach it" in text
    assert "simulate" not in text, "it speaks no TLS"
    ready = json.loads((tmp_path / "ready.json").read_text())
    assert (ready["mqtt"], ready["mqtt_tls"]) == (None, where)
