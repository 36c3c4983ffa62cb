"""Frames that are given up, callbacks, and what workers report."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from dispatch_office import COST, PACKET, FakeWorker, Office

from trio_gateway.errors import CodecError, FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.workers.codec import DECODE, ENCODE
from trio_gateway.workers.frame import Frame, Result
from trio_gateway.workers.wire import COMPLETION, READY


def test_a_full_backlog_drops_its_oldest_frame() -> None:
    office = Office()
    stream = office.stream(backlog=2)
    office.submit(stream, "1", "2", "3", "4")
    assert office.order == ["1", "2"]
    assert all(isinstance(result, FrameDropped) for _, result in office.results)
    worker = FakeWorker()
    office.hire(worker)
    office.finish(worker, 2)
    assert office.order == ["1", "2", "3", "4"]
    assert office.counters.dropped == 2


def test_a_withdrawn_frame_is_not_done_unless_it_is_in_flight() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream()
    flying, waiting, last = office.submit(stream, "flying", "waiting", "last")
    office.dispatcher.withdraw(flying)
    office.dispatcher.withdraw(waiting)
    office.finish(worker, 2)
    assert office.order == ["last"], "nobody is told about what was withdrawn"
    assert (office.counters.decoded, office.counters.dropped) == (2, 1)
    assert office.at_rest()
    assert last.slot >= 0


def test_a_stream_whose_only_frame_was_withdrawn_is_passed_over() -> None:
    office, worker = Office(), FakeWorker()
    (frame,) = office.submit(office.stream(), "gone")
    office.dispatcher.withdraw(frame)
    office.hire(worker)
    assert worker.tickets == []
    assert office.at_rest()


def test_a_closed_stream_drops_what_waits_and_takes_no_more() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream()
    office.submit(stream, "flying", "waiting", "waiting too")
    office.dispatcher.close_stream(stream, lambda: PoolClosed("closing"))
    assert office.order == ["waiting", "waiting too"]
    assert office.results[0][1] is not office.results[1][1], "an exception has one traceback"
    with pytest.raises(PoolClosed):
        office.submit(stream, "late")
    office.finish(worker)
    assert isinstance(office.results[-1][1], np.ndarray)
    assert office.at_rest()


def test_a_callback_may_submit_the_next_frame() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream()

    def again(result: Result) -> None:
        office.results.append(("again", result))
        if len(office.results) < 3:
            office.dispatcher.submit(Frame(stream, DECODE, 1920, again, PACKET))

    office.dispatcher.submit(Frame(stream, DECODE, 1920, again, PACKET))
    office.finish(worker, 3)
    assert office.order == ["again"] * 3
    assert office.at_rest()


def test_a_callback_that_raises_hurts_nobody() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)

    def broken(_: Result) -> None:
        raise ZeroDivisionError

    stream = office.stream(backlog=1)
    for _ in range(3):
        office.dispatcher.submit(Frame(stream, DECODE, 1920, broken, PACKET))
    office.submit(office.stream(), "other")
    data = b"".join(COMPLETION.pack(number, 960, 0) for number in (0, 1))
    office.dispatcher.completed_untrusted(worker, data)
    assert office.order == ["other"]
    assert worker.tickets[-1][1] == 2, "the broken one's next frame went out"


def test_a_callback_may_close_the_stream_that_it_is_told_about() -> None:
    office = Office()
    stream = office.stream(backlog=1)

    def close(_: Result) -> None:
        office.dispatcher.close_stream(stream, lambda: FrameDropped("closed"))

    office.dispatcher.submit(Frame(stream, DECODE, 1920, close, PACKET))
    with pytest.raises(PoolClosed):
        office.submit(stream, "too late")
    assert office.order == []
    assert office.at_rest()


def test_reports_may_come_in_pieces() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    for name in "ab":
        office.submit(office.stream(), name)
    data = COMPLETION.pack(0, 960, 5000) + COMPLETION.pack(1, 480, 7000)
    for start in range(0, len(data), 5):
        office.dispatcher.completed_untrusted(worker, data[start : start + 5])
    assert [len(cast("bytes", result)) for _, result in office.results] == [960, 480]
    assert worker.frames == 2
    assert worker.busy_s == office.counters.busy_s == pytest.approx(12e-6)


def test_an_error_of_libopus_is_that_frames_own() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    office.submit(office.stream(), "bad", "good")
    office.finish(worker, result=-4)
    office.finish(worker)
    assert isinstance(office.results[0][1], CodecError)
    assert isinstance(office.results[1][1], np.ndarray)
    assert (office.counters.failed, office.counters.decoded) == (1, 1)


@pytest.mark.parametrize(
    ("number", "result"),
    [(1, 960), (7, 960), (READY, 960), (0, 1921), (0, 2**31 - 1), (0, 0)],
)
def test_a_lie_is_noticed_and_nothing_more_is_handed_to_the_liar(number: int, result: int) -> None:
    office, liar = Office(), FakeWorker("liar")
    office.hire(liar)
    for name in "ab":
        office.submit(office.stream(), name)
    with pytest.raises(WorkerFailed, match="liar reports"):
        office.report(liar, number, result)
    office.submit(office.stream(), "c")
    assert len(liar.tickets) == 2
    assert office.order == []


def test_ticket_numbers_start_anew_before_they_could_be_taken_for_ready() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    worker.handed = READY - 1
    for name in "ab":
        office.submit(office.stream(), name)
    assert [ticket[1] for ticket in worker.tickets] == [READY - 1, 0]
    office.finish(worker, 2)
    assert office.order == ["a", "b"]


def test_a_worker_without_tickets_has_nothing_to_report() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    with pytest.raises(WorkerFailed, match="ticket 0"):
        office.report(worker, 0, 960)


def test_packets_of_an_encoder_have_their_own_limit() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    stream = office.stream(encoder=True)
    office.submit(stream, "a", "b", operation=ENCODE)
    office.finish(worker, result=1400)
    assert len(cast("bytes", office.results[0][1])) == 1400
    with pytest.raises(WorkerFailed):
        office.finish(worker, result=1401)


def test_what_is_late_is_counted_and_time_is_integrated() -> None:
    office, worker = Office(), FakeWorker()
    office.submit(office.stream(), "a")
    office.now += 0.1
    office.hire(worker)
    office.now += 0.051
    office.finish(worker)
    office.submit(office.stream(), "b")
    office.finish(worker)
    counters = office.counters
    assert counters.late == 1
    assert counters.waiting_frame_s == pytest.approx(0.151 - 2 * COST)
    assert counters.pending_frame_s == pytest.approx(0.151)
    latency = counters.latency.summary(office.now)
    assert latency.count == 2
    assert latency.max == pytest.approx(0.151)
