"""Clients that we did not write, over real sockets: paho-mqtt, mosquitto's own, aiomqtt."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiomqtt
import components
import paho.mqtt.client as paho
import pytest
import trio
from mqtt_peer import PASSWORD, RecordingSink, check_password
from paho.mqtt.enums import CallbackAPIVersion

from trio_gateway.broker import Broker, open_broker
from trio_gateway.core.mqtt_packet import ConnAck, Connect, Publish, encode
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
TIMEOUT = 10.0  # seconds; everything here takes milliseconds


class ArrivalSink(RecordingSink):
    """Can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._sender, self._receiver = trio.open_memory_channel[tuple[Any, ...]](100)

    def _tell(self) -> None:
        self._sender.send_nowait(self.events[-1])

    def device_connected(self, client_id: str) -> None:
        super().device_connected(client_id)
        self._tell()

    def device_disconnected(self, client_id: str) -> None:
        super().device_disconnected(client_id)
        self._tell()

    def deliver(self, client_id: str, message: dict[str, Any]) -> None:
        super().deliver(client_id, message)
        self._tell()

    async def next(self) -> tuple[Any, ...]:
        return await self._receiver.receive()


@asynccontextmanager
async def endpoint(**settings: Any) -> AsyncIterator[tuple[Broker, ArrivalSink]]:
    mqtt = MqttSettings(listen=Address("127.0.0.1", 0), **settings)
    sink = ArrivalSink()
    with trio.fail_after(TIMEOUT):
        async with open_broker(mqtt, sink=sink, authenticate=check_password) as broker:
            yield broker, sink


def plain(broker: Broker) -> tuple[str, int]:
    """Where it listens without TLS."""
    assert broker.address is not None
    return broker.address


# paho-mqtt


@asynccontextmanager
async def paho_device(
    broker: Broker, password: bytes = PASSWORD, client_id: str = DEVICE
) -> AsyncIterator[Device]:
    device = Device(broker, client_id, password)
    try:
        yield device
    finally:
        device.client.disconnect()
        with trio.CancelScope(shield=True):  # paho's thread ends once it has written DISCONNECT
            await trio.to_thread.run_sync(device.client.loop_stop)


class Device:
    """A device as the firmware is: it publishes, it listens, it never subscribes."""

    def __init__(self, broker: Broker, client_id: str, password: bytes) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._sender, self._receiver = trio.open_memory_channel[Any](100)
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False
        )
        self.client.username_pw_set("user", password.decode())
        self.client.on_connect = lambda *args: self._tell(args[3].value)
        self.client.on_message = lambda *args: self._tell((args[2].topic, args[2].payload))
        self.client.on_disconnect = lambda *_: self._tell("gone")
        self.client.connect_async(*plain(broker), keepalive=60)
        self.client.loop_start()

    def _tell(self, event: object) -> None:
        self._token.run_sync_soon(self._sender.send_nowait, event)

    async def next(self) -> Any:
        return await self._receiver.receive()


async def test_paho_device_that_never_subscribes() -> None:
    async with endpoint() as (broker, sink):
        async with paho_device(broker) as device:
            assert await device.next() == 0
            assert await sink.next() == ("connected", DEVICE)
            device.client.publish("device-server", b'{"type":"hello"}')
            assert await sink.next() == ("message", DEVICE, {"type": "hello"})
            assert broker.send(DEVICE, b'{"type":"hello","transport":"udp"}')
            topic, payload = await device.next()
            assert topic == f"devices/p2p/{DEVICE}"
            assert payload == b'{"type":"hello","transport":"udp"}'
            device.client.disconnect()
            assert await sink.next() == ("disconnected", DEVICE)
        assert broker.statistics().closed == {"disconnect": 1}


async def test_paho_at_qos_1_with_a_large_packet() -> None:
    async with endpoint() as (broker, sink), paho_device(broker) as device:
        assert await device.next() == 0
        await sink.next()
        text = "x" * 60_000
        info = device.client.publish("device-server", f'{{"tools":"{text}"}}', qos=1)
        assert await sink.next() == ("message", DEVICE, {"tools": text})
        await trio.to_thread.run_sync(info.wait_for_publish, TIMEOUT)
        assert info.is_published()


async def test_paho_with_a_wrong_password() -> None:
    async with endpoint() as (broker, sink):
        async with paho_device(broker, b"wrong") as device:
            assert await device.next() == 0x87  # paho's name for CONNACK 5: not authorized
            assert await device.next() == "gone"
        assert sink.events == []


async def test_paho_is_told_by_a_takeover() -> None:
    async with endpoint() as (broker, _), paho_device(broker) as first:
        assert await first.next() == 0
        async with paho_device(broker) as second:
            assert await second.next() == 0
            assert await first.next() == "gone"
            assert broker.send(DEVICE, b"{}")
            assert await second.next() == (f"devices/p2p/{DEVICE}", b"{}")


# mosquitto_pub and mosquitto_sub


async def mosquitto(
    program: str, broker: Broker, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    path = components.find(f"mosquitto_{program}", "mosquitto-clients")
    host, port = plain(broker)
    common = ["-h", host, "-p", str(port), "-u", "user", "-P", PASSWORD.decode()]
    return await trio.run_process(
        [path, *common, *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=check,
    )


async def test_mosquitto_publishes_to_the_gateway_at_qos_0_and_1() -> None:
    async with endpoint() as (broker, sink):
        for qos in "01":
            options = ("-q", qos, "-t", "device-server", "-m", f'{{"qos":{qos}}}')
            await mosquitto("pub", broker, "-i", DEVICE, *options)
            assert await sink.next() == ("connected", DEVICE)
            assert await sink.next() == ("message", DEVICE, {"qos": int(qos)})
            assert await sink.next() == ("disconnected", DEVICE)


async def test_mosquitto_gets_retained_messages_through_wildcards() -> None:
    async with endpoint() as (broker, _):
        for room in ("1", "2"):
            options = ("-r", "-q", "1", "-t", f"room/{room}/light", "-m", room)
            await mosquitto("pub", broker, "-i", "writer", *options)
        got = await mosquitto("sub", broker, "-i", "reader", "-C", "2", "-v", "-t", "room/+/#")
        assert got.stdout == b"room/1/light 1\nroom/2/light 2\n"


async def test_mosquitto_is_told_what_is_refused() -> None:
    async with endpoint() as (broker, _):
        refused = await mosquitto(
            "sub", broker, "-i", "spy", "-t", "devices/p2p/#", "-t", "#", check=False
        )
        assert b"All subscription requests were denied" in refused.stderr
        wrong = await mosquitto("pub", broker, "-i", "x", "-P", "no", "-t", "a", "-n", check=False)
        assert wrong.returncode == 5
        await mosquitto("pub", broker, "-i", "x", "-q", "2", "-t", "a", "-m", "b", check=False)
        assert broker.statistics().bad_packets == {"qos_2": 1}


async def test_mosquitto_leaves_a_will() -> None:
    async with endpoint() as (broker, _):
        will = ("--will-topic", "last", "--will-payload", "words", "--will-retain")
        # The endpoint ends this one for its QoS 2, so there is no DISCONNECT.
        options = ("-i", "writer", "-q", "2", "-t", "a", "-m", "b", *will)
        await mosquitto("pub", broker, *options, check=False)
        got = await mosquitto("sub", broker, "-i", "reader", "-C", "1", "-t", "last")
        assert got.stdout == b"words\n"


# aiomqtt

GRANTS = {f"devices/p2p/{DEVICE}": 0, "devices/p2p/+": 0x80, "news/#": 0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # trio-asyncio 0.16 on 3.12 and later
async def test_aiomqtt_under_trio_asyncio() -> None:
    import trio_asyncio  # noqa: PLC0415  only here may its import warn

    async with endpoint() as (broker, sink), trio_asyncio.open_loop():
        host, port = plain(broker)

        async def converse() -> list[tuple[str, object]]:
            got: list[tuple[str, object]] = []
            async with aiomqtt.Client(
                host, port, identifier=DEVICE, username="user", password=PASSWORD.decode()
            ) as client:
                for topic_filter, code in GRANTS.items():
                    [granted] = await client.subscribe(topic_filter, qos=1)
                    assert getattr(granted, "value", granted) == code
                await client.publish("news/today", b"local", qos=1)
                await client.publish("device-server", b'{"type":"hello"}', qos=1)
                async for message in client.messages:
                    got.append((message.topic.value, message.payload))
                    if len(got) == 2:
                        break
                await client.unsubscribe("news/#")
            return got

        async def answer() -> None:
            assert await sink.next() == ("connected", DEVICE)
            assert await sink.next() == ("message", DEVICE, {"type": "hello"})
            assert broker.send(DEVICE, b"answer")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            got = await trio_asyncio.aio_as_trio(converse)()
        assert got == [("news/today", b"local"), (f"devices/p2p/{DEVICE}", b"answer")]
        assert await sink.next() == ("disconnected", DEVICE)
        assert broker.statistics().closed == {"disconnect": 1}


# Sockets alone


async def test_a_reset_is_an_ending_like_any_other() -> None:
    async with endpoint() as (broker, sink):
        stream = await trio.open_tcp_stream(*plain(broker))
        await stream.send_all(encode(Connect(DEVICE, username="user", password=PASSWORD)))
        assert await sink.next() == ("connected", DEVICE)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        assert await sink.next() == ("disconnected", DEVICE)
        assert not broker.send(DEVICE, b"{}")


async def test_the_end_of_the_block_reaches_the_clients_and_frees_the_port() -> None:
    async with endpoint() as (broker, _):
        stream = await trio.open_tcp_stream(*plain(broker))
        await stream.send_all(encode(Connect(DEVICE, username="user", password=PASSWORD)))
        assert await stream.receive_some() == encode(ConnAck(0))
        assert broker.send(DEVICE, b"goodbye")
        address = plain(broker)
    assert await stream.receive_some() == encode(Publish(f"devices/p2p/{DEVICE}", b"goodbye"))
    assert await stream.receive_some() == b""
    await stream.aclose()
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream(*address)


async def test_a_device_that_stops_reading_is_given_up_and_nobody_else() -> None:
    async with endpoint(max_outbox_bytes=64 * 1024) as (broker, sink):
        stuck = await trio.open_tcp_stream(*plain(broker))
        await stuck.send_all(encode(Connect(DEVICE, username="user", password=PASSWORD)))
        async with paho_device(broker, client_id="other") as other:
            assert await other.next() == 0
            while broker.send(DEVICE, bytes(10_000)):  # until kernel and outbox are full
                await trio.lowlevel.checkpoint()
            while await sink.next() != ("disconnected", DEVICE):
                pass
            assert broker.send("other", b"{}")
            assert await other.next() == ("devices/p2p/other", b"{}")
        await stuck.aclose()
