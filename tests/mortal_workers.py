"""Workers that may be struck down at any libopus call: threads, interpreters, or both by turns.

Death comes down a pipe: whoever reads the byte is struck. A read is atomic, also between
interpreters that share nothing else, so it is known afterwards who was struck and how often.
Interpreters are kept from one pool to the next: 3.13 leaks 3 MB with each that is destroyed.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from trio_gateway.workers import loop
from trio_gateway.workers.interpreter import InterpreterRunner
from trio_gateway.workers.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trio_gateway.workers.base import Runner

__all__ = ["Fate", "fate"]

_PATIENCE = 16  # calls that a byte may let pass
_LIE = _PATIENCE  # the bit for it

# The codec has been called before anything is raised or made up: its state has heard the frame, and
# whoever did it again with that state would be heard to.
_MORTAL = """
import os
from trio_gateway.workers import loop

class Mortal(loop.Codec):
    def __init__(self, path):
        super().__init__(path)
        self.decode = self.mortal(self.decode)
        self.encode = self.mortal(self.encode)
        self.doomed = None
        self.struck = False

    def mortal(self, call):
        def called(*arguments):
            result = call(*arguments)
            return result if self.struck or self.spared() else 0
        return called

    def spared(self):
        if self.doomed is None:
            try:
                byte = os.read({strikes}, 1)[0]
            except BlockingIOError:
                return True
            self.doomed = [byte // {patience}, byte % {patience}]
        lies, left = self.doomed
        self.doomed[1] -= 1
        if left:
            return True
        self.struck = True
        os.write({struck}, bytes([lies]))
        if lies:
            return False
        raise ZeroDivisionError

loop.Codec = Mortal
"""


class Fate:
    """Made by `fate`.

    Attributes:
        kept: Interpreters that no pool has at the moment.
    """

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._strikes, self._strike = os.pipe()
        self._struck, struck = os.pipe()
        self._descriptors = [self._strikes, self._strike, self._struck, struck]
        for descriptor in self._descriptors:
            os.set_blocking(descriptor, False)
        self.script = _MORTAL.format(strikes=self._strikes, struck=struck, patience=_PATIENCE)

    def strike(self, after: int, *, lie: bool = False) -> None:
        """Have the next worker that calls libopus raise, or lie, `after` calls later."""
        os.write(self._strike, bytes([after + _LIE * lie]))

    def struck(self) -> tuple[int, int]:
        """How many raised and how many lied since this was asked last. Pardons the others."""
        _drain(self._strikes)
        how = _drain(self._struck)
        return how.count(0), how.count(1)

    def kinds(self, names: Sequence[str]) -> Mapping[str, type[Runner]]:
        """A table of kinds whose "thread" is one of `names` after the other."""
        turns = cycle(names)
        this = self

        class MortalInterpreter(InterpreterRunner):
            def prepare(self) -> None:
                if this.kept:
                    self._interpreter = this.kept.pop()
                else:
                    super().prepare()
                    self._exec(this.script)

            def close(self) -> None:
                this.kept.append(self._interpreter)

        class Turn(ThreadRunner):
            def __new__(cls) -> Any:
                return ThreadRunner() if next(turns) == "thread" else MortalInterpreter()

        return {"thread": Turn}

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        for interpreter in self.kept:
            runner = InterpreterRunner()
            runner._interpreter = interpreter
            runner.close()


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


@contextmanager
def fate() -> Iterator[Fate]:
    """Meanwhile all thread workers are mortal, and those of its `kinds` that are interpreters."""
    immortal = vars(loop)["Codec"]
    here = Fate()
    exec(here.script, {})  # noqa: S102  the same script for threads and interpreters
    try:
        yield here
    finally:
        vars(loop)["Codec"] = immortal
        here.close()
