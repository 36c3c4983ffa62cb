"""The embedded endpoint with few file descriptors, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import trio
from mqtt_peer import Peer

from trio_gateway.broker.descriptors import SPARE, within_descriptors
from trio_gateway.core.mqtt_packet import ConnAck, PingReq, PingResp
from trio_gateway.settings import MqttSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")

VICTIM = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
TIMEOUT = 20.0  # seconds; everything here takes less than two


@pytest.mark.parametrize(("limit", "kept"), [(60, 30), (255, 128), (1024, SPARE), (2000, SPARE)])
def test_few_descriptors_are_shared_and_some_kept(
    monkeypatch: pytest.MonkeyPatch, limit: int, kept: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    settings = within_descriptors(MqttSettings())
    assert limit - settings.max_pending - settings.max_clients == kept
    assert settings.max_pending_per_address <= settings.max_pending < settings.max_clients


def test_enough_descriptors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MqttSettings()
    enough = settings.max_clients + settings.max_pending + SPARE
    monkeypatch.setattr("resource.getrlimit", lambda _: (enough, enough))
    assert within_descriptors(settings) is settings


STARVED = """
import resource, structlog, sys, trio
from mqtt_peer import RecordingSink, check_password
from trio_gateway.broker import open_broker
from trio_gateway.settings import Address, MqttSettings

def starve(when):
    if sys.argv[1] == when:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

async def main():
    settings = MqttSettings(listen=Address("127.0.0.1", 0))
    sink = RecordingSink()
    async with open_broker(settings, sink=sink, authenticate=check_password) as broker:
        starve("later")
        print(broker.address[1], flush=True)
        await trio.sleep_forever()

structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
starve("from the start")
trio.run(main)
"""


@asynccontextmanager
async def open_starved(when: str) -> AsyncIterator[tuple[int, psutil.Process]]:
    """An endpoint in a process that may have 60 files open. Gives its port and itself."""
    running = subprocess.Popen(  # noqa: S603, ASYNC220  our own, and it starts at once
        [sys.executable, "-c", STARVED, when],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent,
    )
    with running, trio.fail_after(TIMEOUT):
        try:
            assert running.stdout is not None
            port = int(await trio.to_thread.run_sync(running.stdout.readline))
            yield port, psutil.Process(running.pid)
        finally:
            running.kill()


async def test_without_file_descriptors_it_waits_and_goes_on() -> None:
    async with open_starved("later") as (port, endpoint), AsyncExitStack() as streams:

        async def connect() -> Peer:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            return Peer(await streams.enter_async_context(stream))

        victim = await connect()
        assert await victim.connect(VICTIM) == ConnAck(0)
        flood = [await connect() for _ in range(100)]
        before = sum(endpoint.cpu_times()[:2])
        for _ in range(50):
            assert await victim.ask(PingReq()) == PingResp()
            await trio.sleep(0.01)
        assert endpoint.num_fds() == 60
        assert sum(endpoint.cpu_times()[:2]) - before < 0.3  # of 0.5 s: it does not spin
        for each in flood:
            await each.close()
        assert await (await connect()).connect("another") == ConnAck(0)
        assert await victim.ask(PingReq()) == PingResp()


async def test_few_file_descriptors_are_not_left_to_strangers() -> None:
    async with open_starved("from the start") as (port, endpoint), AsyncExitStack() as streams:
        for number in range(100):
            stream = await trio.open_tcp_stream(
                "127.0.0.1", port, local_address=f"127.1.0.{number + 1}"
            )
            await streams.enter_async_context(stream)
        device = Peer(await trio.open_tcp_stream("127.0.0.1", port))
        with trio.fail_after(5):  # half of `connect_timeout`, which would make room as well
            assert await device.connect(VICTIM) == ConnAck(0)
        assert endpoint.num_fds() < 40
        await device.close()
