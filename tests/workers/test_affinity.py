from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from odd_workers import kinds_of, work

from trio_gateway.settings import PoolSettings
from trio_gateway.workers.affinity import least_used_core, pinned
from trio_gateway.workers.pool import KINDS, open_worker_pool

if TYPE_CHECKING:
    from trio_gateway.workers.base import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins threads")

if sys.platform == "linux":
    CORES = sorted(os.sched_getaffinity(0))


def test_cores_are_shared_out_evenly() -> None:
    taken: list[int | None] = []
    for _ in range(2 * len(CORES)):
        taken.append(least_used_core(taken))
    assert taken == CORES * 2


def test_a_thread_gets_its_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(CORES[-1]):
        assert os.sched_getaffinity(0) == {CORES[-1]}
    assert os.sched_getaffinity(0) == before
    with pinned(None):
        assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("pin", [False, True])
async def test_each_worker_has_a_core(pin: bool) -> None:  # noqa: FBT001
    seen: list[set[int]] = []

    def look(job: Job) -> None:
        seen.append(os.sched_getaffinity(0))
        work(job)

    everywhere = os.sched_getaffinity(0)
    settings = PoolSettings(kind="thread", min_workers=2, pin_workers=pin)
    async with open_worker_pool(settings, kinds=kinds_of(look)) as pool:
        await pool.resize(4)
        assert pool.statistics().deaths == 0
    expected = [{core} for core in CORES * 4][:4] if pin else [everywhere] * 4
    assert seen == expected
    assert os.sched_getaffinity(0) == everywhere, "the Trio thread stays where it was"


async def test_a_core_that_was_taken_away_is_no_reason_to_be_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_gateway.workers.supervisor.least_used_core", lambda _: 100_000)
    settings = PoolSettings(kind="thread", min_workers=1, pin_workers=True)
    async with open_worker_pool(settings, kinds=KINDS) as pool:
        assert [worker.state for worker in pool.statistics().workers] == ["ready"]
