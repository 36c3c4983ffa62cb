"""An external broker that restarts under load, and the three ways in which that ended the program.

Each was seen with aiomqtt used plainly under trio-asyncio; what `trio_gateway.mqtt` does about it
is in session.py and client.py. Restarts under load meet them by chance, the other tests by force.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from keeping_sink import PATIENCE, KeepingSink, settings_for
from mosquitto import Mosquitto, open_mosquitto
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho_device import open_paho_device
from trio.testing import wait_all_tasks_blocked

from trio_gateway.mqtt import ExternalBroker, open_external_broker
from trio_gateway.mqtt.client import GatedClient

if TYPE_CHECKING:
    from trio_gateway.core.control import Message


async def reconnected(front: ExternalBroker, broker: Mosquitto, *, since: int) -> None:
    """Wait for a session that began after line `since` of the broker's log."""
    await broker.wait_log("Sending SUBACK to trio-gateway", since=since)
    await front.wait_connected()


def publish_without_pause(port: int, topic: str, stop: threading.Event) -> None:
    """Be another publisher, in a thread: paho, which comes back as soon as the broker does."""
    while not stop.is_set():
        client = paho.Client(CallbackAPIVersion.VERSION2)
        try:
            client.connect("127.0.0.1", port)
            while not stop.is_set() and client.loop(0.002) == paho.MQTT_ERR_SUCCESS:
                client.publish(topic, b"{}")
        except OSError:
            stop.wait(0.01)  # nobody listens yet
        client.disconnect()


# Whoever has much to read learns of the end by writing; only else is a watch armed too late.
@pytest.mark.parametrize("topic", ["devices/heard/data", "devices/p2p/unheard"])
async def test_restarts_under_load(topic: str) -> None:
    restarts, stop = 6, threading.Event()

    async def talk_without_pause(front: ExternalBroker) -> None:
        while True:
            if front.statistics().queued < 500:
                front.send("quiet", b"x" * 200)
            await trio.lowlevel.checkpoint()

    with trio.fail_after(PATIENCE):
        async with open_mosquitto() as broker, trio.open_nursery() as nursery:
            publisher = partial(publish_without_pause, broker.port, topic, stop)
            nursery.start_soon(trio.to_thread.run_sync, publisher)
            try:
                async with (
                    open_external_broker(settings_for(broker), sink=KeepingSink()) as front,
                    trio.open_nursery() as talkers,
                ):
                    await front.wait_connected()
                    talkers.start_soon(talk_without_pause, front)
                    for _ in range(restarts):
                        for publisher_name in ("trio-gateway", "auto-") * 10:
                            await broker.wait_log(
                                f"Received PUBLISH from {publisher_name}", since=len(broker.log)
                            )
                        seen = len(broker.log)
                        await broker.restart()
                        await reconnected(front, broker, since=seen)
                    assert front.statistics().asyncio_errors == 0
                    assert front.statistics().connections == 1 + restarts
                    talkers.cancel_scope.cancel()
            finally:
                stop.set()


async def test_what_is_sent_while_the_broker_restarts_arrives_in_order() -> None:
    with trio.fail_after(PATIENCE):
        async with (
            open_mosquitto() as broker,
            open_external_broker(settings_for(broker), sink=KeepingSink()) as front,
        ):
            for lap in range(3):
                await front.wait_connected()
                await broker.stop()
                for number in range(100):  # more than a batch; the first may not yet know
                    front.send(f"lap-{lap}-{number}", b"{}")
                seen = len(broker.log)
                await broker.start()
                await broker.wait_log(f"lap-{lap}-99'", since=seen)
                arrived = [line for line in broker.log[seen:] if "Received PUBLISH" in line]
                assert [line.split("'")[1] for line in arrived] == [
                    f"devices/p2p/lap-{lap}-{number}" for number in range(100)
                ]


@pytest.mark.parametrize("reused", [False, True])
async def test_a_socket_that_is_gone_before_it_is_watched(
    reused: bool,  # noqa: FBT001  pytest's way
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trap 1: EBADF, or worse, a watch on whatever socket has the number now."""
    register = GatedClient._on_socket_register_write
    near, far = socket.socketpair()
    others: list[socket.socket] = []
    armed, gone = False, trio.Event()

    def die_meanwhile(
        self: GatedClient, client: paho.Client, userdata: object, sock: socket.socket
    ) -> None:
        nonlocal armed
        register(self, client, userdata, sock)
        if armed:
            armed, number = False, sock.fileno()
            os.kill(broker.pid, signal.SIGKILL)
            select.select([sock], [], [])
            client.loop_read()  # notices, and closes the socket
            if reused:
                others.append(socket.socket(fileno=os.dup2(far.fileno(), number)))
            gone.set()

    monkeypatch.setattr(GatedClient, "_on_socket_register_write", die_meanwhile)
    with near, far, trio.fail_after(PATIENCE):
        async with (
            open_mosquitto() as broker,
            open_external_broker(settings_for(broker), sink=KeepingSink()) as front,
        ):
            await front.wait_connected()
            armed = True
            front.send("x", b"{}")
            await gone.wait()
            await wait_all_tasks_blocked()  # whatever was scheduled has happened
            for other in others:
                for _ in range(10):  # BusyResourceError if somebody else watches it
                    await trio.lowlevel.wait_writable(other)
                other.close()
            await broker.stop()  # reaps it
            seen = len(broker.log)
            await broker.start()
            await reconnected(front, broker, since=seen)
            assert front.statistics().asyncio_errors == 0


async def test_a_future_that_nobody_asked_ends_nothing() -> None:
    """Trap 2: its exception surfaces when it is collected, and trio-asyncio would raise it."""

    class Careless(KeepingSink):
        def deliver(self, client_id: str, message: Message) -> None:
            asyncio.get_running_loop().create_future().set_exception(OSError("nobody asks"))
            gc.collect()
            super().deliver(client_id, message)

    sink = Careless()
    with trio.fail_after(PATIENCE):
        async with (
            open_mosquitto() as broker,
            open_external_broker(settings_for(broker), sink=sink) as front,
        ):
            await front.wait_connected()
            async with open_paho_device(broker.port) as device:
                for count in (1, 2):
                    device.publish("devices/x/data", b"{}")
                    await sink.wait_for(count)
            assert front.statistics().asyncio_errors == 2
            seen = len(broker.log)
            await broker.restart()
            await reconnected(front, broker, since=seen)


@pytest.mark.parametrize("moment", ["_on_connect", "_on_subscribe", "_on_publish"])
async def test_a_cancellation_in_the_moment_of_an_answer(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 3: `asyncio.wait_for` swallows it on 3.11. It must still end, and with a DISCONNECT."""
    answered = getattr(GatedClient, moment)
    scope = trio.CancelScope()

    def cancel_now(self: GatedClient, *args: Any) -> None:
        answered(self, *args)
        scope.cancel()

    monkeypatch.setattr(GatedClient, moment, cancel_now)
    with trio.fail_after(PATIENCE):
        async with open_mosquitto() as broker:
            with scope:
                async with open_external_broker(settings_for(broker), sink=KeepingSink()) as front:
                    front.send("x", b"{}")
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            await broker.wait_log("disconnected.")
