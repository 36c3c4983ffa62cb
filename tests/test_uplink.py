"""The way up: order, the gate before a talk, the tail behind it, and bounds, without a network."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from attrs import define, field
from fake_pool import CONCEALED, RECOVERED, REFUSED, FakePool
from fake_wires import HOME, FakeDevice
from trio.testing import wait_all_tasks_blocked

from trio_gateway.core.control import AudioParams
from trio_gateway.core.link import AudioLink
from trio_gateway.errors import BadPacket
from trio_gateway.settings import AudioSettings
from trio_gateway.uplink import STRAGGLERS, Talk, TalkEnd, Uplink

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.uplink import Heard, ListenMode

KEY = b"sixteen byte key"
FRAME = 0.060
TAIL = 0.060


@define
class Line:
    """An uplink, the device at its other end, and a clock."""

    pool: FakePool = field(factory=FakePool)
    backlog: float = 5.0
    now: float = 1000.0
    uplink: Uplink = field(init=False)
    device: FakeDevice = field(init=False)

    def __attrs_post_init__(self) -> None:
        link = AudioLink(KEY, 7)
        self.device = FakeDevice(KEY, link.nonce)
        self.link = link
        self.uplink = Uplink(
            link,
            self.pool.as_pool,
            AudioParams(),
            AudioSettings(tail_wait=TAIL),
            backlog=self.backlog,
        )

    link: AudioLink = field(init=False)

    def hear(self, *values: int) -> None:
        for value in values:
            self.receive(self.device.say(value))

    def receive(self, data: bytes) -> None:
        self.uplink.receive_datagram_untrusted(data, HOME, self.now)

    def start(self, mode: ListenMode = "manual") -> None:
        self.uplink.begin_talk(mode, self.now)

    def stop(self) -> None:
        self.uplink.end_talk(self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass, as the timers do."""
        end = self.now + seconds
        while (due := self.uplink.get_timer()) <= end:
            self.now = max(self.now, due)
            self.uplink.handle_timer(self.now)
        self.now = end

    def balance(self) -> bool:
        """Whether every frame that came has become exactly one thing."""
        return not self.uplink.statistics().unaccounted()


def said(item: Heard) -> int | str:
    if isinstance(item, np.ndarray):
        assert item.shape == (960,)
        assert len(set(item)) == 1
        return int(item[0])
    if isinstance(item, Talk):
        return item.mode + (" (implied)" if item.implied else "")
    return "end"


async def read(uplink: Uplink) -> list[int | str]:
    """All that can be read now."""
    out: list[int | str] = []
    with trio.move_on_after(1):
        while True:
            try:
                out.append(said(await uplink.next()))
            except trio.EndOfChannel:
                return [*out, "closed"]
    return out


async def test_markers_stand_where_the_device_put_them(autojump_clock: MockClock) -> None:
    line = Line()
    line.start("realtime")
    line.hear(1, 2)
    line.stop()
    line.wait(1)
    line.start()
    line.hear(3)
    assert await read(line.uplink) == ["realtime", 1, 2, "end", "manual", 3]
    assert line.balance()


async def test_audio_that_overtakes_its_start_waits_for_it(autojump_clock: MockClock) -> None:
    line = Line()
    line.hear(1, 2)
    line.wait(TAIL / 2)
    assert await read(line.uplink) == []
    line.start()
    line.hear(3)
    assert await read(line.uplink) == ["manual", 1, 2, 3]


async def test_audio_without_a_start_begins_an_implied_talk(autojump_clock: MockClock) -> None:
    line = Line()
    line.hear(1)
    line.wait(TAIL)
    line.hear(2)
    assert await read(line.uplink) == ["auto (implied)", 1, 2]
    line.start("manual")
    line.hear(3)
    line.stop()
    line.wait(TAIL)
    assert await read(line.uplink) == ["manual", 3, "end"]


async def test_the_tail_may_arrive_after_the_stop(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    line.stop()
    line.wait(TAIL * 0.9)
    line.hear(2)
    line.stop()  # said twice: the wait is not prolonged
    line.wait(TAIL * 0.1)
    assert await read(line.uplink) == ["manual", 1, 2, "end"]


async def test_a_gap_in_the_tail_is_not_waited_for_longer(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    line.stop()
    line.wait(TAIL / 2)
    line.device.lose()
    line.hear(3)
    line.wait(TAIL / 2)
    assert await read(line.uplink) == ["manual", 1, CONCEALED, 3, "end"]
    assert line.uplink.get_timer() == float("inf")
    assert line.balance()


async def test_stragglers_of_a_talk_do_not_begin_another(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    line.stop()
    line.wait(2 * TAIL)
    line.hear(2, 3)
    line.wait(TAIL)
    assert await read(line.uplink) == ["manual", 1, "end"]
    assert line.uplink.statistics().unread == 2
    # Who speaks on is heard: its `listen start` was lost.
    line.wait(STRAGGLERS)
    line.hear(4)
    line.wait(TAIL)
    assert await read(line.uplink) == ["auto (implied)", 4]
    assert line.balance()


async def test_a_talk_right_after_another_keeps_its_early_audio(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.stop()
    line.wait(TAIL)
    line.hear(1)
    line.start()
    line.hear(2)
    assert await read(line.uplink) == ["manual", "end", "manual", 1, 2]


async def test_a_start_ends_the_tail_of_the_talk_before(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    line.stop()
    line.start("auto")
    line.hear(2)
    line.wait(1)
    assert await read(line.uplink) == ["manual", 1, "end", "auto", 2]


async def test_start_twice_is_two_talks_and_stop_alone_is_none(autojump_clock: MockClock) -> None:
    line = Line()
    line.stop()
    line.wait(TAIL)
    line.start("auto")
    line.start("auto")
    assert await read(line.uplink) == ["auto", "auto"]
    line.stop()
    line.wait(TAIL)
    line.stop()
    line.wait(TAIL)
    assert await read(line.uplink) == ["end"]


async def test_stop_for_audio_behind_the_gate_makes_it_a_talk(autojump_clock: MockClock) -> None:
    line = Line()
    line.hear(1)
    line.stop()
    line.wait(1)
    assert await read(line.uplink) == ["auto (implied)", 1, "end"]


async def test_audio_that_waited_behind_a_gap_begins_a_talk_too(autojump_clock: MockClock) -> None:
    line = Line()
    line.device.lose()  # the very first one
    line.hear(2, 3)
    line.wait(1)
    assert await read(line.uplink) == ["auto (implied)", CONCEALED, 2, 3]


async def test_slow_decoders_change_nothing_about_the_order(autojump_clock: MockClock) -> None:
    line = Line(pool=FakePool(holds=True))
    line.start()
    line.hear(1, 2)
    line.stop()
    line.wait(TAIL)
    line.start()
    line.hear(3)
    assert await read(line.uplink) == ["manual"]
    line.pool.finish(1)
    assert await read(line.uplink) == [1]
    line.pool.finish()
    assert await read(line.uplink) == [2, "end", "manual", 3]


async def test_what_libopus_refuses_passes_in_silence(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.receive(line.device.say_packet(REFUSED))
    line.hear(2)
    assert await read(line.uplink) == ["manual", 0, 2]
    assert line.uplink.statistics().failed == 1
    assert line.balance()


WITH_COPY = 0x1001  # as a packet it has the LBRR flag: it carries a copy of the frame before it


async def test_a_lost_frame_is_taken_from_the_packet_after_it(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    line.device.lose(2)
    line.hear(WITH_COPY)
    line.device.lose()
    line.hear(3)
    line.wait(FRAME)
    expected = ["manual", 1, CONCEALED, RECOVERED, WITH_COPY, CONCEALED, 3]
    assert await read(line.uplink) == expected
    became = line.uplink.statistics()
    assert (became.decoded, became.recovered, became.concealed) == (3, 1, 2)


async def test_a_reader_that_does_not_read_loses_the_oldest_audio(
    autojump_clock: MockClock,
) -> None:
    line = Line(backlog=5 * FRAME)
    line.start()
    line.hear(*range(1, 9))
    line.stop()
    line.wait(TAIL)
    heard = await read(line.uplink)
    assert heard == ["manual", 6, 7, 8, "end"]
    assert line.uplink.statistics().unread == 5
    assert line.balance()


async def test_of_many_short_talks_the_newest_are_kept_whole(autojump_clock: MockClock) -> None:
    line = Line(backlog=8 * FRAME)
    for value in range(100):
        line.start()
        line.hear(value)
        line.stop()
    line.wait(TAIL)
    heard = await read(line.uplink)
    assert heard[-6:] == ["manual", 98, "end", "manual", 99, "end"]
    assert line.uplink.statistics().decoded == 100
    assert line.balance()


async def test_a_closed_gate_holds_no_more_than_a_reader_would(autojump_clock: MockClock) -> None:
    line = Line(backlog=5 * FRAME)
    for value in range(150):  # a burst within the gate's wait
        line.hear(value)
    assert len(line.uplink._line) <= 5
    line.start()
    assert await read(line.uplink) == ["manual", 146, 147, 148, 149]


async def test_a_stalled_pool_holds_up_a_bounded_line(autojump_clock: MockClock) -> None:
    line = Line(pool=FakePool(holds=True, backlog_frames=3), backlog=10 * FRAME)
    line.start()
    for value in range(150):
        line.hear(value)
        if value % 40 == 20:
            line.start()
    assert len(line.uplink._line) <= 10
    assert line.balance()
    line.pool.finish()
    heard = await read(line.uplink)
    frames = [item for item in heard if isinstance(item, int)]
    assert frames == sorted(frames)
    assert line.uplink.statistics().decoding == 0
    assert line.balance()


async def test_who_waits_is_woken_when_what_was_in_the_way_is_given_up(
    autojump_clock: MockClock,
) -> None:
    line = Line(pool=FakePool(holds=True), backlog=2 * FRAME)
    got: list[int | str] = []

    async def reader() -> None:
        got.append(said(await line.uplink.next()))

    line.start()
    assert await read(line.uplink) == ["manual"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        line.hear(1)  # the worker that has it hangs
        line.start("auto")
        line.start("realtime")
        with trio.fail_after(1):
            while not got:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert got == ["auto"]


async def test_a_device_that_plays_with_its_button_is_bounded(autojump_clock: MockClock) -> None:
    line = Line(backlog=4 * FRAME)
    for _ in range(1000):
        line.start()
        line.stop()
    line.wait(1)
    assert len(line.uplink._line) <= 4
    assert (await read(line.uplink))[-1] == "end"


async def test_closing_with_frames_in_flight_counts_each_once(autojump_clock: MockClock) -> None:
    line = Line(pool=FakePool(holds=True))
    line.start()
    line.hear(1)
    line.pool.finish()
    line.hear(2, 3)
    line.uplink.close()
    assert (line.uplink.statistics().decoded, line.uplink.statistics().dropped) == (1, 2)
    assert line.balance()
    line.pool.finish()  # a worker finishes what it held: too late
    assert (line.uplink.statistics().decoded, line.uplink.statistics().dropped) == (1, 2)
    assert await read(line.uplink) == ["manual", 1, "closed"]


async def test_closing_behind_the_gate_leaves_what_was_decoded(autojump_clock: MockClock) -> None:
    line = Line()
    line.hear(1)
    line.uplink.close()
    assert await read(line.uplink) == [1, "closed"]
    assert line.uplink.get_timer() == float("inf")


async def test_closing_wakes_every_reader(autojump_clock: MockClock) -> None:
    line = Line()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_expect_the_end, line.uplink)
            await wait_all_tasks_blocked()
            line.uplink.close()


async def _expect_the_end(uplink: Uplink) -> None:
    with pytest.raises(trio.EndOfChannel):
        await uplink.next()


async def test_a_cancelled_reader_loses_nothing(autojump_clock: MockClock) -> None:
    line = Line()
    line.start()
    line.hear(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await line.uplink.next()
    item = await line.uplink.next()
    line.uplink.put_back(item)
    assert await read(line.uplink) == ["manual", 1]


def test_the_address_is_known_from_the_first_good_datagram() -> None:
    line = Line()
    with pytest.raises(BadPacket):
        line.receive(b"\x01" + bytes(30))
    assert not line.uplink.address_known.is_set()
    line.hear(1)
    assert line.uplink.address_known.is_set()


def test_sequences_of_the_timers_never_go_round_in_circles() -> None:
    """After `handle_timer(now)` nothing is due by `now` any more."""
    line = Line()
    for value in range(60):
        if value % 7 == 3:
            line.device.lose(value % 3 + 1)
        line.hear(value)
        if value % 5 == 4:
            line.stop()
        if value % 11 == 6:
            line.start()
        line.uplink.handle_timer(line.now)
        assert line.uplink.get_timer() > line.now
        line.now += 0.05


def test_pairs_of_talks_are_well_formed() -> None:
    """Two ends never follow each other without a talk between, when talks are well-formed."""
    line = Line()
    for value in range(20):
        line.start()
        line.hear(value)
        line.stop()
        line.wait(value * 0.01)
    line.wait(1)
    markers = [place.item for place in line.uplink._line if not isinstance(place.item, np.ndarray)]
    assert not [
        1 for a, b in pairwise(markers) if isinstance(a, TalkEnd) and isinstance(b, TalkEnd)
    ]
