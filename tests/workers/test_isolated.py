"""What runs inside workers loads where nothing but the standard library does."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import trio_gateway
from trio_gateway.workers.interpreter import interpreters_work

ROOT = Path(trio_gateway.__file__).parents[1]
OWN = {"", ".workers", ".workers.codec", ".workers.loop", ".workers.wire"}

LOAD = """
import sys
before = set(sys.modules)
sys.path.insert(0, {root!a})
from trio_gateway.workers import loop
loaded = sorted(set(sys.modules) - before)
"""

has_interpreters = sys.version_info >= (3, 13) and not sysconfig.get_config_var("Py_GIL_DISABLED")


def test_only_these_files_and_the_standard_library_are_loaded() -> None:
    script = LOAD.format(root=str(ROOT)) + "import json; print(json.dumps(loaded))"
    run = subprocess.run(  # noqa: S603  our own Python
        [sys.executable, "-I", "-S", "-W", "error", "-c", script],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = json.loads(run.stdout)
    ours = {name for name in loaded if name.partition(".")[0] == "trio_gateway"}
    assert ours == {f"trio_gateway{name}" for name in OWN}
    foreign = {name.partition(".")[0] for name in set(loaded) - ours} - sys.stdlib_module_names
    assert foreign == set()


@pytest.mark.skipif(not has_interpreters, reason="this Python has no interpreters with own GIL")
def test_it_loads_in_an_isolated_interpreter() -> None:
    # Never skipped where it must work: or all tests of that kind would vanish without a word.
    assert interpreters_work()
    import _interpreters  # noqa: PLC0415  from 3.14 on it is concurrent.interpreters' inside

    interpreter = _interpreters.create("isolated")
    try:
        failure = _interpreters.exec(interpreter, LOAD.format(root=str(ROOT)))
        assert failure is None, failure.formatted
    finally:
        _interpreters.destroy(interpreter)


@pytest.mark.skipif(has_interpreters, reason="this Python has them")
def test_interpreters_are_not_offered_where_there_are_none() -> None:
    assert not interpreters_work()
