"""Wake-ups: in time, once, in order, and without a heap that grows."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_gateway.timers import PRUNE_FROM, Timer, Timers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


@pytest.fixture
async def timers(nursery: trio.Nursery) -> AsyncIterator[Timers]:
    timers = Timers()
    nursery.start_soon(timers.run)
    yield timers
    nursery.cancel_scope.cancel()


class Record:
    """Keeps when it was called."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.calls: list[tuple[float, str]] = []

    def note(self, name: str) -> None:
        self.calls.append((round(trio.current_time() - self.began, 6), name))


async def test_calls_come_in_order_of_their_deadlines(
    timers: Timers, autojump_clock: MockClock
) -> None:
    record = Record()
    for delay in (3, 1, 2, 1):
        timers.call_at(record.began + delay, partial(record.note, str(delay)))
    await trio.sleep(10)
    assert record.calls == [(1, "1"), (1, "1"), (2, "2"), (3, "3")]


async def test_an_earlier_deadline_replaces_a_later_one_and_not_the_other_way(
    timers: Timers, autojump_clock: MockClock
) -> None:
    record = Record()
    timer = timers.timer(lambda: record.note("woken"))
    timer.wake_by(record.began + 5)
    await trio.sleep(1)
    timer.wake_by(record.began + 3)
    timer.wake_by(record.began + 4)
    await trio.sleep(10)
    assert record.calls == [(3, "woken")]
    timer.wake_by(record.began + 20)
    await trio.sleep(10)
    assert record.calls == [(3, "woken"), (20, "woken")]


async def test_a_cancelled_timer_is_never_called_and_holds_nothing(
    timers: Timers, autojump_clock: MockClock
) -> None:
    class Session:
        def wake(self) -> None:
            pytest.fail("cancelled")

    session = Session()
    gone = weakref.ref(session)
    timer = timers.timer(session.wake)
    timer.wake_by(trio.current_time() + 100)
    timer.cancel()
    del session
    gc.collect()
    assert gone() is None, "an ended session stays in memory as long as its idle timer would run"
    timer.wake_by(trio.current_time() + 1)
    await trio.sleep(200)


async def test_one_callback_can_cancel_the_next(timers: Timers, autojump_clock: MockClock) -> None:
    at = trio.current_time() + 1
    later = timers.timer(lambda: pytest.fail("cancelled"))
    timers.call_at(at, lambda: later.cancel())  # noqa: PLW0108  it is called then
    later.wake_by(at)
    await trio.sleep(2)


async def test_a_callback_that_is_due_again_at_once_starves_nobody(
    timers: Timers, autojump_clock: MockClock
) -> None:
    calls = 0

    def again() -> None:
        nonlocal calls
        calls += 1
        if calls < 1000:
            timer.wake_by(trio.current_time())

    timer = timers.timer(again)
    timer.wake_by(trio.current_time())
    turns = 0
    while calls < 1000:
        turns += 1
        await trio.lowlevel.checkpoint()
    assert turns >= 500


async def test_timers_that_move_all_the_time_leave_a_heap_of_bounded_size(
    timers: Timers, autojump_clock: MockClock
) -> None:
    """As a session with packet loss does: far, near, far, near."""
    began = trio.current_time()
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1
        timer.wake_by(trio.current_time() + 120)

    timer = timers.timer(wake)
    for step in range(3 * PRUNE_FROM):
        timer.wake_by(began + 120 + step * 0.01)
        timer.wake_by(trio.current_time() + 0.01)
        await trio.sleep(0.01)
    assert woken >= PRUNE_FROM
    assert len(timers) <= PRUNE_FROM + 2


async def test_timers_that_come_and_go_leave_a_heap_of_bounded_size(
    timers: Timers, autojump_clock: MockClock
) -> None:
    """As a device does that says hello again and again."""
    kept: list[Timer] = []
    for number in range(4 * PRUNE_FROM):
        timer = timers.timer(lambda: None)
        timer.wake_by(trio.current_time() + 120)
        if number % 100:
            timer.cancel()
        else:
            kept.append(timer)
    assert len(timers) <= PRUNE_FROM + 2 * len(kept) + 1
    await trio.sleep(200)
    assert len(timers) == 0


@pytest.mark.parametrize("turn", [0.010, 0.040, 1.0])
async def test_in_overload_a_timer_waits_a_few_turns_and_not_for_all_that_could_be_ready(
    timers: Timers, mock_clock: MockClock, turn: float
) -> None:
    """There is always more to do, and each turn of the event loop takes long."""
    late: list[float] = []

    def call_at(deadline: float) -> None:
        timers.call_at(deadline, lambda: late.append(trio.current_time() - deadline))

    for _ in range(20):
        before, deadline = len(late), trio.current_time() + 3.5 * turn
        call_at(deadline)
        while len(late) == before:
            mock_clock.jump(turn)
            await trio.lowlevel.checkpoint()
    assert max(late) <= 5 * turn, "one or two until it wakes, as many again, and the last of them"
