"""Rule 5 of core/pinning.py: who takes a call while its device is silent has it on probation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from link_call import AWAY, FORGER, FRAME, HOME, Call, heard, opus

from trio_gateway.core.lines import MAX_HEARD_SINCE, MAX_LINES
from trio_gateway.core.pinning import PROBATION

if TYPE_CHECKING:
    from trio_gateway.core.link import Address


def taken(addr: Address, first: int = 60) -> Call:
    """A call in which the device has said 1 to 20, and a forger two packets after that."""
    call = Call()
    call.hear(*range(1, 21))
    for sequence in first, first + 1:
        call.now += 1.0
        call.forge(sequence, addr, payload=opus(666))
    assert call.link.remote == addr
    assert call.link.statistics().undone == 0
    call.now += 2.0
    return call


@pytest.mark.parametrize(
    ("addr", "first"),
    # With our address and near, rule 2 lets them in: they cost a few frames, as above.
    [*((FORGER, each) for each in (21, 24, 40, 100)), (HOME, 40), (HOME, 100)],
)
def test_the_device_has_it_back_with_two_packets(first: int, addr: Address) -> None:
    call = taken(addr, first)
    out = call.hear(*range(21, 40))
    good = [frame for frame in out if frame.payload == opus(frame.sequence)]
    assert good == heard(*range(21, 40))
    assert call.link.remote == HOME
    assert call.balance()


@pytest.mark.parametrize("addr", [FORGER, HOME], ids=["from elsewhere", "with our address"])
def test_also_from_one_who_goes_on_talking(addr: Address) -> None:
    call = taken(addr)
    out = []
    for number in range(20):
        call.forge(62 + number, addr, payload=opus(666))
        out += call.hear(21 + number)
    good = [frame for frame in out if frame.payload == opus(frame.sequence)]
    assert good == heard(*range(21, 41))
    assert call.link.remote == HOME
    assert call.link.statistics().undone == 1
    assert call.balance()


def test_he_does_not_get_it_again_at_once() -> None:
    call = taken(FORGER)
    call.hear(21, 22)
    assert call.link.remote == HOME
    call.hear(62, 63, 64, addr=FORGER)
    assert call.link.remote == HOME


def test_two_jumps_do_not_make_the_device_forgotten() -> None:
    call = taken(FORGER, first=30)
    call.hear(60, 61, addr=FORGER)
    assert call.link.remote == FORGER
    call.now += 1.0
    assert call.hear(21, 22) == heard(21, 22)
    assert call.link.remote == HOME


def test_what_the_device_said_before_is_no_way_back() -> None:
    call = taken(FORGER)
    for sequence in range(1, 21):
        assert call.forge(sequence, HOME) == []
    assert call.link.remote == FORGER


def test_one_packet_is_no_way_back() -> None:
    call = taken(FORGER)
    call.hear(21, 21, 21)
    assert call.link.remote == FORGER
    assert call.link.statistics().held == 1
    assert call.balance()


def test_copies_of_the_stream_that_jumped_do_not_undo_the_jump() -> None:
    call = Call()
    call.hear(1, 2)
    call.now += 4 * FRAME
    call.hear(7, 8)
    call.now += 2.0
    assert call.hear(7, 8, 7, 8) == []
    counts = call.link.statistics()
    assert (counts.duplicate, counts.held, counts.undone) == (4, 0, 0)


def test_stragglers_do_not_undo_a_jump() -> None:
    call = Call()
    call.hear(*range(1, 21))
    call.now += 40 * FRAME
    call.hear(61, 62)
    for sequence in range(21, 30):  # a route that held them back delivers all at once
        assert call.forge(sequence, HOME) == []
    assert call.hear(63, 64) == heard(63, 64)
    assert call.link.statistics().undone == 0
    assert call.balance()


def test_a_device_that_was_taken_for_a_forger_goes_on() -> None:
    call = Call()
    call.hear(*range(1, 21))
    call.now += 40 * FRAME
    call.hear(61, 62)
    call.now += 2.0
    call.hear(21, 22)  # a route held them back for seconds
    assert call.link.statistics().undone == 1
    out = call.hear(*range(96, 140))
    assert out[-20:] == heard(*range(120, 140))
    assert call.balance()


def test_whom_the_link_knows() -> None:
    assert Call().link.knows(AWAY)  # nobody has spoken yet
    call = taken(FORGER)
    assert [call.link.knows(each) for each in (FORGER, HOME, AWAY)] == [True, True, False]
    call.hear(21, 22)
    assert [call.link.knows(each) for each in (FORGER, HOME, AWAY)] == [False, True, False]


def test_a_device_that_moves_and_moves_back_loses_nothing() -> None:
    call = Call()
    out = call.hear(*range(1, 21))
    out += call.hear(*range(21, 100), addr=AWAY)
    out += call.hear(*range(100, 120))
    assert out == heard(*range(1, 120))
    assert call.link.remote == HOME


def test_who_lost_it_again_does_not_get_it_by_replaying() -> None:
    call = taken(FORGER)
    call.hear(21, 22)
    assert call.link.remote == HOME
    call.hear(*range(23, 60))
    for _ in range(2):
        for sequence in range(23, 60):
            call.now += FRAME
            assert call.forge(sequence) == []
    assert call.link.remote == HOME


def test_a_replay_is_not_heard_twice_where_the_stream_goes_back() -> None:
    """A device that roamed was lured back to where it had been; somebody has its packets."""
    call = Call()
    call.hear(*range(1, 21))
    call.now += 1.0
    out = call.hear(*range(21, 30), addr=AWAY)
    call.now += 1.0
    out += call.hear(*range(21, 30))  # as from its old address
    assert out == heard(*range(21, 30))
    assert call.link.remote == AWAY


def test_a_stream_that_was_heard_long_enough_is_not_undone() -> None:
    call = Call()
    call.hear(*range(1, 101))
    call.now += 40 * FRAME
    settled = 141 + int(PROBATION / FRAME) + 1
    call.hear(*range(141, settled))
    out = []
    for sequence in range(101, 110):
        out += call.forge(sequence, HOME)
        out += call.hear(settled + sequence)
    assert out == []
    assert call.link.statistics().undone == 0


def test_a_stream_set_back_goes_on_where_it_was() -> None:
    """Forged with its address, at the pace of speech, while it was on probation."""
    call = Call()
    call.hear(*range(1, 101))
    call.now += 100 * FRAME
    call.hear(*range(201, 220))
    call.now += 1.0
    call.hear(*range(101, 106))
    assert call.link.statistics().undone == 1
    out = call.hear(*range(220, 300))
    assert out[-80:] == heard(*range(220, 300))


def test_a_device_that_had_just_moved_has_it_back_too() -> None:
    call = Call()
    call.hear(*range(1, 201))
    call.now += 1.0
    call.hear(*range(201, 260), addr=AWAY)
    call.now += 3.0
    call.hear(300, 301, addr=FORGER)
    assert call.link.remote == FORGER
    out = []
    for number in range(20):
        out += call.hear(260 + number, addr=AWAY)
        call.forge(302 + number, payload=opus(666))
    good = [frame for frame in out if frame.payload == opus(frame.sequence)]
    assert good == heard(*range(260, 280))
    assert call.link.remote == AWAY


def test_two_of_every_sixteen_forged_cost_nothing() -> None:
    call = Call()
    out = call.hear(*range(1, 21))
    for sequence in range(21, 500):
        if sequence % 16 == 5:
            call.forge(sequence + 70, HOME, payload=opus(666))
            call.forge(sequence + 71, HOME, payload=opus(666))
        out += call.hear(sequence)
    good = [frame for frame in out if frame.payload == opus(frame.sequence)]
    assert good == heard(*range(1, 500))


def test_what_is_remembered_is_bounded() -> None:
    call = Call()
    call.hear(1)
    sequence = 1
    for _ in range(60):
        sequence += 50
        call.now += 60 * FRAME
        call.hear(*range(sequence, sequence + 40))
        sequence += 40
    pin = call.link._pin
    assert len(pin._left) <= MAX_LINES
    assert len(pin._left._heard_since) <= MAX_HEARD_SINCE
    assert call.balance()
