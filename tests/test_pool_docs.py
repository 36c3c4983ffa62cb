"""What docs/pool.md shows is run, and it names everything that a pool can do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trio_gateway import Decoder, Encoder, errors
from trio_gateway.workers.pool import WorkerPool

PAGE = (Path(__file__).parents[1] / "docs/pool.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (PROGRAMS[0], r"(\d+ bytes, 960 samples\n){5}"),
        (PROGRAMS[1], r"50 packets, 0 dropped\n"),
    ],
    ids=["minimal", "callbacks"],
)
def test_its_programs_run(program: str, says: str) -> None:
    done = subprocess.run(  # noqa: S603  our own
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(says, done.stdout)


def test_there_are_no_other_programs() -> None:
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize("thing", [WorkerPool, Decoder, Encoder])
def test_every_public_name_is_there(thing: type) -> None:
    names = {name for name in dir(thing) if not name.startswith("_")} - {"shut"}
    assert {name for name in names if not re.search(rf"`(?:await )?{name}\b", PAGE)} == set()


def test_errors_and_files_that_it_names_exist() -> None:
    for name in re.findall(r"`([A-Z]\w+(?:Error|Closed|Dropped|Failed))`", PAGE):
        assert name == "ValueError" or hasattr(errors, name), name
    for target in re.findall(r"\]\(([^)#:]+\.\w+)\)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / target).exists(), target
