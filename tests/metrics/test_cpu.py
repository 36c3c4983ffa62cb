from __future__ import annotations

import os
from math import inf
from typing import TYPE_CHECKING

import pytest

from trio_gateway.metrics.cpu import cgroup_limit, usable_cores

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"
V2 = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        pytest.param({}, inf, id="no cgroups at all"),
        pytest.param({"proc/self/cgroup": "0::/a/b"}, inf, id="v2 root without the controller"),
        pytest.param(
            {"proc/self/cgroup": "0::/a", f"{V2}/a/cpu.max": "max 100000"}, inf, id="v2 unlimited"
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/a", f"{V2}/a/cpu.max": "150000 100000"}, 1.5, id="v2"
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b",
                f"{V2}/a/b/cpu.max": "400000 100000",
                f"{V2}/a/cpu.max": "200000 100000",
            },
            2.0,
            id="v2, the parent is tighter",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/docker/of-the-host", f"{V2}/cpu.max": "50000 100000"},
            0.5,
            id="v2, the path is the host's",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/../other", f"{V2}/cpu.max": "50000 100000"},
            0.5,
            id="v2, outside of the namespace",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpuset:/x\n1:cpu,cpuacct:/a\n0::/",
                f"{V1}/a/cpu.cfs_quota_us": "250000",
                f"{V1}/a/cpu.cfs_period_us": "100000",
                f"{V1}/cpu.cfs_quota_us": "-1",
                f"{V1}/cpu.cfs_period_us": "100000",
            },
            2.5,
            id="v1",
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], limit: float) -> None:
    assert cgroup_limit(write(tmp_path, files)) == limit


def test_affinity_and_limit_together(tmp_path: Path) -> None:
    unlimited = usable_cores(tmp_path)
    assert 1 <= unlimited <= (os.cpu_count() or 1)
    write(tmp_path, {"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "25000 100000"})
    assert usable_cores(tmp_path) == 0.25


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_obeyed(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_this_machine_has_an_answer() -> None:
    assert 0 < usable_cores() <= (os.cpu_count() or 1)
