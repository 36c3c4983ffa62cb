"""Which frame goes to which worker, and when."""

from __future__ import annotations

import math

import pytest
from dispatch_office import COST, PACKET, FakeWorker, Office

from trio_gateway.workers.codec import DECODE, ENCODE
from trio_gateway.workers.dispatch import MAX_TICKETS
from trio_gateway.workers.wire import READY


def test_nothing_is_handed_out_before_a_worker_is_ready() -> None:
    office, worker = Office(), FakeWorker()
    office.dispatcher.lanes.append(worker)
    office.submit(office.stream(), "frame")
    assert worker.tickets == []
    office.report(worker, READY, 0)
    assert len(worker.tickets) == 1


def test_a_worker_that_was_closed_before_it_was_ready_gets_nothing() -> None:
    office, worker = Office(), FakeWorker()
    office.dispatcher.lanes.append(worker)
    office.submit(office.stream(), "frame")
    office.dispatcher.close_lane(worker)
    office.report(worker, READY, 0)
    assert worker.tickets == []


def test_a_ticket_says_where_everything_is() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    decoding, encoding = office.stream(), office.stream(encoder=True)
    office.submit(decoding, "decode")
    office.submit(encoding, "encode", operation=ENCODE)
    first, second = worker.tickets
    assert first == (decoding.state.address, 0, 0, len(PACKET), 1920, DECODE)
    assert second == (encoding.state.address, 1, 1, 1400, 960, ENCODE)
    assert office.slab.packet(0, len(PACKET)) == PACKET


def test_a_stream_has_one_ticket_in_flight_and_its_frames_stay_in_order() -> None:
    office, workers = Office(), [FakeWorker("a"), FakeWorker("b")]
    office.hire(*workers)
    stream = office.stream()
    office.submit(stream, "1", "2", "3")
    for _ in range(3):
        assert office.counters.in_flight == 1
        (busy,) = [worker for worker in workers if worker.tickets]
        office.finish(busy)
    assert office.order == ["1", "2", "3"]
    assert office.at_rest()


def test_the_least_loaded_worker_is_chosen_as_late_as_can_be() -> None:
    office, slow, fast = Office(room=1), FakeWorker("slow"), FakeWorker("fast")
    office.hire(slow, fast)
    for name in "abcd":
        office.submit(office.stream(), name)
    assert (len(slow.tickets), len(fast.tickets), office.counters.waiting) == (1, 1, 2)
    office.finish(fast)
    office.finish(fast)
    assert office.counters.waiting == 0
    assert (len(slow.tickets), len(fast.tickets)) == (1, 1)


def test_tickets_are_spread_evenly() -> None:
    office, workers = Office(), [FakeWorker(name) for name in "abc"]
    office.hire(*workers)
    for name in "123456":
        office.submit(office.stream(), name)
    assert [len(worker.tickets) for worker in workers] == [2, 2, 2]


def test_decoders_come_before_encoders() -> None:
    office, worker = Office(room=1), FakeWorker()
    office.hire(worker)
    office.submit(office.stream(), "first")
    for name in ("encode 1", "encode 2"):
        office.submit(office.stream(encoder=True), name, operation=ENCODE)
    for name in ("decode 1", "decode 2"):
        office.submit(office.stream(), name)
    office.finish(worker, 5, result=100)
    assert office.order == ["first", "decode 1", "decode 2", "encode 1", "encode 2"]


def test_streams_take_turns() -> None:
    office, worker = Office(room=1), FakeWorker()
    office.hire(worker)
    greedy, modest = office.stream(), office.stream()
    office.submit(greedy, "g1", "g2", "g3")
    office.submit(modest, "m1", "m2")
    office.finish(worker, 5)
    assert office.order == ["g1", "m1", "g2", "m2", "g3"]


def test_a_batch_is_one_write_for_each_worker() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    with office.dispatcher:
        for name in "abc":
            office.submit(office.stream(), name)
        with office.dispatcher:
            office.submit(office.stream(), "inner")
        assert worker.tickets == []
    assert len(worker.tickets) == 4
    assert worker.writes == 1


def test_a_batch_that_raises_is_handed_out_all_the_same() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)

    def body() -> None:
        with office.dispatcher:
            office.submit(office.stream(), "frame")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert len(worker.tickets) == 1


def test_frames_wait_for_a_free_slot() -> None:
    office, worker = Office(slots=2), FakeWorker()
    office.hire(worker)
    for name in "abc":
        office.submit(office.stream(), name)
    assert (len(worker.tickets), office.counters.waiting) == (2, 1)
    office.finish(worker, 3)
    assert office.order == ["a", "b", "c"]
    assert office.at_rest()


def test_a_worker_holds_seconds_of_work_and_not_a_number_of_frames() -> None:
    office, worker = Office(slots=1024, room=4), FakeWorker()
    office.hire(worker)
    dear, cheap = office.stream(), office.stream()
    dear.cost, cheap.cost = 3 * COST, COST / 1000
    office.submit(dear, "dear")
    assert worker.load == pytest.approx(3 * COST)
    for number in range(2 * MAX_TICKETS):
        office.submit(office.stream_that_costs(cheap.cost), str(number))
    assert MAX_TICKETS / 8 <= len(worker.tickets) <= MAX_TICKETS
    other = FakeWorker("other")
    office.hire(other)
    assert len(other.tickets) == MAX_TICKETS, "however cheap, a pipe always holds them"


def test_a_frame_that_costs_more_than_a_worker_holds_is_done_all_the_same() -> None:
    office, worker = Office(room=1), FakeWorker()
    office.hire(worker)
    office.submit(office.stream_that_costs(100 * COST), "dear")
    office.submit(office.stream(), "next")
    assert len(worker.tickets) == 1
    office.finish(worker, 2)
    assert office.order == ["dear", "next"]
    assert worker.load == 0.0


def test_the_worker_with_the_least_work_is_chosen_not_the_one_with_the_fewest_frames() -> None:
    office, workers = Office(room=10), [FakeWorker("a"), FakeWorker("b")]
    office.hire(*workers)
    office.submit(office.stream_that_costs(5 * COST), "dear")
    for name in "1234":
        office.submit(office.stream(), name)
    assert [len(worker.tickets) for worker in workers] == [1, 4]


def test_a_streams_cost_follows_what_its_frames_take() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream()
    for _ in range(40):
        office.submit(stream, "frame")
        office.report(worker, worker.handed - 1, 960, codec_ns=round(3e9 * COST))
    assert stream.cost == pytest.approx(3 * COST, rel=0.01)


def test_first_come_first_served_where_that_is_asked_for() -> None:
    office, worker = Office(room=1, decode_first=False), FakeWorker()
    office.hire(worker)
    office.submit(office.stream(), "first")
    office.submit(office.stream(encoder=True), "encode", operation=ENCODE)
    office.submit(office.stream(), "decode")
    office.finish(worker, 3)
    assert office.order == ["first", "encode", "decode"]


def test_dedicated_workers_get_no_encoders_and_one_worker_is_always_left_for_those() -> None:
    office = Office(room=2, decode_workers=2)
    first, second, third = workers = [FakeWorker(name) for name in "abc"]
    office.hire(first)
    office.submit(office.stream(encoder=True), "1", operation=ENCODE)
    assert len(first.tickets) == 1, "it is the only one"
    office.hire(second, third)
    assert [worker.decodes_only for worker in workers] == [True, True, False]
    for number in range(4):
        office.submit(office.stream(encoder=True), str(number), operation=ENCODE)
    assert [len(worker.tickets) for worker in workers] == [1, 0, 2]
    for number in range(3):
        office.submit(office.stream(), str(number))
    assert [len(worker.tickets) for worker in workers] == [2, 2, 2]
    office.dispatcher.close_lane(third)
    assert [worker.decodes_only for worker in workers] == [True, False, False]
    assert third.load == math.inf


def test_a_batch_is_one_moment() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    with office.dispatcher:
        office.now += 1
        (frame,) = office.submit(office.stream(), "frame")
    assert frame.submitted == 100.0
