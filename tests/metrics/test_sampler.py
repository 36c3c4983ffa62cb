from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import psutil
import pytest
import trio
from attrs import define, evolve
from readings import EMPTY_POOL, FakeSessions, a_pool, a_sample

from trio_gateway.core.window import Summary
from trio_gateway.metrics.cpu import usable_cores
from trio_gateway.metrics.sampler import (
    KEPT,
    ProcessUsage,
    Sampler,
    frame_rate,
    process_usage,
    signals_between,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.core.scaling import Signals
    from trio_gateway.workers.statistics import PoolStatistics


NO_USAGE = ProcessUsage(0.0, 0)


@define
class Source:
    """Counters that the test sets."""

    pool: PoolStatistics = EMPTY_POOL
    usage: ProcessUsage = NO_USAGE

    def sampler(self, cores: float = 2.0) -> Sampler:
        return Sampler(lambda: self.pool, cores=cores, process=lambda: self.usage)


def between(older: PoolStatistics, newer: PoolStatistics, seconds: float = 10.0) -> Signals:
    return signals_between(a_sample(0.0, older), a_sample(seconds, newer), frames_per_worker=5.0)


def test_load_is_the_mean_of_frames_pending_per_worker() -> None:
    older = a_pool(pending_frame_s=100.0)
    newer = a_pool(pending_frame_s=170.0, target=2)
    assert between(older, newer).load == pytest.approx(70.0)  # 7 pending, 3.5 a worker, of 5


def test_load_does_not_depend_on_the_moment_of_the_sample() -> None:
    idle_now = between(a_pool(waiting=50, in_flight=8), a_pool(pending_frame_s=20.0))
    assert idle_now.load == pytest.approx(20.0)


def test_queue_is_the_mean_number_waiting_as_a_whole_number() -> None:
    assert between(a_pool(), a_pool(waiting_frame_s=74.0)).queue == 7
    assert between(a_pool(), a_pool(waiting_frame_s=4.0)).queue == 0


def test_latency_is_the_maximum_of_the_pools_window() -> None:
    pool = a_pool(latency=Summary(5, 0.002, 0.001, 0.003, 0.004, 0.012))
    assert between(a_pool(), pool).latency == 0.012


def test_offered_load_is_arrivals_times_service_time() -> None:
    newer = a_pool(frames=10_000, busy_s=15.0)  # 1,000 frames/s of 1.5 ms each
    assert between(a_pool(), newer).offered == pytest.approx(1.5)


def test_offered_load_counts_what_came_and_not_what_was_done() -> None:
    newer = a_pool(frames=10_000, busy_s=20.0, waiting=4000, in_flight=8, dropped=992)
    assert between(a_pool(), newer).offered == pytest.approx(3.0)
    catching_up = a_pool(frames=14_008, busy_s=28.016, dropped=992)
    assert between(newer, catching_up).offered == 0.0


def test_offered_load_before_anything_finished_uses_the_mean_codec_time() -> None:
    newer = a_pool(waiting=1000, codec=Summary(mean=0.002))
    assert between(a_pool(), newer).offered == pytest.approx(0.2)


def test_cpu_is_of_the_cores_that_may_be_used() -> None:
    older, newer = a_sample(0.0, cpu_s=3.0), a_sample(10.0, cpu_s=13.0)
    assert signals_between(older, newer, frames_per_worker=5.0).cpu == pytest.approx(50.0)
    half_a_core = evolve(newer, cores=0.5)
    assert signals_between(older, half_a_core, frames_per_worker=5.0).cpu == 100.0


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert Sampler(lambda: EMPTY_POOL).cores == usable_cores()


def test_signals_say_when_they_were_measured() -> None:
    assert between(a_pool(), a_pool(), 7.5).at == 7.5


def test_two_samples_at_one_moment_are_no_division_by_zero() -> None:
    signals = signals_between(a_sample(), a_sample(), frames_per_worker=5.0)
    assert (signals.load, signals.cpu, signals.offered) == (0.0, 0.0, 0.0)
    assert frame_rate(a_sample(), a_sample()) == 0.0


def test_frame_rate() -> None:
    assert frame_rate(a_sample(0.0), a_sample(4.0, a_pool(frames=100))) == 25.0


async def test_a_sample_every_interval(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    source = Source()
    sampler = source.sampler()
    start = trio.current_time()
    nursery.start_soon(sampler.run)
    await trio.sleep(3.5)
    assert [sample.time - start for sample in sampler.samples] == [0, 1, 2, 3]
    assert {sample.lag for sample in sampler.samples} == {0.0}


async def test_a_blocked_event_loop_shows_as_lag(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    sampler = Source().sampler()
    nursery.start_soon(sampler.run)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(1.25)  # nobody ran for 0.25 s beyond the tick
    await trio.testing.wait_all_tasks_blocked()
    assert sampler.samples[-1].lag == pytest.approx(0.25)


async def test_cpu_of_a_sample_is_since_the_one_before(mock_clock: MockClock) -> None:
    source = Source()
    sampler = source.sampler(cores=2.0)
    assert sampler.take().cpu == 0.0
    mock_clock.jump(1.0)
    source.usage = ProcessUsage(0.5, 1000)
    sample = sampler.take()
    assert sample.cpu == pytest.approx(25.0)
    assert sample.process.rss_bytes == 1000


async def test_signals_need_two_samples(mock_clock: MockClock) -> None:
    sampler = Source().sampler()
    assert sampler.signals(10.0) is None
    sampler.take()
    assert sampler.signals(10.0) is None
    mock_clock.jump(1.0)
    sampler.take()
    assert sampler.signals(10.0) is not None


async def test_signals_look_back_as_far_as_asked(mock_clock: MockClock) -> None:
    source = Source()
    sampler = source.sampler()
    for second in range(21):  # load rises: 1 frame pending in the first second, 20 in the last
        source.pool = a_pool(pending_frame_s=second * (second + 1) / 2)
        sampler.take()
        mock_clock.jump(1.002)  # ticks come late, never early
    recent, window, everything = (sampler.signals(span) for span in (0, 10.0, 1000.0))
    assert recent is not None
    assert window is not None
    assert everything is not None
    assert recent.load == pytest.approx(200.0, rel=0.01)  # 20 over 2 workers of 5
    assert window.load == pytest.approx(155.0, rel=0.01)
    assert everything.load == pytest.approx(105.0, rel=0.01)
    assert len(sampler.last(10.0)) == 11


async def test_memory_is_bounded(mock_clock: MockClock) -> None:
    sampler = Source().sampler()
    for _ in range(KEPT + 50):
        sampler.take()
        mock_clock.jump(1.0)
    assert len(sampler.samples) == KEPT


async def test_sessions_are_part_of_a_sample() -> None:
    sessions = FakeSessions(active=3)
    sampler = Sampler(lambda: EMPTY_POOL, sessions=lambda: sessions)
    assert sampler.take().sessions == sessions


def test_the_real_process_uses_cpu_and_memory() -> None:
    process = psutil.Process()
    before = process_usage(process)
    while process_usage(process).cpu_s - before.cpu_s < 0.02:  # two ticks of the kernel's clock
        gc.collect()
    assert before.rss_bytes > 1_000_000
