"""Pipes that are full and workers that are lost: what becomes of the frames."""

from __future__ import annotations

import pytest
from dispatch_office import FakeWorker, Office

from trio_gateway.errors import FrameDropped, WorkerFailed
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE, RECOVER
from trio_gateway.workers.wire import TICKET


def test_what_a_full_pipe_does_not_take_follows_when_the_worker_has_read() -> None:
    office, worker = Office(), FakeWorker(pipe_bytes=2 * TICKET.size + 5)
    office.hire(worker)
    for name in "abcd":
        office.submit(office.stream(), name)
    assert len(worker.tickets) == 2
    office.finish(worker, 4)
    assert office.order == ["a", "b", "c", "d"]
    assert office.at_rest()


@pytest.mark.parametrize("torn", [0, 1, TICKET.size - 1])
def test_a_closed_lane_gives_back_what_has_not_left(torn: int) -> None:
    office, worker = Office(), FakeWorker(pipe_bytes=TICKET.size + torn)
    office.hire(worker)
    streams = {name: office.stream() for name in "abc"}
    for name, stream in streams.items():
        office.submit(stream, name)
    states = [stream.state for stream in streams.values()]
    office.dispatcher.close_lane(worker)
    assert [frame.stream for frame in worker.held] == [streams["a"]]
    assert worker.torn == bool(torn), "nothing may be written behind half a ticket"
    other = FakeWorker("other")
    office.hire(other)
    assert [state for state, *_ in other.tickets] == [states[1].address, states[2].address]
    office.finish(other, 2)
    office.finish(worker)
    assert sorted(office.order) == ["a", "b", "c"]
    assert office.at_rest()


def test_of_a_lost_workers_frames_the_first_is_the_suspect_and_the_others_are_untouched() -> None:
    office, lost = Office(), FakeWorker("lost")
    office.hire(lost)
    streams = [office.stream() for _ in range(3)]
    for stream, name in zip(streams, "abc", strict=True):
        office.submit(stream, name, name + "2")
    before = [stream.state for stream in streams]
    office.finish(lost)
    assert [frame.stream for frame in lost.held] == [streams[1], streams[2], streams[0]]
    office.dispatcher.lanes.remove(lost)
    office.dispatcher.lane_lost(lost, still_running=False)
    assert office.slab.used == 0
    assert [stream.state is state for stream, state in zip(streams, before, strict=True)] == [
        True,
        False,
        True,
    ]
    heir = FakeWorker("heir")
    office.hire(heir)
    operations = {
        state: (operation, samples) for state, _, _, _, samples, operation in heir.tickets
    }
    assert operations == {
        streams[0].state.address: (DECODE, 1920),
        streams[1].state.address: (CONCEAL, 960),  # as long as its packet says
        streams[2].state.address: (DECODE, 1920),
    }
    office.finish(heir, 5)
    assert sorted(office.order) == ["a", "a2", "b", "b2", "c", "c2"]
    assert office.order.index("b") < office.order.index("b2")
    assert (office.counters.concealed, office.counters.decoded) == (1, 5)
    assert office.at_rest()


@pytest.mark.parametrize("operation", [CONCEAL, RECOVER])
def test_a_suspect_that_was_to_be_concealed_is_so_at_the_length_asked_for(operation: int) -> None:
    office, lost, heir = Office(), FakeWorker("lost"), FakeWorker("heir")
    office.hire(lost)
    (frame,) = office.submit(office.stream(), "a", operation=operation)
    asked_for = frame.samples
    office.dispatcher.lane_lost(lost, still_running=False)
    office.hire(heir)
    assert heir.tickets[0][3:] == (0, asked_for, CONCEAL)


def test_a_suspect_of_an_encoder_is_done_again() -> None:
    office, lost, heir = Office(), FakeWorker("lost"), FakeWorker("heir")
    office.hire(lost)
    stream = office.stream(encoder=True)
    (frame,) = office.submit(stream, "a", operation=ENCODE)
    assert frame.pcm is not None
    frame.pcm[:] = 7
    old = stream.state
    office.dispatcher.lane_lost(lost, still_running=False)
    office.hire(heir)
    assert stream.state is not old
    assert heir.tickets[0][3:] == (1400, 960, ENCODE)
    assert office.slab.pcm(heir.tickets[0][2], 960).tolist() == [7] * 960
    office.finish(heir, result=99)
    assert office.counters.encoded == 1


def test_a_frame_gets_no_third_worker() -> None:
    office = Office()
    stream = office.stream()
    office.submit(stream, "poison", "next")
    for _ in range(2):
        worker = FakeWorker()
        office.hire(worker)
        office.dispatcher.lane_lost(worker, still_running=False)
    assert isinstance(office.results[0][1], WorkerFailed)
    survivor = FakeWorker()
    office.hire(survivor)
    office.finish(survivor)
    assert office.order == ["poison", "next"]
    assert office.at_rest()


def test_a_suspect_that_is_no_packet_gets_the_error_that_libopus_would_give() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    (frame,) = office.submit(office.stream(), "garbage")
    frame.packet = b"\xff"
    office.dispatcher.lane_lost(worker, still_running=False)
    assert str(office.results[0][1]) == "libopus: corrupted stream (-4)"
    assert office.at_rest()


def test_frames_of_a_closed_stream_end_with_their_worker() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream()
    office.submit(stream, "a")
    office.dispatcher.close_stream(stream, lambda: FrameDropped("closed"))
    office.dispatcher.lane_lost(worker, still_running=False)
    assert isinstance(office.results[0][1], FrameDropped)
    assert office.at_rest()


def test_what_a_hanging_worker_was_lent_is_never_used_again() -> None:
    """It may have begun any of them, and it may go on at any time."""
    office, hanging, heir = Office(), FakeWorker("hanging"), FakeWorker("heir")
    office.hire(hanging)
    streams = [office.stream() for _ in range(2)]
    for stream, name in zip(streams, "ab", strict=True):
        office.submit(stream, name)
    lent = [stream.state for stream in streams]
    slots = {ticket[2] for ticket in hanging.tickets}
    office.dispatcher.lane_lost(hanging, still_running=True)
    assert hanging.put_aside == lent
    office.hire(heir)
    addresses = {state.address for state in lent}
    assert not addresses & {ticket[0] for ticket in heir.tickets}
    assert not slots & {ticket[2] for ticket in heir.tickets}
    assert {ticket[5] for ticket in heir.tickets} == {CONCEAL}
    office.finish(heir, 2)
    assert office.counters.in_flight == office.counters.waiting == 0
    assert office.slab.used == 2, "for as long as the process lives"


def test_all_that_a_liar_held_is_suspect() -> None:
    """It went on with its tickets while nobody listened."""
    office, liar, heir = Office(), FakeWorker("liar"), FakeWorker("heir")
    office.hire(liar)
    for name in "ab":
        office.submit(office.stream(), name)
    with pytest.raises(WorkerFailed):
        office.report(liar, 5, 960)
    office.dispatcher.lane_lost(liar, still_running=False)
    office.hire(heir)
    assert [ticket[5] for ticket in heir.tickets] == [CONCEAL, CONCEAL]


def test_slots_that_come_back_are_used_at_once() -> None:
    office, hanging, heir = Office(slots=1), FakeWorker("hanging"), FakeWorker("heir")
    office.hire(hanging)
    office.submit(office.stream(), "a")
    slots = office.dispatcher.lane_lost(hanging, still_running=True)
    office.hire(heir)
    assert heir.tickets == [], "the only slot is still that of the worker that hangs"
    office.dispatcher.give_back(slots)
    assert len(heir.tickets) == 1


def test_what_has_not_left_is_no_suspect() -> None:
    office, lost = Office(), FakeWorker("lost", pipe_bytes=TICKET.size)
    office.hire(lost)
    streams = [office.stream(), office.stream()]
    for stream, name in zip(streams, "ab", strict=True):
        office.submit(stream, name)
    states = [stream.state for stream in streams]
    slots = office.dispatcher.lane_lost(lost, still_running=True)
    assert slots == [0], "and that of the other one is free already"
    assert streams[0].state is not states[0]
    assert streams[1].state is states[1]
    office.dispatcher.close_lane(lost)  # which follows, and finds nothing
