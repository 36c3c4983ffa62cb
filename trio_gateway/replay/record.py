"""Records a running gateway's load as a trace that can be replayed."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog
import trio
from trio_util import periodic

from trio_gateway.errors import TraceError
from trio_gateway.metrics.sampler import signals_between
from trio_gateway.replay.trace import Measured, Row, json_line

if TYPE_CHECKING:
    from pathlib import Path

    from trio_gateway.metrics.sampler import Sample, Sampler

__all__ = ["Recorder", "record", "row_between"]

log = structlog.get_logger(__name__)


async def record(
    sampler: Sampler,
    path: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Write a row for each sample until cancelled: about 200 bytes a second.

    A disk that is full ends the recording and nothing else.

    Args:
        sampler: Must be running.
        path: Is replaced if it exists.
        task_status: Started when the file is open.

    Raises:
        TraceError: The file cannot be opened.
    """
    try:
        file = await trio.open_file(path, "w", encoding="utf-8")
    except OSError as error:
        raise TraceError(f"cannot record a trace: {path}: {error.strerror}") from error
    recorder = Recorder(sampler)
    try:
        async with file, aclosing(periodic(sampler.interval)) as ticks:
            task_status.started()
            async for _ in ticks:
                await file.write(recorder.new_lines())
                await file.flush()  # a gateway that is killed leaves whole lines
    except OSError as error:
        log.error("the recording of the trace has ended", path=str(path), error=error.strerror)  # noqa: TRY400  the disk's fault


class Recorder:
    """Turns a sampler's samples into a trace, whenever it is asked.

    Args:
        sampler: Keeps enough samples for the time between two questions.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._first: Sample | None = None
        self._last: Sample | None = None

    def new_lines(self) -> str:
        """Return a row for each sample that has come since the last call."""
        lines = []
        for sample in self._sampler.samples:
            if self._first is None or self._last is None:
                self._first = self._last = sample
            elif sample.time > self._last.time:
                row = row_between(self._last, sample, began=self._first.time)
                lines.append(json_line(row))
                self._last = sample
        return "".join(lines)


def row_between(older: Sample, newer: Sample, *, began: float) -> Row:
    """Return what was between two samples.

    Args:
        older: One sample.
        newer: A later one.
        began: Seconds on the clock of both; the trace's 0.
    """
    before, after = older.pool, newer.pool
    elapsed = newer.time - older.time
    finished = after.frames - before.frames
    signals = signals_between(older, newer, frames_per_worker=1.0)
    return Row(
        time=newer.time - began,
        offered=signals.offered,
        service=(after.busy_s - before.busy_s) / finished if finished else after.service_s,
        measured=Measured(
            workers=after.target,
            pending=(after.pending_frame_s - before.pending_frame_s) / elapsed,
            # A frame's time in libopus is known when it ends: never mind what that is below 0.
            waiting=max(after.waiting_frame_s - before.waiting_frame_s, 0.0) / elapsed,
            cpu=signals.cpu,
            cores=newer.cores,
            latency=signals.latency,
        ),
    )
