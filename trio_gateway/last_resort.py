"""The end of the program when nothing in it can end it any more.

A handler may shield itself from its cancellation, or block the thread that everything runs in. So
what ends the program then needs neither Trio nor Python: a thread of C, which prints where every
thread is and exits with 1; and behind it, should standard error hold even that up, the kernel's
alarm clock (SIGALRM; shells call that 142). Only C code that never lets go of the GIL is safe from
both, and that is what `kill -9` is for.

Rule 1: the first signal arms it, in a plain signal handler. Trio hears of a signal in a task, and
    a blocked thread runs none.
Rule 2: a second signal leaves `AT_ONCE` seconds.
Rule 3: who goes on after it disarms it; a program that has come to its end does not. Python still
    waits for threads then, such as a library's, and one that never returns would keep it for ever.
Rule 4: whatever arming it runs into, who handled the signal before hears of it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

__all__ = ["last_resort"]

AT_ONCE: Final = 1.0
"""Seconds. A guess: closing takes a tenth of it when nothing hangs."""

LEAST: Final = 2.0
"""Seconds that the first signal leaves at least, whatever `grace` says: ending takes a moment too.
A guess: on a machine with much else to do."""

MOST: Final = 86_400.0
"""Seconds. Guess: a day. The timers overflow at 300 years."""

PRINTING: Final = 0.1
"""Seconds for the stacks, before the alarm. A guess: a hundred threads are printed in 10 ms."""


@contextmanager
def last_resort(grace: float, *signals: signal.Signals, disarm: bool = True) -> Iterator[None]:
    """Within `grace` seconds from the first of `signals`, the `with` is left or the program ends.

    Who handled these signals before is called too: enter this after `open_signal_receiver`, in the
    main thread.

    Args:
        grace: Seconds; at least `LEAST` and at most `MOST`.
        signals: That end the program.
        disarm: When the `with` is left. False: the program ends in that time, not just the `with`.
    """
    count = 0
    output = _standard_error()
    theirs = {number: signal.getsignal(number) for number in (signal.SIGALRM, *signals)}

    def arm(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        try:
            if count <= 2:  # noqa: PLR2004  a third and fourth do not put it off
                _arm(min(max(grace, LEAST), MOST) if count == 1 else AT_ONCE, output)
        finally:
            known = theirs[signal.Signals(number)]
            if callable(known):
                known(number, frame)

    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in signals:
            signal.signal(number, arm)
        yield
    finally:
        for number in signals:
            _restore(number, theirs[number])
        if disarm and count:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        if disarm or not count:
            _restore(signal.SIGALRM, theirs[signal.SIGALRM])
            os.close(output)


def _arm(left: float, output: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, left)
    with suppress(RuntimeError):  # no thread can be started any more
        faulthandler.dump_traceback_later(left - PRINTING, exit=True, file=output)


def _standard_error() -> int:
    """Return a descriptor of our own for it: nobody closes that, also while the program ends."""
    for stream in (sys.stderr, sys.__stderr__):
        # It may be None, closed, or something in Python that is no file.
        with suppress(AttributeError, OSError, ValueError):
            return os.dup(stream.fileno())  # type: ignore[union-attr]  # see above
    return os.open(os.devnull, os.O_WRONLY)


def _restore(number: signal.Signals, handler: Any) -> None:
    if handler is not None:  # None: not installed from Python, which cannot give it back
        signal.signal(number, handler)
