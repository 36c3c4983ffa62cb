"""The gateway's process, seen from the one with the devices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import trio
from attrs import define, field
from samples import Inside, Rest, Sample, look_outside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["PATIENCE", "GatewayGone", "Served", "open_served"]

PATIENCE: Final = 20.0
"""Seconds for anything to end: a start takes 10 at most, a keepalive in mischief.py 1.5."""

SETTLING: Final = 2.0
"""Seconds; a guess: until tasks and threads that have nothing to do any more have ended."""

_PROGRAM: Final = str(Path(__file__).with_name("gateway_program.py"))


class GatewayGone(Exception):  # noqa: N818  a state, as in errors.py
    """The process has ended before its time."""


@define(eq=False)
class Served:
    """The gateway's process, and what it says."""

    process: trio.Process
    began: float = field(factory=trio.current_time)
    errors: Counter[str] = field(factory=Counter)
    _turn: trio.Lock = field(factory=trio.Lock)
    _heard: bytes = b""

    async def order(self, name: str, *arguments: object) -> Any:
        """Have something done; see gateway_program.py for what there is."""
        assert self.process.stdin is not None  # noqa: S101  it was opened so
        async with self._turn:
            with trio.fail_after(PATIENCE) as scope:
                scope.shield = True  # or its answer would be taken for the next one's
                line = json.dumps([name, *arguments]).encode() + b"\n"
                try:
                    await self.process.stdin.send_all(line)
                except trio.BrokenResourceError:
                    raise await self._gone() from None
                return await self.hear()

    async def hear(self) -> Any:
        """Return its next line."""
        assert self.process.stdout is not None  # noqa: S101
        while b"\n" not in self._heard:
            chunk = await self.process.stdout.receive_some()
            if not chunk:
                raise await self._gone()
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    async def _gone(self) -> GatewayGone:
        with trio.move_on_after(PATIENCE):
            await self.process.wait()
        return GatewayGone(f"exit code {self.process.returncode}")

    async def look(self) -> Sample:
        """Take a sample."""
        inside = Inside(**await self.order("look"))
        return look_outside(
            psutil.Process(self.process.pid), inside, trio.current_time() - self.began
        )

    async def rest(self, before: Sample | None = None) -> Rest:
        """Wait until all that devices had is gone, or has had its time; then count.

        Args:
            before: How it was without devices; None if that is the question.
        """
        await self.order("count")
        with trio.move_on_after(PATIENCE):
            while (await self.look()).inside.busy:  # noqa: ASYNC110  nobody tells us
                await trio.sleep(0.1)
        with trio.move_on_after(SETTLING):
            while before is None or not _is_back(await self.look(), before):  # noqa: ASYNC110
                await trio.sleep(0.1)
        objects: dict[str, int] = await self.order("count")
        return Rest(sample=await self.look(), objects=objects)

    async def leave(self) -> dict[str, int]:
        """Have it end. Returns what it has left over; exit code -9 if it would not end."""
        assert self.process.stdin is not None  # noqa: S101
        await self.process.stdin.aclose()
        left: dict[str, int] = await self.hear()
        with trio.move_on_after(PATIENCE):
            await self.process.wait()
        self.process.kill()
        return left

    async def read_log(self) -> None:
        """Count its errors; show what is no log line."""
        assert self.process.stderr is not None  # noqa: S101
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._note(line)

    def _note(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:  # a traceback, a warning of Python's
            text = line.decode(errors="replace")
            print(text, file=sys.stderr, flush=True)
            self.errors[text] += 1
            return
        if entry.get("level") in ("error", "critical"):
            self.errors[str(entry.get("event"))] += 1


@asynccontextmanager
async def open_served(kind: str, harm: Sequence[str]) -> AsyncIterator[tuple[Served, Any]]:
    """The gateway's process and its addresses; killed if it is still there in the end."""
    arguments = json.dumps({"kind": kind, "harm": list(harm)})
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(
        [sys.executable, _PROGRAM, arguments], stdin=pipe, stdout=pipe, stderr=pipe
    )
    served = Served(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.read_log)
            yield served, await served.hear()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _is_back(now: Sample, before: Sample) -> bool:
    return (
        now.inside.tasks <= before.inside.tasks
        and now.descriptors <= before.descriptors
        and now.threads <= before.threads
    )
