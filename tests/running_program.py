"""`python -m trio_gateway`, or a script like it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ["MODULE", "RunningProgram", "open_running_program"]

MODULE = ("-m", "trio_gateway")


@frozen
class RunningProgram:
    """A gateway that takes calls."""

    process: trio.Process
    addresses: dict[str, Any]

    @property
    def mqtt(self) -> tuple[str, int]:
        host, _, port = self.addresses["mqtt"].rpartition(":")
        return host, int(port)

    async def output_text(self) -> str:
        """What it printed, when it has ended; it has to be started with a pipe for it."""
        assert self.process.stdout is not None
        return b"".join([chunk async for chunk in self.process.stdout]).decode()

    async def error_text(self) -> str:
        """What it wrote to standard error, when it has ended."""
        assert self.process.stderr is not None
        return b"".join([chunk async for chunk in self.process.stderr]).decode()


@asynccontextmanager
async def open_running_program(
    tmp_path: Path,
    *flags: str,
    program: Sequence[str] = MODULE,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> AsyncIterator[RunningProgram]:
    """Start it; kill it at the end if it still runs.

    Args:
        tmp_path: Where its ready file goes.
        flags: Of the command line, beyond the listeners and the ready file.
        program: What Python is to run.
        stdout: As subprocess has it.
        stderr: The same.
    """
    ready = tmp_path / "ready.json"
    listen = ["--mqtt-listen", "127.0.0.1:0", "--udp-listen", "127.0.0.1:0"]
    command = [sys.executable, *program, *listen, "--ready-file", str(ready), *flags]
    process = await trio.lowlevel.open_process(command, stdout=stdout, stderr=stderr)
    try:
        while not ready.exists():
            assert process.poll() is None, "it ended before it was ready"
            await trio.sleep(0.02)  # another process: there is nothing to wait on but its file
        yield RunningProgram(process, json.loads(ready.read_text()))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
