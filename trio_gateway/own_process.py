"""What a program that is only a gateway can do for itself, and an embedded one must not decide."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress

if sys.platform != "win32":
    import resource

__all__ = ["open_many_files", "spare_the_collector"]

MOST_FILES = 65_536
"""Enough for any settings; some systems have a hard limit of a billion."""


def open_many_files() -> None:
    """Allow as many open files as the hard limit does, up to `MOST_FILES`.

    The soft limit, often 1,024, is there for select(), which nothing here uses. Go's runtime does
    the same. A system that refuses (macOS has a lower limit of its own) is left as it is.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def spare_the_collector() -> None:
    """Take what there is now, modules mostly, for what will always be there.

    A full collection of it holds up every call for 7 to 8 ms (57,000 objects, 3.11 and 3.13), and
    finds nothing.
    """
    gc.collect()
    gc.freeze()
