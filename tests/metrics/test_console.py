from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio
from readings import EMPTY_POOL, POLICY, FakeSessions, a_pool, a_sample, a_worker, an_event
from structlog.testing import capture_logs

from trio_gateway.core.window import Summary
from trio_gateway.metrics.console import event_line, run_console, status_block
from trio_gateway.metrics.sampler import ProcessUsage, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from trio_gateway.core.scaling import ScalingEvent


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


BUSY = a_pool(
    workers=(a_worker(1), a_worker(2), a_worker(3, state="draining")),
    frames=12_345,
    decoded=6_300,
    encoded=6_000,
    concealed=45,
    failed=1,
    dropped=2,
    late=3,
    deaths=4,
    latency=Summary(12_000, 0.0006, 0.00042, 0.0012, 0.0031, 0.0123),
    codec=Summary(12_000, 0.0002, 0.00021, 0.0005, 0.0005, 0.0005),
    pending_frame_s=129.0,
    waiting_frame_s=30.0,
)


def test_the_block_in_full() -> None:
    samples = [
        a_sample(0.0, sessions=FakeSessions(active=1, frames_up=100)),
        a_sample(15.0, lag=0.004, sessions=FakeSessions()),
        a_sample(
            30.0,
            BUSY,
            cpu_s=20.4,
            lag=0.001,
            sessions=FakeSessions(active=12, frames_up=6_100, frames_down=5_900, lost=45),
        ),
    ]
    events = [
        an_event(11.0, 2, 6, "spike: queue 12 > 6; 3.9 workers of load need 6"),
        an_event(29.0, 6, 8, "load 85 % > 70 %"),
    ]
    assert status_block(samples, policy=POLICY, events=events).splitlines() == [
        "the last 30 s",
        "  workers   2 of 2 to 8 (thread), load 43 % (2.1 frames pending per worker), queue 1",
        "  frames    12,345 (412/s): 6,300 decoded, 6,000 encoded, 45 concealed; 12,345 in all",
        "  latency   p50 0.42 ms, p95 1.20 ms, p99 3.10 ms, max 12.3 ms (codec p50 0.21 ms)",
        "  sessions  12 active; 6,000 frames up, 5,900 down, 45 lost, 0 dropped",
        "  process   CPU 34 % of 2 cores, memory 50.0 MiB, event loop at most 4.00 ms late",
        "  errors    1 frames refused by the codec, 2 dropped, 3 late, 4 workers died",
        "  scaled    22:13:31  2 -> 6  spike: queue 12 > 6; 3.9 workers of load need 6",
        "  scaled    22:13:49  6 -> 8  load 85 % > 70 %",
    ]


def test_an_idle_pool_without_sessions_has_less_to_say() -> None:
    block = status_block([a_sample(0.0), a_sample(30.0)], policy=POLICY, events=[])
    assert "no frames" in block
    assert "sessions" not in block
    assert "scaled" not in block


def test_an_event_is_one_line() -> None:
    assert event_line(an_event(0.0, 4, 3, "idle")) == "22:13:20  4 -> 3  idle"


async def test_a_block_every_interval_with_the_changes_since_the_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    sampler = Sampler(lambda: EMPTY_POOL, cores=2.0, process=lambda: ProcessUsage(0.0, 0))
    events: list[ScalingEvent] = []
    blocks: list[str] = []

    async def console() -> None:
        await run_console(sampler, policy=lambda: POLICY, events=events, write=blocks.append)

    nursery.start_soon(sampler.run)
    await trio.sleep(0.5)
    nursery.start_soon(console)
    await trio.sleep(10)
    events.append(an_event(trio.current_time(), 2, 3, "first"))
    await trio.sleep(30)
    events.append(an_event(trio.current_time(), 3, 4, "second"))
    await trio.sleep(21)
    assert [block.splitlines()[0] for block in blocks] == ["the last 30 s"] * 2
    scaled = [[line[-6:] for line in block.splitlines() if "scaled" in line] for block in blocks]
    assert scaled == [[" first"], ["second"]]


async def test_the_log_is_where_a_block_goes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    sampler = Sampler(lambda: EMPTY_POOL, cores=2.0, process=lambda: ProcessUsage(0.0, 0))

    async def console() -> None:
        await run_console(sampler, policy=lambda: POLICY, events=[], interval=5.0)

    with capture_logs() as logs:
        nursery.start_soon(sampler.run)
        await trio.sleep(0.5)
        nursery.start_soon(console)
        await trio.sleep(5.5)
    (line,) = logs
    assert line["log_level"] == "info"
    assert line["event"].startswith("the last 5 s\n  workers")
