"""The way down: tts messages around audio, the clock, aborts and turns, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import trio
from attrs import define, field
from fake_pool import CONCEALED, LOST, FakePool
from fake_wires import HOME, FakeDevice, FakeSender
from trio.testing import wait_all_tasks_blocked

from trio_gateway.core.fates import DownlinkStatistics
from trio_gateway.core.link import AudioLink
from trio_gateway.core.pcm import to_float32
from trio_gateway.core.sealing import MAX_SEQUENCE
from trio_gateway.errors import KeystreamExhausted, SessionClosed
from trio_gateway.playback import Playback
from trio_gateway.settings import AudioSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from numpy.typing import NDArray
    from trio.testing import MockClock

KEY = b"sixteen byte key"
RATE = 24000
FRAME = 0.060
GUARD = 0.050
SAMPLES = 1440


def pcm(*values: int) -> NDArray[np.int16]:
    """A frame full of each value."""
    return np.repeat(np.array(values, np.int16), SAMPLES)


@define(eq=False)
class Room:
    """A playback, and the device that hears it. Times count from its making."""

    pool: FakePool = field(factory=FakePool)
    lookahead: int = 4
    sender: FakeSender = field(factory=FakeSender)
    said: list[tuple[float, str]] = field(factory=list)
    known: trio.Event = field(factory=trio.Event)
    began: float = field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        self.link = AudioLink(KEY, 7)
        self.device = FakeDevice(KEY, self.link.nonce)
        self.playback = Playback(
            self.link,
            self.sender,
            self.pool.as_pool,
            AudioSettings(guard=GUARD, lead_frames=2),
            lookahead=self.lookahead,
            address_known=self.known,
            tts=lambda state: self.said.append((self.now, state)),
        )

    link: AudioLink = field(init=False)
    device: FakeDevice = field(init=False)
    playback: Playback = field(init=False)

    @property
    def now(self) -> float:
        return round(trio.current_time() - self.began, 6)

    def appear(self) -> None:
        """The device speaks, so its address is known."""
        self.link.receive_datagram_untrusted(self.device.say(0), HOME, trio.current_time())
        self.known.set()

    @property
    def heard(self) -> list[tuple[float, int]]:
        frames = self.device.heard(self.sender)
        assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
        stamps = [frame.timestamp_ms for frame in frames]
        assert stamps == sorted(set(stamps))
        assert all(stamps)
        return [(round(frame.time - self.began, 6), frame.value) for frame in frames]

    @property
    def values(self) -> list[int]:
        return [value for _, value in self.heard]


@pytest.fixture
async def room() -> Room:
    room = Room()
    room.appear()
    return room


async def test_tts_start_a_guard_the_audio_its_play_out_a_guard_tts_stop(
    room: Room, autojump_clock: MockClock
) -> None:
    assert await room.playback.play(pcm(1, 2, 3, 4, 5), RATE)
    times = [time for time, _ in room.heard]
    # Two frames at once, the device's reserve; then one for each that it has played.
    assert times == pytest.approx([GUARD + offset * FRAME for offset in (0, 0, 1, 2, 3)], abs=1e-3)
    assert room.values == [1, 2, 3, 4, 5]
    assert [state for _, state in room.said] == ["start", "stop"]
    start, stop = (time for time, _ in room.said)
    assert start == 0
    assert stop == pytest.approx(GUARD + 5 * FRAME + GUARD)
    assert room.playback.statistics().sent == 5
    assert not room.playback.playing


@pytest.mark.parametrize("rate", [RATE, 16000])
async def test_floats_sound_as_the_integers_do(
    room: Room, autojump_clock: MockClock, rate: int
) -> None:
    heard = []
    for said in (pcm(1, -32768, 32767), to_float32(pcm(1, -32768, 32767))):
        before = len(room.values)
        assert await room.playback.play(said, rate)
        heard.append(room.values[before:])
    assert heard[0] == heard[1]
    assert rate != RATE or heard[0] == [1, -32768, 32767]


@pytest.mark.parametrize("application", ["audio", "voip"])
async def test_the_encoder_is_told_the_application(application: Literal["audio", "voip"]) -> None:
    pool = FakePool()
    Playback(
        AudioLink(KEY, 7),
        FakeSender(),
        pool.as_pool,
        AudioSettings(application=application),
        lookahead=4,
        address_known=trio.Event(),
        tts=lambda _: None,
    )
    assert [stream.application for stream in pool.streams] == [application]


async def test_nothing_to_play_says_nothing(room: Room, autojump_clock: MockClock) -> None:
    assert await room.playback.play(pcm(), RATE)
    assert await room.playback.play(pcm(), 16000)
    assert room.said == []


async def test_it_waits_until_the_device_has_been_heard(autojump_clock: MockClock) -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.playback.play, pcm(1), RATE)
        await trio.sleep(10)
        assert room.said == []
        room.appear()
    assert room.values == [1]


async def test_an_abort_before_the_device_has_been_heard(autojump_clock: MockClock) -> None:
    room = Room()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_after, room, 1.0)
        assert not await room.playback.play(pcm(1), RATE)
    assert room.said == []


async def abort_after(room: Room, seconds: float) -> None:
    await trio.sleep(seconds)
    room.playback.abort()


async def test_an_abort_flushes_within_a_frame_and_says_stop_at_once(
    room: Room, autojump_clock: MockClock
) -> None:
    at = GUARD + 3.5 * FRAME
    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_after, room, at)
        assert not await room.playback.play(pcm(*range(50)), RATE)
    assert room.values == [0, 1, 2, 3, 4]
    assert [state for _, state in room.said] == ["start", "stop"]
    assert room.said[-1][0] == pytest.approx(at)
    # The next answer is whole again.
    assert await room.playback.play(pcm(7), RATE)
    assert room.values[5:] == [7]


async def test_an_abort_during_the_guard_sends_no_audio(
    room: Room, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_after, room, GUARD / 2)
        assert not await room.playback.play(pcm(1, 2), RATE)
    assert room.heard == []
    assert [state for _, state in room.said] == ["start", "stop"]
    assert room.said[-1][0] == pytest.approx(GUARD / 2)


async def test_an_abort_after_the_last_frame_cuts_its_play_out(
    room: Room, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_after, room, GUARD + FRAME / 2)
        assert not await room.playback.play(pcm(1), RATE)
    at, state = room.said[-1]
    assert at == pytest.approx(GUARD + FRAME / 2)
    assert state == "stop"


async def test_plays_take_turns_in_the_order_of_the_calls(
    room: Room, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for value in range(4):
            nursery.start_soon(room.playback.play, pcm(value, value), RATE)
            await wait_all_tasks_blocked()
        assert room.playback.playing
    assert room.values == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [state for _, state in room.said] == ["start", "stop"] * 4


async def test_an_abort_ends_what_waits_for_its_turn_too(
    room: Room, autojump_clock: MockClock
) -> None:
    results: list[bool] = []

    async def play(value: int) -> None:
        results.append(await room.playback.play(pcm(*[value] * 20), RATE))

    async with trio.open_nursery() as nursery:
        for value in range(3):
            nursery.start_soon(play, value)
            await wait_all_tasks_blocked()
        await abort_after(room, 0.5)
    assert results == [False] * 3
    assert set(room.values) == {0}
    assert [state for _, state in room.said] == ["start", "stop"]


async def test_who_plays_can_be_cancelled_and_the_next_one_plays(
    room: Room, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(GUARD + 1.5 * FRAME):
        await room.playback.play(pcm(*range(50)), RATE)
    assert room.said[-1][1] == "stop"
    assert not room.playback.playing
    room.playback.abort()  # nothing plays: nothing happens
    assert await room.playback.play(pcm(9), RATE)
    assert room.values == [0, 1, 2, 9]


async def test_closing_ends_every_play_even_a_shielded_one_of_another_task(
    room: Room, autojump_clock: MockClock
) -> None:
    closed = 0

    async def play() -> None:
        nonlocal closed
        with pytest.raises(SessionClosed), trio.CancelScope(shield=True):
            await room.playback.play(pcm(*range(50)), RATE)
        closed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(play)
        await trio.sleep(0.3)
        frames = len(room.heard)
        room.playback.close()
    assert closed == 3
    assert len(room.heard) == frames
    with pytest.raises(SessionClosed):
        await room.playback.play(pcm(1), RATE)


async def test_a_stream_is_played_as_it_comes(room: Room, autojump_clock: MockClock) -> None:
    async def speech() -> AsyncIterator[NDArray[np.int16]]:
        for value in (1, 2, 3):
            yield pcm(value)[: SAMPLES // 2]
            yield pcm(value)[SAMPLES // 2 :]
            await trio.sleep(1)

    assert await room.playback.play(speech(), RATE)
    assert room.heard == [(GUARD, 1), (1.0, 2), (2.0, 3)]
    # One start for all of it: between sentences the device waits in its speaking state.
    assert [state for _, state in room.said] == ["start", "stop"]
    assert room.said[-1][0] == pytest.approx(3.0)


async def test_a_generator_is_closed_when_the_user_interrupts(
    room: Room, autojump_clock: MockClock
) -> None:
    ends: list[str] = []

    async def speech() -> AsyncIterator[NDArray[np.int16]]:
        try:
            while True:
                yield pcm(1)
        finally:
            ends.append("closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_after, room, 0.5)
        assert not await room.playback.play(speech(), RATE)
    assert ends == ["closed"]


async def test_no_more_is_encoded_ahead_than_the_lookahead(
    room: Room, autojump_clock: MockClock
) -> None:
    made = 0

    async def speech() -> AsyncIterator[NDArray[np.int16]]:
        nonlocal made
        while True:
            made += 1
            yield pcm(made)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.playback.play, speech(), RATE)
        await trio.sleep(GUARD + 10.5 * FRAME)
        sent = len(room.heard)
        nursery.cancel_scope.cancel()
    # Sent, waiting in the channel, one that waits to get in, and one that the pacer holds.
    assert made <= sent + room.lookahead + 2


async def test_a_source_that_fails_is_heard_up_to_there_and_raises_its_own_error(
    room: Room, autojump_clock: MockClock
) -> None:
    async def speech() -> AsyncIterator[NDArray[np.int16]]:
        yield pcm(1, 2)
        raise ZeroDivisionError("the speech service is down")

    with pytest.raises(ZeroDivisionError, match="speech service"):
        await room.playback.play(speech(), RATE)
    assert room.values == [1, 2]
    assert room.said[-1][1] == "stop"
    assert await room.playback.play(pcm(3), RATE)


@pytest.mark.parametrize("endless", [False, True])
async def test_a_key_that_is_used_up_raises_its_own_error(
    room: Room, autojump_clock: MockClock, *, endless: bool
) -> None:
    closed = trio.Event()

    async def speech() -> AsyncIterator[NDArray[np.int16]]:
        try:
            while True:
                yield pcm(1)
        finally:
            closed.set()

    room.link._sealer.sequence = MAX_SEQUENCE - 3
    room.link._sealer._first_at = trio.current_time()
    with pytest.raises(KeystreamExhausted):
        await room.playback.play(speech() if endless else pcm(*range(1, 11)), RATE)
    assert [state for _, state in room.said] == ["start", "stop"]
    statistics = room.playback.statistics()
    assert (statistics.sent, statistics.queued) == (3, 0)
    assert not statistics.unaccounted()
    assert closed.is_set() == endless
    assert not room.playback.playing


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (np.zeros((10, 2), np.int16), ValueError),
        (np.zeros(10, np.int32), ValueError),
        ([1, 2, 3], TypeError),
        (b"\0\0", TypeError),
    ],
)
async def test_what_is_no_pcm_is_refused_without_a_sound(
    room: Room, autojump_clock: MockClock, source: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await room.playback.play(source, RATE)
    assert room.said == []
    with pytest.raises(ValueError, match="rate"):
        await room.playback.play(pcm(1), 0)


async def test_a_frame_that_libopus_refuses_is_left_out(
    room: Room, autojump_clock: MockClock
) -> None:
    assert await room.playback.play(pcm(1, CONCEALED, 3), RATE)
    assert room.values == [1, 3]
    assert room.playback.statistics().failed == 1


async def test_a_frame_that_two_workers_were_lost_with_is_left_out_too(
    room: Room, autojump_clock: MockClock
) -> None:
    assert await room.playback.play(pcm(1, LOST, 3), RATE)
    assert room.values == [1, 3]
    assert room.playback.statistics().failed == 1


async def test_a_full_socket_is_a_counted_drop_and_time_goes_on(
    room: Room, autojump_clock: MockClock
) -> None:
    room.sender.full = True
    assert await room.playback.play(pcm(1, 2, 3), RATE)
    assert room.playback.statistics() == DownlinkStatistics(framed=3, unsent=3)
    room.sender.full = False
    assert await room.playback.play(pcm(4), RATE)
    # Frames that were lost here have used up their sequences: the device conceals them.
    assert [frame.sequence for frame in room.device.heard(room.sender)] == [4]


async def test_a_slow_pool_makes_the_clock_start_again_and_never_a_burst(
    autojump_clock: MockClock,
) -> None:
    room = Room(pool=FakePool(holds=True))
    room.appear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.playback.play, pcm(*range(6)), RATE)
        for delay in (0.0, 0.0, 1.0, 0.0, 0.0, 0.0):
            await trio.sleep(delay)
            await wait_all_tasks_blocked()
            room.pool.finish(1)
    times = [time for time, _ in room.heard]
    assert len(times) == 6
    for i in range(3, 6):
        assert times[i] - times[i - 2] > FRAME * 0.9, "at most two frames at once"


async def test_closing_with_a_frame_in_flight_wakes_nobody_twice(
    autojump_clock: MockClock,
) -> None:
    room = Room(pool=FakePool(holds=True))
    room.appear()
    async with trio.open_nursery() as nursery:

        async def play() -> None:
            with pytest.raises(SessionClosed):
                await room.playback.play(pcm(1, 2), RATE)

        nursery.start_soon(play)
        await wait_all_tasks_blocked()
        room.playback.close()
        room.pool.finish()
    assert room.said == []
