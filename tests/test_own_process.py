"""What the program does for itself, seen from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from running_program import open_running_program

from trio_gateway.own_process import open_many_files

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import atexit, gc, resource
from trio_gateway.__main__ import main
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE), gc.get_freeze_count()))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
async def test_many_files_may_be_open_and_what_was_loaded_is_not_collected(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    program = ("-c", PROGRAM)
    with trio.fail_after(20):
        async with open_running_program(
            tmp_path, program=program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            running.process.send_signal(signal.SIGTERM)
            out = await running.output_text()
            error = await running.error_text()
    limits, _, frozen = out.splitlines()[-1].rpartition(" ")
    assert limits == f"({most}, {hard})"
    assert int(frozen) > 20_000
    assert "too few file descriptors" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
@pytest.mark.parametrize("error", [OSError(22, "Invalid argument"), ValueError()])
def test_a_system_that_refuses_so_many_files(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As macOS does where the hard limit is infinite and the kernel's own is not."""
    asked: list[object] = []

    def refuse(_which: int, limits: object) -> None:
        asked.append(limits)
        raise error

    monkeypatch.setattr("resource.getrlimit", lambda _which: (256, 4096))
    monkeypatch.setattr("resource.setrlimit", refuse)
    open_many_files()
    assert asked == [(4096, 4096)]
