from __future__ import annotations

import heapq
import random
from itertools import pairwise

import pytest

from trio_gateway.replay.model import IDLE_CPU, Moment, QueueingPool, erlang_c

SERVICE = 0.001


def a_pool(workers: int = 2, cores: float = 8.0) -> QueueingPool:
    return QueueingPool(workers=workers, cores=cores, patience=3.0, window=10.0)


def settled(workers: int, offered: float, cores: float = 8.0, service: float = SERVICE) -> Moment:
    return a_pool(workers, cores).step(offered, service, 1.0)


@pytest.mark.parametrize(
    ("servers", "offered", "chance"),
    [(1, 0.3, 0.3), (2, 1.0, 1 / 3), (10, 8.0, 0.4092), (5, 0.0, 0.0)],
)
def test_erlang_c_is_what_the_tables_say(servers: int, offered: float, chance: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(chance, abs=5e-5)


def simulated(workers: int, offered: float, frames: int = 150_000) -> tuple[float, float]:
    """Let frames queue for real: Poisson arrivals, as many decodes as encodes.

    Returns:
        Mean frames pending; the mean of the slowest frame of each second.
    """
    chance = random.Random(1)
    services = (0.000035, 0.000465)
    rate = offered / 0.00025
    free = [0.0] * workers
    now = total = 0.0
    slowest: dict[int, float] = {}
    for _ in range(frames):
        now += chance.expovariate(rate)
        end = max(heapq.heappop(free), now) + chance.choice(services)
        heapq.heappush(free, end)
        total += end - now
        slowest[int(now)] = max(slowest.get(int(now), 0.0), end - now)
    return total / now, sum(slowest.values()) / len(slowest)


@pytest.mark.parametrize(("workers", "offered"), [(2, 0.2), (2, 1.0), (4, 3.2), (8, 6.8)])
def test_a_queue_of_real_frames_agrees(workers: int, offered: float) -> None:
    pending, slowest = simulated(workers, offered)
    model = settled(workers, offered, cores=64, service=0.00025)
    assert model.pending == pytest.approx(pending, rel=0.03)
    assert model.latency == pytest.approx(slowest, rel=0.15)


def test_without_a_load_there_is_nothing() -> None:
    idle = Moment(pending=0, waiting=0, cpu=IDLE_CPU, latency=0, overloaded=False, dropped=0)
    assert settled(2, 0.0) == idle
    assert settled(2, 0.0, service=0.0) == idle, "a recording of nothing has no service time"


def test_what_is_too_much_piles_up_and_is_worked_off() -> None:
    pool = a_pool(workers=2)
    up = pool.step(3.0, SERVICE, 2.0)
    assert pool.backlog == pytest.approx(2000)  # one worker's 1,000 frames/s, two seconds
    assert up.pending == pytest.approx(2 + 1000, rel=0.02)  # and some by chance
    assert up.latency == pytest.approx(1.0, rel=0.03)  # 2,000 frames at 2,000 a second
    pool.workers = 6
    down = pool.step(3.0, SERVICE, 1.0)
    assert pool.backlog == 0
    assert down.pending == pytest.approx(6 + 2000 / 2 * 2 / 3, rel=0.05)  # gone after 2/3 s
    assert [up.overloaded, down.overloaded, pool.step(3.0, SERVICE, 1.0).overloaded] == [
        True,
        True,
        False,
    ]


def test_nobody_waits_longer_than_the_patience() -> None:
    pool = a_pool(workers=1)
    dropped = sum(pool.step(2.0, SERVICE, 1.0).dropped for _ in range(10))
    assert pool.backlog == pytest.approx(3.0 * 2000)  # 3 s of what arrives
    assert dropped == pytest.approx(10 * 1000 - 6000)


def test_fewer_arrivals_drop_nothing_that_waits() -> None:
    pool = a_pool(workers=1)
    pool.step(3.0, SERVICE, 1.0)
    assert pool.step(0.5, SERVICE, 1.0).dropped == 0
    assert pool.backlog == pytest.approx(1500)


def test_what_nobody_is_at_work_on_waits() -> None:
    light = settled(2, 1.0)
    assert light.waiting == pytest.approx(light.pending - 1.0)
    full = settled(2, 3.0)
    assert full.waiting == pytest.approx(full.pending - 2)


def test_cpu_is_of_the_cores() -> None:
    on_eight, on_four = settled(2, 1.0, cores=8), settled(2, 1.0, cores=4)
    assert on_eight.cpu == pytest.approx(5 + 1.23 / 8 * 100)
    assert on_four.cpu - IDLE_CPU == pytest.approx(2 * (on_eight.cpu - IDLE_CPU))
    assert settled(8, 9.0, cores=2).cpu == pytest.approx(100)


def test_more_workers_than_cores_take_turns() -> None:
    pool = a_pool(workers=8, cores=2)
    assert pool.capacity == pytest.approx(2 * 0.95 / 1.23)
    assert pool.step(2.0, SERVICE, 1.0).overloaded
    assert not settled(8, 2.0, cores=8).overloaded


def test_more_workers_never_make_it_worse() -> None:
    for offered in (0.1, 1.0, 1.9, 2.0, 2.1, 5.0):
        for fewer, more in pairwise(settled(workers, offered) for workers in range(1, 9)):
            assert more.pending <= fewer.pending
            assert more.latency <= fewer.latency + 1e-12


def test_a_slow_frame_is_forgotten_after_the_window() -> None:
    pool = a_pool()
    assert pool.step(3.0, SERVICE, 1.0).latency > 0.4
    later = [pool.step(0.1, SERVICE, 1.0).latency for _ in range(15)]
    assert later[5] > 0.4
    assert later[-1] < 0.005


def test_short_steps_come_to_the_same_as_a_long_one() -> None:
    one, many = a_pool(), a_pool()
    whole = one.step(4.0, SERVICE, 2.0)
    parts = [many.step(4.0, SERVICE, 0.1) for _ in range(20)]
    assert many.backlog == pytest.approx(one.backlog)
    assert sum(part.pending for part in parts) / 20 == pytest.approx(whole.pending)
