from __future__ import annotations

from trio_gateway.core.replay import ReplayWindow, Seen


def test_in_order() -> None:
    window = ReplayWindow()
    for sequence in range(1, 200):
        assert window.look(sequence) is Seen.NEW
        window.mark(sequence)
        assert window.look(sequence) is Seen.DUPLICATE
    assert window.highest == 199


def test_looking_remembers_nothing() -> None:
    window = ReplayWindow()
    assert window.look(7) is window.look(7) is Seen.NEW
    assert window.highest == 0


def test_out_of_order_within_the_window() -> None:
    window = ReplayWindow(size=8)
    window.mark(10)
    assert [window.look(sequence) for sequence in (3, 9, 10)] == [
        Seen.NEW,
        Seen.NEW,
        Seen.DUPLICATE,
    ]
    window.mark(3)
    assert window.look(3) is Seen.DUPLICATE
    assert window.look(2) is Seen.TOO_OLD
    window.mark(11)
    assert window.look(3) is Seen.TOO_OLD


def test_a_jump_over_the_whole_window_forgets_it() -> None:
    window = ReplayWindow(size=8)
    window.mark(1)
    window.mark(1_000_000)
    assert window.look(999_999) is Seen.NEW
    assert window.look(1_000_000 - 8) is Seen.TOO_OLD


def test_nothing_comes_before_sequence_1() -> None:
    window = ReplayWindow(size=8)
    assert window.look(0) is window.look(-7) is Seen.DUPLICATE
    assert window.look(-8) is Seen.TOO_OLD


def test_marking_below_the_window_changes_nothing() -> None:
    window = ReplayWindow(size=8)
    window.mark(100)
    window.mark(5)
    assert window.highest == 100
    assert window.look(5) is Seen.TOO_OLD
