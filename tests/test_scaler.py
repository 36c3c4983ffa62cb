"""The scaler's loop: when it looks, what it does, what it says. The signals are made up."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field
from structlog.testing import capture_logs

from trio_gateway.core.scaling import ScalingPolicy, Signals
from trio_gateway.errors import WorkerFailed
from trio_gateway.scaler import KEPT, Scaler
from trio_gateway.settings import ScalingSettings

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.core.scaling import ScalingEvent

POLICY = ScalingPolicy(settings=ScalingSettings(), min_workers=2, max_workers=8, cores=8)
IDLE = Signals(workers=2, load=0.0, cpu=1.0, latency=0.0, queue=0, offered=0.0)
BETWEEN = Signals(workers=2, load=50.0, cpu=40.0, latency=0.02, queue=0, offered=1.0)


@define
class FakePool:
    """A pool whose signals the test sets and whose resizing takes time."""

    workers: int = 2
    window: Signals | None = BETWEEN
    recent: Signals | None = BETWEEN
    resize_takes: float = 0.0
    error: Exception | None = None
    spans: list[float] = field(factory=list)
    resized: list[tuple[float, int]] = field(factory=list)

    def signals(self, span: float) -> Signals | None:
        self.spans.append(span)
        signals = self.window if span else self.recent
        return signals and evolve(signals, workers=self.workers)

    async def resize(self, workers: int) -> None:
        await trio.sleep(self.resize_takes)
        if self.error is not None:
            raise self.error
        self.workers = workers
        self.resized.append((trio.current_time(), workers))

    def set(self, signals: Signals | None) -> None:
        self.window = self.recent = signals


def a_scaler(pool: FakePool) -> Scaler:
    return Scaler(POLICY, signals=pool.signals, resize=pool.resize)


async def test_load_adds_workers_at_the_next_check(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    start = trio.current_time()
    nursery.start_soon(a_scaler(pool).run)
    await trio.sleep(3.5)  # the first check was at 0, the next is at 10
    pool.set(evolve(BETWEEN, load=90.0, offered=2.5))
    await trio.sleep(6)
    assert pool.resized == []
    await trio.sleep(1)
    assert pool.resized == [(start + 10, 4)]


async def test_a_spike_is_answered_at_the_next_tick(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    start = trio.current_time()
    nursery.start_soon(a_scaler(pool).run)
    await trio.sleep(3.5)
    pool.recent = evolve(BETWEEN, queue=30, offered=4.0)
    await trio.sleep(1)
    assert pool.resized == [(start + 4, 6)]


async def test_every_change_is_an_event_and_a_log_line(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    seen: list[ScalingEvent] = []
    scaler = Scaler(POLICY, signals=pool.signals, resize=pool.resize, on_event=seen.append)
    pool.set(evolve(BETWEEN, load=85.0))
    with capture_logs() as logs:
        nursery.start_soon(scaler.run)
        await trio.sleep(0.5)
    (event,) = seen
    assert list(scaler.events) == seen
    assert (event.before, event.after, event.reason) == (2, 3, "load 85 % > 70 %")
    assert event.signals.load == 85.0
    assert logs == [
        {
            "event": "scaled",
            "log_level": "info",
            "before": 2,
            "workers": 3,
            "reason": "load 85 % > 70 %",
            "load": 85.0,
            "cpu": 40.0,
            "latency_ms": 20.0,
            "queue": 0,
            "offered": 1.0,
        }
    ]


async def test_a_refusal_is_a_debug_line_and_no_event(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool(workers=8)
    scaler = a_scaler(pool)
    pool.set(evolve(BETWEEN, load=85.0))
    with capture_logs() as logs:
        nursery.start_soon(scaler.run)
        await trio.sleep(0.5)
    assert [(line["log_level"], line["reason"]) for line in logs] == [
        ("debug", "would scale up (load 85 % > 70 %), already at the maximum of 8")
    ]
    assert not scaler.events
    assert scaler.last is not None
    assert scaler.last.kind == "refused"


async def test_a_refusal_that_stays_the_same_is_one_line(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    with capture_logs() as logs:
        nursery.start_soon(a_scaler(pool).run)
        pool.set(evolve(BETWEEN, queue=30))
        await trio.sleep(0.5)  # up
        await trio.sleep(20)  # refused every second, by the cooldown
        pool.set(BETWEEN)
        await trio.sleep(10)  # calm at a check
        pool.workers = 8
        pool.set(evolve(BETWEEN, queue=30))
        await trio.sleep(3600)  # refused every second, by the maximum
    said = [(line["log_level"], line["reason"]) for line in logs]
    assert said == [
        ("info", "spike: queue 30 > 6"),
        ("debug", "spike: would scale up (queue 30 > 9), cooldown 29 s left"),
        ("debug", "spike: would scale up (queue 30 > 24), already at the maximum of 8"),
    ]
    assert {**logs[-1], "reason": ""} == {
        "event": "not scaled",
        "log_level": "debug",
        "workers": 8,
        "reason": "",
        "load": 50.0,
        "cpu": 40.0,
        "latency_ms": 20.0,
        "queue": 30,
        "offered": 1.0,
    }


async def test_the_same_refusal_on_another_day_is_a_line_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool(workers=8)
    scaler = a_scaler(pool)
    with capture_logs() as logs:
        nursery.start_soon(scaler.run)
        for load in (85.0, 50.0, 90.0):
            pool.set(evolve(BETWEEN, load=load))
            await trio.sleep(20)
    assert [line["reason"].split(",")[0] for line in logs] == [
        "would scale up (load 85 % > 70 %)",
        "would scale up (load 90 % > 70 %)",
    ]


async def test_the_cooldown_begins_when_the_workers_are_there(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool(resize_takes=7.0)
    start = trio.current_time()
    nursery.start_soon(a_scaler(pool).run)
    pool.set(evolve(BETWEEN, queue=30, offered=0.0))
    await trio.sleep(50)
    (first, _), (second, _) = pool.resized
    assert first == start + 7
    assert 30 <= second - 7 - first <= 31  # asked for 30 s after, ready 7 s later


async def test_an_idle_pool_shrinks_by_one_a_minute(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool(workers=5)
    start = trio.current_time()
    pool.set(IDLE)
    nursery.start_soon(a_scaler(pool).run)
    await trio.sleep(300)
    assert pool.resized == [(start, 4), (start + 60, 3), (start + 120, 2)]


async def test_signals_are_those_since_the_last_change(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    nursery.start_soon(a_scaler(pool).run)
    pool.set(evolve(BETWEEN, load=90.0))
    await trio.sleep(12.5)
    assert pool.spans[0::2] == [10.0, *map(float, range(1, 11)), 10.0, 10.0]
    assert set(pool.spans[1::2]) == {0}


async def test_a_sample_from_before_the_last_change_is_not_looked_at(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    pool = FakePool()
    scaler = a_scaler(pool)
    scaler.policy = evolve(POLICY, min_workers=4)
    # A sampler that stands still: it says 2 workers for ever.
    signals = evolve(BETWEEN, at=start)
    scaler._signals = lambda _span: signals
    nursery.start_soon(scaler.run)
    await trio.sleep(30.5)
    assert [event.time for event in scaler.events] == [start]
    signals = evolve(BETWEEN, at=start + 30.2)
    await trio.sleep(1)
    assert [event.time for event in scaler.events] == [start, start + 31]


async def test_ticks_may_be_rarer_than_the_window_is_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    scaler = Scaler(POLICY, signals=pool.signals, resize=pool.resize, tick=40.0)
    nursery.start_soon(scaler.run)
    pool.set(evolve(BETWEEN, load=90.0))
    await trio.sleep(100)
    assert pool.workers == 5, "at 0, 40 and 80 s"


async def test_a_resize_that_fails_is_logged_and_tried_again_after_the_cooldown(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool(error=WorkerFailed("no more threads"))
    scaler = a_scaler(pool)
    pool.set(evolve(BETWEEN, load=90.0))
    with capture_logs() as logs:
        nursery.start_soon(scaler.run)
        await trio.sleep(15)
        failures = [line for line in logs if line["event"] == "scaling failed"]
        assert [line["log_level"] for line in failures] == ["error"]
        assert not scaler.events
        pool.error = None
        await trio.sleep(20)
    assert pool.workers == 3


async def test_it_can_be_cancelled_while_the_pool_is_resized(autojump_clock: MockClock) -> None:
    pool = FakePool(resize_takes=60.0)
    scaler = a_scaler(pool)
    pool.set(evolve(BETWEEN, load=90.0))
    with trio.move_on_after(5) as scope:
        await scaler.run()
    assert scope.cancelled_caught
    assert not scaler.events
    gc.collect()  # an async generator left behind would complain now


async def test_nothing_is_decided_before_something_was_measured(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    pool.set(None)
    scaler = a_scaler(pool)
    nursery.start_soon(scaler.run)
    await trio.sleep(30)
    assert scaler.last is None


async def test_paused_nothing_changes(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    pool = FakePool()
    scaler = a_scaler(pool)
    scaler.paused = True
    pool.set(evolve(BETWEEN, queue=100))
    nursery.start_soon(scaler.run)
    await trio.sleep(60.5)
    assert pool.resized == []
    scaler.paused = False
    await trio.sleep(1)
    assert pool.workers == 3


async def test_bounds_can_be_moved_while_it_runs(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    scaler = a_scaler(pool)
    nursery.start_soon(scaler.run)
    await trio.sleep(0.5)
    scaler.policy = evolve(POLICY, min_workers=4)
    await trio.sleep(10)
    assert pool.workers == 4
    assert [event.reason for event in scaler.events] == ["the bounds are 4 to 8"]


async def test_the_memory_of_events_is_bounded(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pool = FakePool()
    scaler = a_scaler(pool)
    with capture_logs():
        nursery.start_soon(scaler.run)
        for _ in range(KEPT + 10):
            pool.workers = 1  # below the minimum: corrected at the next check
            await trio.sleep(11)
    assert len(scaler.events) == KEPT


async def test_a_change_that_got_half_way_is_an_event_too(autojump_clock: MockClock) -> None:
    pool = FakePool()

    async def resize(_workers: int) -> None:
        raise WorkerFailed("no more threads")

    scaler = Scaler(POLICY, signals=pool.signals, resize=resize, workers=lambda: 3)
    pool.set(evolve(BETWEEN, load=90.0, workers=2, offered=3.0))
    with trio.move_on_after(15):
        await scaler.run()
    event = scaler.events[0]
    assert (event.before, event.after) == (2, 3)
    assert "did not start" in event.reason
