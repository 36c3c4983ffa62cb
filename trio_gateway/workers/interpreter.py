"""Workers that are interpreters with their own GIL. Python 3.13 and later.

3.13 has the private module `_interpreters`, 3.14 the public `concurrent.interpreters`; this file is
the one that knows either. What it must not do, and why:

- Let an exception out of the interpreter as it is. One whose text holds a NUL or a lone surrogate,
  or whose `__str__` fails, crashes the process (3.13.0 to 3.15.2). The scripts below keep the text
  as ASCII and raise one of their own.
- Destroy an interpreter that is running, or leave one running when the process ends.
- Destroy one for every scale-down: 3.13 leaks 3 MB each time. The supervisor parks drained runners.
- Leave a thread state behind: `exec` enters and leaves in one call, so Trio may reuse the thread.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import astuple

from trio_gateway.errors import WorkerFailed
from trio_gateway.workers.base import Runner
from trio_gateway.workers.loop import describe

if TYPE_CHECKING:
    from trio_gateway.workers.base import Job

__all__ = ["InterpreterRunner", "interpreters_work"]

# sys.path changes are not inherited, so the interpreter is told where this package lies. As ASCII:
# a path may hold what no encoding of a script can.
_PREPARE = """
failure = None
try:
    import sys
    if {root!a} not in sys.path:
        sys.path.insert(0, {root!a})
    from trio_gateway.workers import loop
except BaseException as error:
    failure = ascii(error)
if failure is not None:
    raise RuntimeError(failure)
"""

_RUN = """
failure = None
try:
    loop.run(*{arguments!a})
except BaseException as error:
    failure = loop.describe(error)
if failure is not None:
    raise RuntimeError(failure)
"""


def interpreters_work() -> bool:
    """Whether interpreters with their own GIL exist here and are worth having."""
    gil = getattr(sys, "_is_gil_enabled", None)
    return gil is not None and gil() and _adapter() is not None


class InterpreterRunner(Runner):
    """An isolated interpreter, entered by the calling thread for the length of a call."""

    kind = "interpreter"

    def __init__(self) -> None:
        self._interpreter: Any = None

    def prepare(self) -> None:
        """Create the interpreter and import the loop."""
        adapter = _adapter()
        if adapter is None:
            raise WorkerFailed(f"Python {sys.version.split()[0]} has no interpreters")
        create, _, _ = adapter
        try:
            self._interpreter = create()
        except Exception as error:
            raise WorkerFailed(describe(error)) from error
        try:
            self._exec(_PREPARE.format(root=str(Path(__file__).parents[2])))
        except WorkerFailed:
            self.close()
            raise

    def run(self, job: Job) -> None:
        """Run the loop in there."""
        self._exec(_RUN.format(arguments=astuple(job)))

    def close(self) -> None:
        """Destroy the interpreter."""
        adapter = _adapter()
        if adapter is None or self._interpreter is None:
            return
        _, _, destroy = adapter
        try:
            destroy(self._interpreter)
        except Exception as error:
            raise WorkerFailed(describe(error)) from error
        self._interpreter = None

    def _exec(self, script: str) -> None:
        adapter = _adapter()
        assert adapter is not None  # noqa: S101  prepare() has checked
        _, execute, _ = adapter
        try:
            failure = execute(self._interpreter, script)
        except Exception as error:
            raise WorkerFailed(describe(error)) from error
        if failure is not None:
            raise WorkerFailed(failure)


def _adapter() -> tuple[Any, Any, Any] | None:
    """(create() -> handle, execute(handle, script) -> error text or None, destroy(handle))."""
    if sys.version_info >= (3, 14):
        # From its documentation: the tests of this project have not run on 3.14 yet.
        from concurrent import interpreters  # noqa: PLC0415

        return interpreters.create, _execute_public, lambda handle: handle.close()
    if sys.version_info >= (3, 13):
        try:
            import _interpreters  # noqa: PLC0415
        except ImportError:  # a build without them
            return None
        return (
            lambda: _interpreters.create("isolated"),
            _execute_private,
            _interpreters.destroy,
        )
    return None


def _execute_public(handle: Any, script: str) -> str | None:
    from concurrent import interpreters  # type: ignore[attr-defined,unused-ignore]  # noqa: PLC0415

    try:
        handle.exec(script)
    except interpreters.ExecutionFailed as error:
        return str(error.excinfo.msg)
    return None


def _execute_private(handle: int, script: str) -> str | None:
    import _interpreters  # noqa: PLC0415

    failure = _interpreters.exec(handle, script)
    return None if failure is None else str(failure.msg)
