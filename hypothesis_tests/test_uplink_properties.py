"""Invariant: what is read is what was said, in that order, however late its frames are decoded.

Compared with the same events on an uplink whose decoder answers at once, and with a list.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import trio
from attrs import define, field
from fake_pool import CONCEALED, FakePool
from fake_wires import HOME, FakeDevice
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.control import AudioParams
from trio_gateway.core.link import AudioLink
from trio_gateway.settings import AudioSettings
from trio_gateway.uplink import Talk, TalkEnd, Uplink

if TYPE_CHECKING:
    from trio_gateway.uplink import Heard

KEY = b"sixteen byte key"
TAIL = 0.060

EVENTS = st.lists(
    st.one_of(
        st.just(("say", 0)),
        st.just(("lose", 0)),
        st.just(("start", 0)),
        st.just(("stop", 0)),
        st.just(("read", 0)),
        st.tuples(st.just("finish"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.integers(1, 2000)),  # ms
    ),
    max_size=80,
)


@define
class Line:
    """An uplink under a clock that only the test moves; reads without waiting."""

    pool: FakePool
    backlog: float = math.inf
    now: float = 1000.0
    said: int = 0
    read: list[Heard] = field(factory=list)
    link: AudioLink = field(factory=lambda: AudioLink(KEY, 7))
    device: FakeDevice = field(init=False)
    uplink: Uplink = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.device = FakeDevice(KEY, self.link.nonce)
        backlog = min(self.backlog, 1e6)
        self.uplink = Uplink(
            self.link,
            self.pool.as_pool,
            AudioParams(),
            AudioSettings(tail_wait=TAIL),
            backlog=backlog,
        )

    def act(self, event: str, number: int) -> None:
        """Let one event happen."""
        match event:
            case "say":
                self.said += 1
                data = self.device.say(self.said)
                self.uplink.receive_datagram_untrusted(data, HOME, self.now)
            case "lose":
                self.device.lose()
            case "start":
                self.uplink.begin_talk("manual", self.now)
            case "stop":
                self.uplink.end_talk(self.now)
            case "read":
                self.read_all()
            case "finish":
                self.pool.finish(number)
            case "wait":
                self.wait(number / 1000)
        assert self.balance()

    def wait(self, seconds: float) -> None:
        """Let time pass, as the timers do."""
        end = self.now + seconds
        while (due := self.uplink.get_timer()) <= end:
            self.now = max(self.now, due)
            self.uplink.handle_timer(self.now)
        self.now = end

    def read_all(self) -> None:
        """Read what can be read now."""

        async def main() -> None:
            while self.uplink.is_readable:
                self.read.append(await self.uplink.next())

        trio.run(main)

    def close(self) -> None:
        """Everything arrives, is decoded and is read."""
        self.wait(10)
        self.pool.finish()
        self.read_all()

    def balance(self) -> bool:
        """Whether every frame that came has become exactly one thing."""
        return not self.uplink.statistics().unaccounted()


def names(items: list[Heard]) -> list[int | Talk | TalkEnd]:
    return [int(item[0]) if isinstance(item, np.ndarray) else item for item in items]


@given(EVENTS)
def test_late_decoders_change_nothing(events: list[tuple[str, int]]) -> None:
    prompt = Line(FakePool())
    late = Line(FakePool(holds=True, backlog_frames=1000))
    for event in events:
        prompt.act(*event)
        late.act(*event)
    prompt.close()
    late.close()
    assert names(late.read) == names(prompt.read)
    assert late.uplink.statistics().decoding == 0


@given(EVENTS)
def test_frames_come_in_order_each_once_or_are_counted(events: list[tuple[str, int]]) -> None:
    line = Line(FakePool(holds=True, backlog_frames=1000))
    for event in events:
        line.act(*event)
    line.close()
    frames = [each for each in names(line.read) if isinstance(each, int)]
    spoken = [each for each in frames if each != CONCEALED]
    assert spoken == sorted(set(spoken))
    stragglers = line.uplink.statistics().unread + line.uplink.statistics().dropped
    link = line.link.statistics()
    assert len(frames) + stragglers == link.delivered + link.lost


@given(EVENTS)
def test_every_frame_is_in_a_talk_and_every_end_ends_one(events: list[tuple[str, int]]) -> None:
    line = Line(FakePool())
    for event in events:
        line.act(*event)
    line.close()
    talking = False
    for each in names(line.read):
        if isinstance(each, Talk):
            talking = True
        else:
            assert talking
            talking = not isinstance(each, TalkEnd)


@given(EVENTS, st.integers(2, 6))
def test_the_line_is_bounded_and_keeps_the_newest(
    events: list[tuple[str, int]], frames: int
) -> None:
    line = Line(FakePool(holds=True, backlog_frames=3), backlog=frames * 0.0601)
    for event in events:
        line.act(*event)
        assert len(line.uplink._line) <= frames
    line.close()
    spoken = [each for each in names(line.read) if isinstance(each, int) and each != CONCEALED]
    assert spoken == sorted(set(spoken))
    assert line.balance()
    assert line.uplink.statistics().decoding == 0
