"""The end of the program when nothing in it can end it any more.

A handler may shield itself from its cancellation, or block the thread that everything runs in. So
what ends the program then needs neither Trio nor Python: a thread of C, which prints where every
thread is and exits with 1; and behind it, should standard error hold even that up, the kernel's
alarm clock (SIGALRM; shells call that 142). Only C code that never lets go of the GIL is safe from
both, and that is what `kill -9` is for.

Rule 1: the first signal arms it, in a plain signal handler. Trio hears of a signal in a task, and
    a blocked thread runs none.
Rule 2: a second signal leaves `AT_ONCE` seconds.
Rule 3: a program that comes to its end in time disarms it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["last_resort"]

AT_ONCE: Final = 1.0
"""Seconds. A guess: closing takes a tenth of it when nothing hangs."""

LEAST: Final = 2.0
"""Seconds that the first signal leaves at least, whatever `grace` says: ending takes a moment too.
A guess: on a machine with much else to do."""

PRINTING: Final = 0.1
"""Seconds for the stacks, before the alarm. A guess: a hundred threads are printed in 10 ms."""


@contextmanager
def last_resort(grace: float, *signals: signal.Signals) -> Iterator[None]:
    """Within `grace` seconds from the first of `signals`, the `with` is left or the program ends.

    Who handled these signals before is called too: enter this after `open_signal_receiver`, in the
    main thread.

    Args:
        grace: Seconds; `LEAST` if less.
        signals: That end the program.
    """
    count = 0
    theirs = {number: signal.getsignal(number) for number in signals}

    def arm(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count <= 2:  # noqa: PLR2004  a third and fourth do not put it off
            left = max(grace, LEAST) if count == 1 else AT_ONCE
            faulthandler.dump_traceback_later(left - PRINTING, exit=True, file=output)
            signal.setitimer(signal.ITIMER_REAL, left)
        known = theirs[signal.Signals(number)]
        if callable(known):
            known(number, frame)

    with Path(os.devnull).open("w") as nowhere:
        output = sys.stderr or nowhere
        alarm = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in signals:
            signal.signal(number, arm)
        try:
            yield
        finally:
            for number, known in theirs.items():
                signal.signal(number, known)
            if count:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, alarm)
