"""Arming and disarming, in this process. What it ends, it ends in test_hanging.py."""

from __future__ import annotations

import faulthandler
import io
import os
import signal
from typing import TYPE_CHECKING, TextIO

import pytest

from trio_gateway import last_resort as module
from trio_gateway.last_resort import last_resort

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNAL = signal.SIGUSR1


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """What the handler that was there before hears; and whatever a test leaves is cleared."""
    heard: list[int] = []
    alarm = signal.getsignal(signal.SIGALRM)
    before = signal.signal(SIGNAL, lambda number, _: heard.append(number))
    yield heard
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    signal.signal(SIGNAL, before)
    signal.signal(signal.SIGALRM, alarm)


def left() -> float:
    """Seconds until the kernel's alarm; 0 for never."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def raise_it() -> None:
    os.kill(os.getpid(), SIGNAL)


@pytest.mark.parametrize(
    ("grace", "first"),
    [(0.0, module.LEAST), (30.0, 30.0), (1e10, module.MOST), (float("inf"), module.MOST)],
)
def test_the_first_signal_arms_it_and_the_second_leaves_a_second(
    heard: list[int], grace: float, first: float
) -> None:
    with last_resort(grace, SIGNAL):
        assert not left()
        raise_it()
        assert first - 1 < left() <= first
        raise_it()
        assert 0 < left() <= module.AT_ONCE
    assert not left()
    assert heard == [SIGNAL] * 2


@pytest.mark.parametrize("stream", [io.StringIO(), None, "closed"])
def test_a_standard_error_that_is_no_file(
    heard: list[int], monkeypatch: pytest.MonkeyPatch, stream: TextIO | str | None
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.__stderr__", stream)
    with last_resort(30, SIGNAL):
        raise_it()
        assert left()
    assert heard == [SIGNAL]


def test_who_handled_the_signal_hears_of_it_though_arming_fails(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_left: float, _output: int) -> None:
        raise OverflowError

    monkeypatch.setattr(module, "_arm", fail)
    with last_resort(30, SIGNAL), pytest.raises(OverflowError):
        raise_it()
    assert heard == [SIGNAL]


def test_no_more_threads(heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's alarm needs none."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unable to start watchdog thread")

    monkeypatch.setattr("faulthandler.dump_traceback_later", fail)
    with last_resort(30, SIGNAL):
        raise_it()
        assert left()


@pytest.mark.parametrize("armed", [False, True])
@pytest.mark.parametrize("disarm", [False, True])
def test_what_is_left_behind(*, armed: bool, disarm: bool) -> None:
    """Only what is armed, and is to stay so."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    known = signal.getsignal(SIGNAL)
    with last_resort(30, SIGNAL, disarm=disarm):
        if armed:
            raise_it()
    stays = armed and not disarm
    assert signal.getsignal(SIGNAL) is known
    assert (left() > 0) == stays
    assert signal.getsignal(signal.SIGALRM) is (signal.SIG_DFL if stays else signal.SIG_IGN)


def test_a_handler_that_was_not_python_s_cannot_be_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(signal, "getsignal", lambda _: None)
        with last_resort(30, SIGNAL):
            raise_it()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
