"""Disks that are full, readers that are gone: calls do not depend on who wants to read of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from light_device import device_name, open_light_device
from running_program import open_running_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIPE_BYTES = 65536
HELLOS = 150  # two lines each, of 200 bytes and more: above what a pipe holds


def full() -> tuple[int, int | None]:
    return os.open("/dev/full", os.O_WRONLY), None


def gone() -> tuple[int, int | None]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end, None


def unread() -> tuple[int, int | None]:
    read_end, write_end = os.pipe()
    return write_end, read_end


@pytest.fixture(params=[full, gone, unread])
def nowhere(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor that cannot be written to, or not for long."""
    write_end, read_end = request.param()
    yield write_end
    os.close(write_end)
    if read_end is not None:
        # A line goes into one page of the pipe's, and not into what is left of the one before.
        assert len(os.read(read_end, 2 * PIPE_BYTES)) > 0.9 * PIPE_BYTES, "it was full"
        os.close(read_end)


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor, _ = full()
    yield descriptor
    os.close(descriptor)


async def test_a_log_that_cannot_be_written(tmp_path: Path, nowhere: int) -> None:
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, "--log-level", "debug", stderr=nowhere) as program,
            open_light_device(program.mqtt, device_name(1)) as device,
        ):
            ids = {(await device.hello())["session_id"] for _ in range(HELLOS)}
            assert len(ids) == HELLOS
            began = trio.current_time()
            program.process.send_signal(signal.SIGTERM)
            assert await program.process.wait() == 0
            assert trio.current_time() - began < 3


async def test_a_banner_that_cannot_be_written(tmp_path: Path, full_disk: int) -> None:
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, stdout=full_disk) as program,
            open_light_device(program.mqtt, device_name(1)) as device,
        ):
            assert (await device.hello())["type"] == "hello"
            program.process.send_signal(signal.SIGTERM)
            assert await program.process.wait() == 0
            assert "standard output cannot be written" in await program.error_text()


async def test_a_trace_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_METRICS_INTERVAL", "0.1")
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, "--record-trace", "/dev/full") as program,
            open_light_device(program.mqtt, device_name(1)) as device,
        ):
            await trio.sleep(0.5)  # a few samples later
            assert (await device.hello())["type"] == "hello"
            program.process.send_signal(signal.SIGTERM)
            assert await program.process.wait() == 0
            error = await program.error_text()
    assert error.count("the recording of the trace has ended") == 1
    assert "No space left on device" in error


async def test_a_ready_file_that_cannot_be_written_ends_the_program(tmp_path: Path) -> None:
    """Whoever waits for it would wait for ever."""
    ready = tmp_path / "ready.json"
    (tmp_path / "ready.json.part").mkdir()
    command = [sys.executable, "-m", "trio_gateway", "--ready-file", str(ready)]
    command += ["--mqtt-listen", "127.0.0.1:0", "--udp-listen", "127.0.0.1:0"]
    with trio.fail_after(15):
        result = await trio.run_process(
            command, stdout=subprocess.DEVNULL, capture_stderr=True, check=False
        )
    assert result.returncode == 1
    *_, last = result.stderr.decode().splitlines()
    assert last == f"trio-gateway: cannot write the ready file {ready}: Is a directory"
