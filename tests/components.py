"""What tests need and pip cannot install."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["find"]


def find(program: str, package: str) -> str:
    """Return the path of `program`, from Debian's `package`.

    Without it the test is skipped; with TEST_EVERY_COMPONENT set, as in CI, it fails.
    """
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is not None:
        return path
    text = f"needs {program}, from Debian's package {package}"
    if os.environ.get("TEST_EVERY_COMPONENT"):
        pytest.fail(text)
    pytest.skip(text)
