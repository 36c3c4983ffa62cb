from __future__ import annotations

from trio_gateway.core.jitter import MAX_WAITING, JitterBuffer, UplinkFrame


def frame(sequence: int) -> UplinkFrame:
    return UplinkFrame(sequence, b"\x58audio %d" % sequence)


def lost(*sequences: int) -> list[UplinkFrame]:
    return [UplinkFrame(sequence, None) for sequence in sequences]


def buffer() -> JitterBuffer:
    return JitterBuffer(reorder_wait=0.06, max_gap_frames=3)


def test_in_order_frames_leave_at_once() -> None:
    jitter = buffer()
    for sequence in range(1, 100):
        assert jitter.push(frame(sequence), sequence * 0.06) == [frame(sequence)]
        assert jitter.get_timer() is None


def test_a_swap_is_undone() -> None:
    jitter = buffer()
    assert jitter.push(frame(2), 0.0) == []
    assert jitter.push(frame(1), 0.01) == [frame(1), frame(2)]
    assert jitter.get_timer() is None
    assert (jitter.delivered, jitter.lost) == (2, 0)


def test_a_gap_waits_and_is_named() -> None:
    jitter = buffer()
    jitter.push(frame(1), 0.0)
    assert jitter.push(frame(3), 0.12) == []
    assert jitter.get_timer() == 0.18
    assert jitter.handle_timer(0.1799) == []
    assert jitter.handle_timer(0.18) == [*lost(2), frame(3)]
    assert jitter.get_timer() is None
    assert jitter.is_late(2)
    assert not jitter.is_late(4)


def test_the_wait_counts_from_the_first_frame_behind_the_gap() -> None:
    jitter = buffer()
    jitter.push(frame(3), 0.00)
    jitter.push(frame(2), 0.05)
    assert jitter.get_timer() == 0.06
    assert jitter.handle_timer(0.06) == [*lost(1), frame(2), frame(3)]


def test_each_gap_has_its_own_wait() -> None:
    jitter = buffer()
    jitter.push(frame(2), 0.00)
    jitter.push(frame(4), 0.04)
    assert jitter.handle_timer(0.06) == [*lost(1), frame(2)]
    assert jitter.get_timer() == 0.1
    assert jitter.push(frame(3), 0.07) == [frame(3), frame(4)]
    assert jitter.get_timer() is None


def test_a_timer_that_comes_late_settles_all_gaps_that_are_due() -> None:
    jitter = buffer()
    jitter.push(frame(2), 0.00)
    jitter.push(frame(4), 0.04)
    assert jitter.handle_timer(1.0) == [*lost(1), frame(2), *lost(3), frame(4)]


def test_a_missing_frame_is_welcome_until_the_timer_is_handled() -> None:
    jitter = buffer()
    jitter.push(frame(2), 0.0)
    assert jitter.push(frame(1), 0.5) == [frame(1), frame(2)]


def test_of_a_long_gap_only_the_last_frames_are_named() -> None:
    jitter = buffer()
    jitter.push(frame(1), 0.0)
    jitter.push(frame(100), 6.0)
    assert jitter.handle_timer(6.06) == [*lost(97, 98, 99), frame(100)]
    assert (jitter.delivered, jitter.lost, jitter.skipped) == (2, 3, 95)


def test_flush_waits_for_nothing() -> None:
    jitter = buffer()
    assert jitter.flush() == []
    jitter.push(frame(2), 0.0)
    jitter.push(frame(4), 0.0)
    assert jitter.flush() == [*lost(1), frame(2), *lost(3), frame(4)]
    assert jitter.flush() == []
    assert jitter.waiting == 0
    assert jitter.push(frame(5), 0.01) == [frame(5)]


def test_no_wait_at_all() -> None:
    jitter = JitterBuffer(reorder_wait=0.0, max_gap_frames=3)
    assert jitter.push(frame(2), 1.0) == []
    assert jitter.handle_timer(1.0) == [*lost(1), frame(2)]


def test_what_waits_is_bounded() -> None:
    jitter = buffer()
    out = [each for sequence in range(2, 500) for each in jitter.push(frame(sequence), 0.0)]
    assert jitter.waiting == 0
    assert out == [*lost(1), *map(frame, range(2, 500))]
    jitter.push(frame(501), 0.0)
    for sequence in range(503, 503 + 2 * MAX_WAITING, 2):
        jitter.push(frame(sequence), 0.0)
        assert jitter.waiting <= MAX_WAITING


WITH_FEC = bytes([11 << 3, 0b0001_0000])  # SILK, 60 ms, the LBRR flag


def test_the_last_of_a_gap_can_be_had_from_the_packet_after_it() -> None:
    jitter = buffer()
    jitter.push(frame(1), 0.0)
    behind = UplinkFrame(4, WITH_FEC)
    jitter.push(behind, 0.1)
    assert jitter.flush() == [*lost(2), UplinkFrame(3, None, fec=WITH_FEC), behind]


def test_a_gap_of_which_no_frame_is_named_has_nothing_to_recover() -> None:
    jitter = JitterBuffer(reorder_wait=0.06, max_gap_frames=0)
    behind = UplinkFrame(2, WITH_FEC)
    jitter.push(behind, 0.0)
    assert jitter.flush() == [behind]
    assert jitter.skipped == 1
