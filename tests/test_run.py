"""The gateway as a program: real processes, real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from opus_reference import packets
from running_program import open_running_program
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.run import banner
from trio_gateway.settings import Address, MqttSettings, Secret, UdpSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from running_program import RunningProgram
    from wire_device import WireDevice


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_an_idle_gateway_with_exit_code_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    with trio.fail_after(15):
        async with open_running_program(tmp_path, stdout=subprocess.PIPE) as program:
            program.process.send_signal(number)
            assert await program.process.wait() == 0
            out, err = await program.output_text(), await program.error_text()
    assert "trio-gateway is up" in out
    assert program.addresses["mqtt"] in out
    assert program.addresses["udp"] in out
    assert "--public-host" in out, "how to open it to a network"
    assert "Traceback" not in err
    assert "every device is let in" in err


@asynccontextmanager
async def open_answer(program: RunningProgram, frames: int) -> AsyncIterator[WireDevice]:
    """A device that has said so many frames and begins to hear them."""
    async with open_device(program.mqtt, "G@@@aa_bb_cc_dd_ee_ff@@@u") as device:
        await device.hello()
        device.listen("start")
        await device.speak(packets(16000, frames))
        device.listen("stop")
        await device.wait_for("tts", state="start")
        yield device


async def test_a_live_call_is_played_to_its_end_before_it_leaves(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, stdout=subprocess.PIPE) as program,
            open_answer(program, 15) as device,
        ):
            program.process.send_signal(signal.SIGTERM)
            await device.wait_for("tts", state="stop")
            await device.wait_for("goodbye", session_id=device.session_id)
            assert len(device.heard) == 15
            assert await program.process.wait() == 0


async def test_the_grace_period_is_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_GRACE", "1")
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, stdout=subprocess.PIPE) as program,
            open_answer(program, 100) as device,
        ):
            started = trio.current_time()
            program.process.send_signal(signal.SIGTERM)
            await device.wait_for("goodbye", session_id=device.session_id)
            assert await program.process.wait() == 0
            assert trio.current_time() - started < 4, "six seconds of answer were left"


async def test_a_second_signal_is_immediate(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with (
            open_running_program(tmp_path, stdout=subprocess.PIPE) as program,
            open_answer(program, 100) as device,
        ):
            started = trio.current_time()
            program.process.send_signal(signal.SIGINT)
            await device.first_heard.wait()
            program.process.send_signal(signal.SIGINT)
            assert await program.process.wait() == 130
            assert trio.current_time() - started < 4, "six seconds of answer were left"


async def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with open_running_program(tmp_path, stdout=subprocess.PIPE) as program:
            host, port = program.mqtt
            result = await trio.run_process(
                [sys.executable, "-m", "trio_gateway", "--mqtt-listen", f"{host}:{port}"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert result.returncode == 1
    lines = [line for line in result.stderr.decode().splitlines() if "signature key" not in line]
    assert len(lines) == 1
    assert "in use" in lines[0]
    assert str(port) in lines[0]


async def test_the_banner_says_what_is_open_and_what_to_do_next() -> None:
    settings = Settings(
        mqtt=MqttSettings(listen=Address("0.0.0.0", 0)),  # noqa: S104  what it is about
        udp=UdpSettings(listen=Address("127.0.0.1", 0)),
        signature_key=Secret("a key"),
    )
    async with open_gateway(settings) as gateway:
        text = banner(gateway)
    assert "Only this machine can reach it" not in text
    assert "Audio reaches this machine only" in text
    assert "simulate --mqtt 127.0.0.1:" in text
    assert "--signature-key-file" in text
