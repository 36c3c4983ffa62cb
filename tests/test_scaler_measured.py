"""The scaler with real samples, and with real workers: what ages, and who goes when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from attrs import define, evolve, field
from readings import a_pool

from trio_gateway.core.scaling import ScalingPolicy, Signals
from trio_gateway.metrics.sampler import ProcessUsage, Sampler
from trio_gateway.scaler import Scaler
from trio_gateway.settings import PoolSettings, ScalingSettings
from trio_gateway.workers.pool import open_worker_pool
from trio_gateway.workers.statistics import Counters

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.workers.statistics import PoolStatistics

POLICY = ScalingPolicy(settings=ScalingSettings(), min_workers=2, max_workers=8, cores=8)
IDLE = Signals(workers=2, load=0.0, cpu=1.0, latency=0.0, queue=0, offered=0.0)


@define
class CountedPool:
    """The real counters and the real window, without frames: the test says what passed."""

    window: float = 10.0
    workers: int = 2
    counters: Counters = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counters = Counters(self.window, trio.current_time())

    def statistics(self) -> PoolStatistics:
        now, counters = trio.current_time(), self.counters
        counters.until(now)
        return a_pool(
            target=self.workers,
            waiting=counters.waiting,
            decoded=counters.decoded,
            frames=counters.decoded,
            busy_s=counters.busy_s,
            latency=counters.latency.summary(now),
            codec=counters.codec.summary(now),
            pending_frame_s=counters.pending_frame_s,
            waiting_frame_s=counters.waiting_frame_s,
        )

    async def resize(self, workers: int) -> None:
        self.workers = workers

    def frame(self, latency: float) -> None:
        self.counters.decoded += 1
        self.counters.in_flight += 1
        self.counters.took(latency, 0.0002)
        self.counters.settle(trio.current_time())

    async def calm(self, seconds: int) -> None:
        for _ in range(seconds * 10):
            self.frame(0.0004)
            await trio.sleep(0.1)

    def scaler(self) -> tuple[Sampler, Scaler]:
        sampler = Sampler(self.statistics, cores=8.0, process=lambda: ProcessUsage(0.0, 0))
        policy = evolve(POLICY, latency_window=self.window)
        return sampler, Scaler(policy, signals=sampler.signals, resize=self.resize)


@pytest.mark.parametrize("window", [10.0, 70.0])
async def test_one_late_frame_adds_one_worker_and_is_forgotten(
    window: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = CountedPool(window)
    sampler, scaler = pool.scaler()
    nursery.start_soon(sampler.run)
    nursery.start_soon(scaler.run)
    await pool.calm(3)
    pool.frame(0.080)
    await pool.calm(300)
    assert [(event.before, event.after) for event in scaler.events] == [(2, 3), (3, 2)]
    assert scaler.events[0].reason == "spike: latency 80 ms > 50 ms"


async def test_a_spike_five_minutes_ago_says_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = CountedPool()
    sampler, scaler = pool.scaler()
    nursery.start_soon(sampler.run)
    nursery.start_soon(scaler.run)
    await pool.calm(20)
    before = sampler.signals(10.0)
    pool.statistics()  # brings the integrals up to now
    pool.counters.waiting = 300
    await pool.calm(2)
    pool.statistics()
    pool.counters.waiting = 0
    for _ in range(300):
        pool.frame(0.9)
    during = sampler.signals(10.0)
    await pool.calm(300)
    after = sampler.signals(10.0)
    assert before is not None
    assert during is not None
    assert after is not None
    assert during.queue > 30
    assert [event.after for event in scaler.events] == [3, 2]
    for name in ("load", "cpu", "latency", "queue", "offered"):
        # To a frame in the window: it counts whole frames.
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-4), name


async def test_real_workers_go_one_after_another() -> None:
    seen: list[tuple[int, int]] = []
    with trio.fail_after(20):
        async with (
            open_worker_pool(PoolSettings(min_workers=5, kind="thread")) as pool,
            trio.open_nursery() as nursery,
        ):

            def signals(_span: float) -> Signals:
                return evolve(IDLE, workers=pool.statistics().target)

            scaler = Scaler(evolve(POLICY, max_workers=2), signals=signals, resize=pool.resize)
            nursery.start_soon(scaler.run)
            while not scaler.events:
                states = [worker.state for worker in pool.statistics().workers]
                seen.append((states.count("ready"), states.count("draining")))
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert max(draining for _, draining in seen) <= 1
    assert sorted({ready for ready, _ in seen} - {2}, reverse=True) == [5, 4, 3]
    (event,) = scaler.events
    assert (event.before, event.after) == (5, 2)
