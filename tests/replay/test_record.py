"""What a running gateway records can be replayed, and then decides the same."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from attrs import define, evolve, field
from click.testing import CliRunner
from readings import a_pool, a_sample
from structlog.testing import capture_logs

from trio_gateway import cli, run
from trio_gateway.core.scaling import ScalingPolicy
from trio_gateway.core.window import Summary
from trio_gateway.errors import TraceError
from trio_gateway.metrics.sampler import ProcessUsage, Sampler
from trio_gateway.replay import read, replay
from trio_gateway.replay.model import QueueingPool
from trio_gateway.replay.record import Recorder, record, row_between
from trio_gateway.replay.trace import Measured, parse
from trio_gateway.scaler import Scaler
from trio_gateway.settings import Address, Settings

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.workers.statistics import PoolStatistics

FULL = Path("/dev/full")
SERVICE = 0.001


@define
class PretendPool:
    """A pool that reports of load as the real one does: by counters that only grow."""

    model: QueueingPool
    offered: float = 0.4
    numbers: PoolStatistics = field(factory=partial(a_pool, target=2))
    cpu_s: float = 0.0
    _at: float = field(factory=trio.current_time)

    def statistics(self) -> PoolStatistics:
        elapsed, self._at = trio.current_time() - self._at, trio.current_time()
        if elapsed:
            moment = self.model.step(self.offered, SERVICE, elapsed)
            frames = round(self.offered / SERVICE * elapsed)
            self.cpu_s += moment.cpu / 100 * self.model.cores * elapsed
            old = self.numbers
            self.numbers = evolve(
                old,
                frames=old.frames + frames,
                busy_s=old.busy_s + frames * SERVICE,
                pending_frame_s=old.pending_frame_s + moment.pending * elapsed,
                waiting_frame_s=old.waiting_frame_s + moment.waiting * elapsed,
                latency=Summary(max=moment.latency),
            )
        return evolve(self.numbers, target=self.model.workers)

    def usage(self) -> ProcessUsage:
        return ProcessUsage(self.cpu_s, 0)

    async def resize(self, workers: int) -> None:
        self.model.workers = workers


async def test_a_recorded_trace_replays_to_the_same_decisions(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = Settings()
    pool = PretendPool(QueueingPool(workers=2, cores=8.0))
    sampler = Sampler(pool.statistics, cores=8.0, process=pool.usage)
    policy = ScalingPolicy(settings=settings.scaling, min_workers=2, max_workers=8, cores=8.0)
    scaler = Scaler(policy, signals=sampler.signals, resize=pool.resize)
    recorder = Recorder(sampler)
    lines: list[str] = []
    start = trio.current_time()
    nursery.start_soon(sampler.run)
    await trio.sleep(0.5)
    nursery.start_soon(scaler.run)  # looks half a second after each sample
    for offered, minutes in ((0.4, 1), (3.5, 1), (4.3, 1), (0.4, 7)):
        pool.offered = offered
        for _ in range(minutes):
            await trio.sleep(60)
            lines += recorder.new_lines().splitlines()
    done = replay(parse(lines, name="recorded"), settings)
    expected = [(e.time - start - 0.5, e.before, e.after, e.reason) for e in scaler.events]
    assert len({after for _, _, after, _ in expected}) > 4, "the load made it work"
    replayed = [
        (step.span.time, step.change.before, step.change.after, step.change.reason)
        for step in done.steps
        if step.change is not None
    ]
    assert replayed == expected


def test_a_row_is_the_difference_between_two_samples() -> None:
    older = a_sample(5.0, a_pool(frames=100, busy_s=1.0, pending_frame_s=10.0), cpu_s=3.0)
    pool = a_pool(
        frames=600,
        waiting=100,
        busy_s=1.15,
        pending_frame_s=16.0,
        waiting_frame_s=1.0,
        target=3,
        latency=Summary(max=0.012),
    )
    row = row_between(older, a_sample(7.0, pool, cpu_s=4.0), began=2.0)
    assert row.time == 5.0
    assert row.offered == pytest.approx(0.09)  # 600 came, at 0.3 ms each, in 2 s
    assert row.service == pytest.approx(0.0003)
    assert row.measured == Measured(
        workers=3, pending=3.0, waiting=0.5, cpu=25.0, cores=2.0, latency=0.012
    )


def test_a_row_of_nothing_has_no_service_time() -> None:
    row = row_between(a_sample(0.0), a_sample(1.0), began=0.0)
    assert (row.offered, row.service) == (0.0, 0.0)


async def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    sampler = Sampler(a_pool)
    with pytest.raises(TraceError, match=r"cannot record a trace: .*: Is a directory"):
        await record(sampler, tmp_path)


@pytest.mark.skipif(not FULL.exists(), reason="there is no full disk at hand")
async def test_a_full_disk_ends_the_recording_and_nothing_else(
    nursery: trio.Nursery,
) -> None:
    sampler = Sampler(a_pool, interval=0.01)
    nursery.start_soon(sampler.run)
    with capture_logs() as logs, trio.fail_after(30):
        await record(sampler, FULL)
    (line,) = logs
    assert (line["log_level"], line["error"]) == ("error", "No space left on device")


async def test_the_gateway_records_its_load(tmp_path: Path) -> None:
    here = Address("127.0.0.1", 0)
    settings = Settings()
    settings = evolve(
        settings,
        mqtt=evolve(settings.mqtt, listen=here),
        udp=evolve(settings.udp, listen=here),
        metrics=evolve(settings.metrics, interval=0.02),
    )
    file = tmp_path / "load.jsonl"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run.main, settings, trace=file, echo=lambda _line: None))
            while not file.exists() or file.read_text().count("\n") < 3:  # noqa: ASYNC110  a file
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    trace = read(file)
    assert {row.measured is not None and row.measured.workers for row in trace.rows} == {2}
    assert {row.offered for row in trace.rows} == {0.0}
    assert replay(trace, settings).steps[-1].workers == 2


def test_the_flag_reaches_the_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Path | None] = []

    async def main(_settings: Settings, _ready_file: Path | None, trace: Path | None) -> int:
        seen.append(trace)
        return 0

    monkeypatch.setattr("trio_gateway.run.main", main)
    monkeypatch.setattr("trio_gateway.logs.configure", lambda _: None)
    for arguments in ([], ["--record-trace", str(tmp_path / "load.jsonl")]):
        assert CliRunner().invoke(cli.main, arguments).exit_code == 0
    assert seen == [None, tmp_path / "load.jsonl"]


def test_a_gateway_that_cannot_record_says_so_and_ends(tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "load.jsonl"
    listen = ["--mqtt-listen", "127.0.0.1:0", "--udp-listen", "127.0.0.1:0"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "trio_gateway", *listen, "--record-trace", str(nowhere)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    *_, said = done.stderr.splitlines()
    assert said == f"trio-gateway: cannot record a trace: {nowhere}: No such file or directory"
