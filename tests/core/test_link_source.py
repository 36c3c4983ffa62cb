"""Whom an audio link believes: forgers, and devices that move."""

from __future__ import annotations

import pytest
from link_call import (
    AWAY,
    FORGER,
    FRAME,
    HOME,
    KEY,
    OPUS_20_MS,
    SSRC,
    Call,
    heard,
    lost,
    opus,
)

from trio_gateway.core.link import Address, AudioLink
from trio_gateway.core.pinning import MAX_CLAIMS, MOVE_INTERVAL


class TestForgedPackets:
    """One of them neither redirects the call nor silences it; they are valid in every other way."""

    @pytest.mark.parametrize("addr", [FORGER, HOME], ids=["from elsewhere", "with our address"])
    @pytest.mark.parametrize("ahead", [6, 50, 1900, 2100, 1 << 20, 0x7FFFFFFF, 0xFFFFFFF0])
    def test_a_far_sequence_changes_nothing(self, ahead: int, addr: Address) -> None:
        call = Call()
        call.hear(*range(1, 16))
        assert call.forge(15 + ahead, addr) == []
        assert call.hear(*range(16, 40)) == heard(*range(16, 40))
        assert call.link.remote == HOME
        assert call.balance()

    def test_sequence_ffffffff_at_any_time(self) -> None:
        call = Call()
        for sequence in range(1, 20):
            assert call.forge(0xFFFFFFFF) == []
            assert call.forge(0xFFFFFFFF, HOME) == []
            assert call.hear(sequence) == heard(sequence)
        assert call.link.remote == HOME
        assert call.balance()

    @pytest.mark.parametrize("ahead", [1, 2, 3, 4])
    def test_a_near_sequence_from_elsewhere_changes_nothing(self, ahead: int) -> None:
        call = Call()
        for sequence in range(1, 20):
            assert call.hear(sequence) == heard(sequence)
            assert call.forge(sequence + ahead) == []
        assert call.link.remote == HOME
        assert call.balance()

    @pytest.mark.parametrize("ahead", [1, 2, 3, 4, 5])
    def test_a_near_sequence_with_our_address_costs_those_few(self, ahead: int) -> None:
        call = Call()
        call.hear(1)
        out = call.forge(1 + ahead, HOME, payload=opus(666))
        for sequence in range(2, 20):
            out += call.hear(sequence)
            out += call.link.handle_timer(call.now)
        good = [frame for frame in out if frame.payload == opus(frame.sequence)]
        assert len(good) >= 18 - ahead
        assert good[-(18 - ahead) :] == heard(*range(2 + ahead, 20))

    def test_many_from_elsewhere_do_not_take_a_call_that_goes_on(self) -> None:
        call = Call()
        call.hear(1)
        for sequence in range(2, 40):
            for ahead in range(5):
                assert call.forge(sequence + ahead) == []
            assert call.hear(sequence) == heard(sequence)
        assert call.link.statistics().moves == 0
        assert call.balance()

    @pytest.mark.parametrize("sequence", [1, 2, 3, 11, 500])
    def test_before_the_device_has_spoken(self, sequence: int) -> None:
        call = Call()
        call.forge(sequence, payload=opus(666))
        out = call.hear(*range(1, 20))
        good = [frame for frame in out if frame.payload == opus(frame.sequence)]
        assert good[-18:] == heard(*range(2, 20))
        assert call.link.remote == HOME
        assert call.balance()

    def test_the_first_packet_with_another_duration_does_not_set_the_rule(self) -> None:
        call = Call()
        call.forge(1, payload=opus(1, OPUS_20_MS))
        assert call.hear(1, 2, 3, 4) == heard(2, 3, 4)
        assert call.link.remote == HOME

    def test_a_replay_from_elsewhere_does_not_take_the_downlink(self) -> None:
        call = Call()
        call.hear(*range(1, 100))
        call.now += 1.0
        for sequence in range(1, 100):
            assert call.forge(sequence) == []
        assert call.link.remote == HOME
        assert call.link.statistics().bad == {"implausible": 99}

    def test_a_replay_into_a_gap_does_not_take_the_downlink(self) -> None:
        call = Call(AudioLink(KEY, SSRC, reorder_wait=0.5))
        call.hear(*range(1, 11), 14)
        call.now += 0.2
        for sequence in 11, 12, 13:
            assert call.forge(sequence) == []
        assert call.link.remote == HOME

    def test_what_was_held_before_a_pause_is_not_taken_for_overtaking(self) -> None:
        call = Call()
        call.hear(*range(1, 16))
        call.forge(20, HOME, payload=opus(666))
        call.now += 1.0
        assert call.hear(*range(16, 40)) == heard(*range(16, 40))
        assert call.link.statistics().unconfirmed == 1

    def test_held_packets_are_bounded(self) -> None:
        call = Call()
        call.hear(1)
        for sequence in range(2, 80):
            call.forge(sequence)
        assert call.link.statistics().held == call.link._pin.max_held
        for port in range(500):
            call.forge(2 + port % 70, ("203.0.113.1", port))
        # The claim that has shown more is not pushed out by those who come once.
        assert call.link.statistics().held == call.link._pin.max_held + MAX_CLAIMS - 1
        assert call.balance()


class TestMoves:
    """A device that really has a new address takes its call with it."""

    def test_nothing_is_lost(self) -> None:
        call = Call()
        assert call.hear(1, 2, 3) == heard(1, 2, 3)
        assert call.hear(4, 5, 6, addr=AWAY) == []  # three lost in a row would look so, too
        assert call.link.remote == HOME
        assert call.hear(7, addr=AWAY) == heard(4, 5, 6, 7)
        assert call.link.remote == AWAY
        assert call.hear(8, addr=AWAY) == heard(8)
        assert call.link.statistics().moves == 1
        assert call.balance()

    def test_a_loss_on_the_way(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        call.now += 4 * FRAME
        # 4 has had its wait while 5 was held.
        assert call.hear(5, 7, addr=AWAY) == [*lost(4), *heard(5)]
        assert call.link.handle_timer(call.now + FRAME) == [*lost(6), *heard(7)]
        assert call.link.remote == AWAY

    def test_not_while_the_old_address_is_heard(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.forge(4, AWAY) == []
        assert call.forge(5, AWAY) == []
        assert call.link.remote == HOME
        call.now += 3 * FRAME
        assert call.hear(6, addr=AWAY) == heard(4, 5, 6)

    def test_copies_and_stragglers_do_not_count_as_a_second(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.hear(5, 5, 4, 5, addr=AWAY) == []
        assert call.link.remote == HOME
        assert call.link.statistics().unconfirmed == 3
        call.hear(6, addr=AWAY)
        assert call.link.remote == AWAY
        assert call.balance()

    def test_strangers_do_not_interrupt_it(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        call.now += 1.0
        out = []
        for number in range(4):
            out += call.hear(4 + number, addr=AWAY)
            for port in range(3):  # a session hears twenty a second, strangers.py
                call.forge(5 + number + port, ("203.0.113.1", 100 * number + port))
        assert out == heard(4, 5, 6, 7)
        assert call.link.remote == AWAY

    def test_two_with_nonsense_between_them_are_not_two_in_a_row(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        call.now += 1.0
        for sequence in range(4, 10):
            call.hear(sequence, addr=AWAY)
            assert call.forge(sequence + 1, AWAY, payload=b"") == []  # not Opus
        assert call.link.remote == HOME
        assert call.balance()
        call.hear(10, 11, addr=AWAY)
        assert call.link.remote == AWAY

    def test_two_that_do_not_continue_each_other(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.hear(4, 40, 5, 80, addr=AWAY) == []
        assert call.link.remote == HOME
        assert call.balance()

    def test_the_duration_has_to_fit(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        call.now += 1.0
        for sequence in 4, 5, 6:
            call.forge(sequence, AWAY, payload=opus(sequence, OPUS_20_MS))
        assert call.link.remote == HOME
        assert call.link.statistics().bad == {"implausible": 3}

    def test_a_device_that_announced_another_duration_can_move(self) -> None:
        call = Call()
        for sequence in range(1, 9):
            addr = HOME if sequence < 4 else AWAY
            call.now += FRAME
            call.forge(sequence, addr, payload=opus(sequence, OPUS_20_MS))
        assert call.link.remote == AWAY

    def test_moves_are_rate_limited(self) -> None:
        call = Call()
        call.hear(1)
        call.now += 1.0
        call.hear(2, 3, addr=AWAY)
        third: Address = ("192.0.2.3", 3)
        steps = int(MOVE_INTERVAL / FRAME)
        assert call.hear(*range(4, 4 + steps), addr=third) == []
        assert call.link.remote == AWAY
        # And nothing is lost by it.
        assert call.hear(*range(4 + steps, 8 + steps), addr=third) == heard(*range(4, 8 + steps))
        assert call.link.remote == third
        assert call.link.statistics().moves == 2
        assert call.balance()

    def test_the_way_back_is_free_once(self) -> None:
        call = Call()
        call.hear(1, 2)
        call.now += 1.0
        call.hear(3, 4, addr=FORGER)  # two lucky forgeries while the device was silent
        assert call.link.remote == FORGER
        call.now += 1.0
        assert call.hear(5, 6) == heard(5, 6)
        assert call.link.remote == HOME
        call.now += 1.0
        call.hear(7, 8, addr=FORGER)
        assert call.link.remote == HOME
