"""The dispatcher with workers that are played by the test: no pipe, no thread, no libopus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from opus_reference import packets

from trio_gateway.errors import CodecError, FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE, RECOVER
from trio_gateway.workers.dispatch import Dispatcher
from trio_gateway.workers.frame import Frame, StreamQueue
from trio_gateway.workers.lane import Lane
from trio_gateway.workers.slab import Slab
from trio_gateway.workers.wire import COMPLETION, READY, TICKET

if TYPE_CHECKING:
    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.opus import OpusState

PACKET = packets(16000, 1)[0]


class FakeState:
    """A codec state is an address to the dispatcher."""

    def __init__(self) -> None:
        self.address = id(self)


class FakeWorker(Lane):
    """A lane, and what is at the other end of its pipe."""

    def __init__(self, name: str = "worker", capacity: int = 4, *, pipe_bytes: int = 65536) -> None:
        super().__init__(name, capacity, self.take)
        self.pipe = b""
        self.pipe_bytes = pipe_bytes
        self.writes = 0

    def take(self, data: bytes) -> int:
        taken = data[: self.pipe_bytes - len(self.pipe)]
        self.pipe += taken
        self.writes += 1
        return len(taken)

    @property
    def tickets(self) -> list[tuple[int, int, int, int, int, int]]:
        """What came: state, number, slot, length, samples, operation."""
        return list(TICKET.iter_unpack(self.pipe[: len(self.pipe) // TICKET.size * TICKET.size]))


class Office:
    """A dispatcher, its streams, and the results in the order of their arrival."""

    def __init__(self, slots: int = 16) -> None:
        self.now = 100.0
        self.slab = Slab(slots)
        self.dispatcher = Dispatcher(self.slab, deadline=0.150, window=10, clock=lambda: self.now)
        self.counters = self.dispatcher.counters
        self.results: list[tuple[str, Result]] = []

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.results]

    def hire(self, *workers: FakeWorker) -> None:
        for worker in workers:
            self.dispatcher.lanes.append(worker)
            self.report(worker, READY, 0)

    def stream(self, *, backlog: int = 50, encoder: bool = False) -> StreamQueue:
        make_state = cast("type[OpusState]", FakeState)
        return StreamQueue(make_state, 16000, backlog, 1400 if encoder else 0)

    def submit(self, stream: StreamQueue, *names: str, operation: int = DECODE) -> list[Frame]:
        frames = []
        for name in names:
            frame = Frame(stream, operation, 1920, partial(self._done, name), PACKET)
            if operation == ENCODE:
                frame.packet, frame.pcm, frame.samples = b"", np.zeros(960, np.int16), 960
            elif operation == CONCEAL:
                frame.packet, frame.samples = b"", 320
            frames.append(frame)
            self.dispatcher.submit(frame)
        return frames

    def _done(self, name: str, result: Result) -> None:
        self.results.append((name, result))

    def report(self, worker: FakeWorker, number: int, result: int, codec_ns: int = 1000) -> None:
        data = COMPLETION.pack(number, result, codec_ns)
        self.dispatcher.completed_untrusted(worker, data)

    def finish(self, worker: FakeWorker, tickets: int = 1, result: int = 960) -> None:
        """The worker does its next tickets, one report each."""
        for _ in range(tickets):
            number, worker.pipe = worker.tickets[0][1], worker.pipe[TICKET.size :]
            self.report(worker, number, result)

    def at_rest(self) -> bool:
        return (self.counters.waiting, self.counters.in_flight, self.slab.used) == (0, 0, 0)


# Who gets what, and when


def test_nothing_is_handed_out_before_a_worker_is_ready() -> None:
    office, worker = Office(), FakeWorker()
    office.dispatcher.lanes.append(worker)
    office.submit(office.stream(), "frame")
    assert worker.tickets == []
    office.report(worker, READY, 0)
    assert len(worker.tickets) == 1


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
    office, slow, fast = Office(), FakeWorker("slow", 1), FakeWorker("fast", 1)
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
    office, worker = Office(), FakeWorker(capacity=1)
    office.hire(worker)
    office.submit(office.stream(), "first")
    for name in ("encode 1", "encode 2"):
        office.submit(office.stream(encoder=True), name, operation=ENCODE)
    for name in ("decode 1", "decode 2"):
        office.submit(office.stream(), name)
    office.finish(worker, 5, result=100)
    assert office.order == ["first", "decode 1", "decode 2", "encode 1", "encode 2"]


def test_streams_take_turns() -> None:
    office, worker = Office(), FakeWorker(capacity=1)
    office.hire(worker)
    greedy, modest = office.stream(), office.stream()
    office.submit(greedy, "g1", "g2", "g3")
    office.submit(modest, "m1", "m2")
    office.finish(worker, 5)
    assert office.order == ["g1", "m1", "g2", "m2", "g3"]


def test_a_batch_is_one_write_for_each_worker() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)
    with office.dispatcher.batch():
        for name in "abc":
            office.submit(office.stream(), name)
        with office.dispatcher.batch():
            office.submit(office.stream(), "inner")
        assert worker.tickets == []
    assert len(worker.tickets) == 4
    assert worker.writes == 1


def test_a_batch_that_raises_is_handed_out_all_the_same() -> None:
    office, worker = Office(), FakeWorker()
    office.hire(worker)

    def body() -> None:
        with office.dispatcher.batch():
            office.submit(office.stream(), "frame")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert len(worker.tickets) == 1


def test_frames_wait_for_a_free_slot() -> None:
    office, worker = Office(slots=2), FakeWorker(capacity=4)
    office.hire(worker)
    for name in "abc":
        office.submit(office.stream(), name)
    assert (len(worker.tickets), office.counters.waiting) == (2, 1)
    office.finish(worker, 3)
    assert office.order == ["a", "b", "c"]
    assert office.at_rest()


# Frames that are given up


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


# Callbacks


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


# Reports


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
    assert counters.waiting_frame_s == pytest.approx(0.1)
    assert counters.pending_frame_s == pytest.approx(0.151)
    latency = counters.latency.summary(office.now)
    assert latency.count == 2
    assert latency.max == pytest.approx(0.151)


# Pipes that are full


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


# Workers that are lost


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
    assert isinstance(office.results[0][1], PoolClosed)
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
