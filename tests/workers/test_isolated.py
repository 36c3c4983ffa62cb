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


@pytest.mark.skipif(
    not (3, 13) <= sys.version_info < (3, 14) or not has_interpreters,
    reason="3.14 has a public module",
)
def test_the_private_module_is_as_interpreter_py_knows_it() -> None:
    import _interpreters  # noqa: PLC0415

    before = _interpreters.list_all()
    interpreter = _interpreters.create("isolated")
    try:
        assert isinstance(interpreter, int)
        assert [each for each, _ in _interpreters.list_all()] == [
            *(each for each, _ in before),
            interpreter,
        ]
        config = _interpreters.get_config(interpreter)
        assert (config.gil, config.allow_fork, config.check_multi_interp_extensions) == (
            "own",
            False,
            True,
        )
        assert _interpreters.exec(interpreter, "kept = 1") is None
        failure = _interpreters.exec(interpreter, "raise ValueError('kept', kept)")
        assert (failure.type.__name__, failure.msg) == ("ValueError", "('kept', 1)")
        assert not _interpreters.is_running(interpreter)
    finally:
        _interpreters.destroy(interpreter)
    assert _interpreters.list_all() == before
    with pytest.raises(_interpreters.InterpreterNotFoundError):
        _interpreters.exec(interpreter, "")


@pytest.mark.skipif(has_interpreters, reason="this Python has them")
def test_interpreters_are_not_offered_where_there_are_none() -> None:
    assert not interpreters_work()
