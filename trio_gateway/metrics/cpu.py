"""How much CPU this process may use: its affinity, and what its control groups allow.

Load measured against the whole machine says "idle" in a container that is throttled. The kernel's
interfaces: sched_setaffinity(2); `cpu.max` (Documentation/admin-guide/cgroup-v2.rst); and
`cpu.cfs_quota_us` / `cpu.cfs_period_us` (Documentation/scheduler/sched-bwc.rst) for cgroup v1.
"""

from __future__ import annotations

import os
from math import inf
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cgroup_limit", "usable_cores"]


def usable_cores(root: Path = Path("/")) -> float:
    """Return the CPU cores that this process may use; 1.5 in a container with that limit.

    Args:
        root: Where /proc and /sys are.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(float(cores), cgroup_limit(root))


def cgroup_limit(root: Path = Path("/")) -> float:
    """Return the tightest CPU limit of this process's control groups, in cores; inf if none.

    Args:
        root: Where /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return inf
    limits = [inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers:  # v1: one hierarchy for each set of controllers
            if "cpu" not in controllers.split(","):
                continue
            mount /= controllers
        limits += map(_limit, _ancestry(mount, group))
    return min(limits)


def _ancestry(mount: Path, group: str) -> Iterator[Path]:
    """Yield the directories of a group and of all above it: each may set a limit of its own.

    In a container the path may be that of the host, which is not visible; the mount then is the
    container's own group, and always the last one here.
    """
    parts = PurePosixPath(group.lstrip("/")).parts
    if ".." in parts:  # outside of our cgroup namespace
        parts = ()
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _limit(directory: Path) -> float:
    """Return the limit in cores that one group sets."""
    try:
        quota, period = (directory / "cpu.max").read_text().split()  # v2: "max 100000"
    except OSError:
        try:
            quota = (directory / "cpu.cfs_quota_us").read_text().strip()  # v1: -1 = none
            period = (directory / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return inf
    return inf if quota in {"max", "-1"} else int(quota) / int(period)
