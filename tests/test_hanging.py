"""Handlers that do not end: the program does, in its grace period, and says where they hang."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
from light_device import HELLO, device_name, open_light_device
from running_program import RunningProgram, open_running_program

if TYPE_CHECKING:
    from pathlib import Path

GRACE = 1.0
"""Handlers that hang, hang for ever: any bound says that the program did not wait for them."""

SCRIPT = """
import atexit, sys, threading, time
from functools import partial
from pathlib import Path
import trio
from trio_gateway import last_resort, logs, run
from trio_gateway.settings import Address, LogSettings, MqttSettings, Settings, UdpSettings

def stuck():
    threading.Event().wait()

def spin():
    while True:
        pass

def at_the_end():
    stuck()

class AtTheEnd:
    def __del__(self, sleep=time.sleep):
        sleep(1000)

async def hang(session):
    if session.device.text.endswith("uuid-0"):
        await trio.sleep_forever()
    if way in ("_shutdown", "spin"):
        threading.Thread(target=stuck if way == "_shutdown" else spin).start()
        return
    if way == "at_the_end":
        atexit.register(at_the_end)
        return
    if way == "__del__":
        sys.at_the_end = AtTheEnd()
        return
    if way == "shielded":
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    while way == "stubborn":
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
    if way == "thread":
        await trio.to_thread.run_sync(stuck)
    if way == "nested":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, stuck)
    print("blocking", flush=True)
    if way == "sleeping":
        time.sleep(1000)
    spin()

if __name__ == "__main__":
    way, grace, ready = sys.argv[1], float(sys.argv[2]), Path(sys.argv[-1])
    last_resort.LEAST = grace  # a test has no time
    logs.configure(LogSettings())
    here = Address("127.0.0.1", 0)
    settings = Settings(mqtt=MqttSettings(listen=here), udp=UdpSettings(listen=here), grace=grace)
    sys.exit(trio.run(partial(run.main, settings, ready, handler=hang)))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "hanging.py"
    path.write_text(SCRIPT)
    return str(path)


async def ends_in_time(program: RunningProgram) -> int:
    """The exit code."""
    began = trio.current_time()
    program.process.send_signal(signal.SIGTERM)
    code = await program.process.wait()
    assert trio.current_time() - began < GRACE + 5, "five seconds are for a busy machine"
    return code


@pytest.mark.parametrize("way", ["shielded", "stubborn", "thread", "nested"])
async def test_a_handler_that_ignores_its_cancellation(
    tmp_path: Path, script: str, way: str
) -> None:
    """The event loop runs: everybody gets a goodbye, once, and the log says where it hangs."""
    with trio.fail_after(30):
        async with (
            open_running_program(tmp_path, program=(script, way, str(GRACE))) as program,
            open_light_device(program.mqtt, device_name(0)) as good,
            open_light_device(program.mqtt, device_name(1)) as bad,
            trio.open_nursery() as nursery,
        ):
            ids = [(await device.hello())["session_id"] for device in (good, bad)]
            for device in (good, bad):
                nursery.start_soon(device.listen_until_closed)
            assert await ends_in_time(program) == 1
            error = await program.error_text()
    assert [good.goodbyes, bad.goodbyes] == [[ids[0]], [ids[1]]]
    (line,) = (each for each in error.splitlines() if "handler does not end" in each)
    assert ids[1] in line
    assert "hanging.py" in line
    assert "in hang" in line
    assert "most recent call first" in error, "the stacks of all threads"


@pytest.mark.parametrize("way", ["sleeping", "spinning"])
async def test_a_handler_that_blocks_the_thread(tmp_path: Path, script: str, way: str) -> None:
    """No goodbye can go out and Trio never hears of the signal; it ends all the same."""
    with trio.fail_after(30):
        async with (
            open_running_program(
                tmp_path, program=(script, way, str(GRACE)), stdout=subprocess.PIPE
            ) as program,
            open_light_device(program.mqtt, device_name(1)) as bad,
        ):
            await bad.say(HELLO)
            assert program.process.stdout is not None
            await program.process.stdout.receive_some()
            assert await ends_in_time(program) == 1
            error = await program.error_text()
    assert "in hang" in error
    assert "hanging.py" in error


@pytest.mark.parametrize("way", ["_shutdown", "spin", "at_the_end", "__del__"])
async def test_what_is_left_to_python_s_own_end(tmp_path: Path, script: str, way: str) -> None:
    """Everything has ended as it should, `main` has returned, and a thread or so holds Python."""
    with trio.fail_after(30):
        async with (
            open_running_program(tmp_path, program=(script, way, str(GRACE))) as program,
            open_light_device(program.mqtt, device_name(1)) as device,
        ):
            await device.hello()
            while (await device.receive())["type"] != "goodbye":
                pass
            assert await ends_in_time(program) == 1
            error = await program.error_text()
    assert f"in {way}" in error
    assert "_core/_run.py" not in error, "Trio has ended"


async def test_a_second_signal_does_not_wait_for_the_grace_period(
    tmp_path: Path, script: str
) -> None:
    with trio.fail_after(30):
        async with (
            open_running_program(tmp_path, program=(script, "shielded", "60")) as program,
            open_light_device(program.mqtt, device_name(1)) as bad,
        ):
            await bad.hello()
            program.process.send_signal(signal.SIGINT)
            while (await bad.receive())["type"] != "goodbye":
                pass
            assert await ends_in_time(program) == 1


async def test_not_even_a_standard_error_that_takes_nothing(tmp_path: Path, script: str) -> None:
    """The stacks cannot be printed, and whoever prints them hangs too. The kernel's alarm comes."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, bytes(4096))
    except BlockingIOError:
        os.set_blocking(write_end, True)
    with trio.fail_after(30):
        async with (
            open_running_program(
                tmp_path,
                program=(script, "spinning", str(GRACE)),
                stdout=subprocess.PIPE,
                stderr=write_end,
            ) as program,
            open_light_device(program.mqtt, device_name(1)) as bad,
        ):
            os.close(write_end)
            await bad.say(HELLO)
            assert program.process.stdout is not None
            await program.process.stdout.receive_some()
            assert await ends_in_time(program) == -signal.SIGALRM
    os.close(read_end)
