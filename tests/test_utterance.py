"""Where utterances begin and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from attrs import define, field
from fake_pool import FakePool
from fake_wires import HOME, FakeDevice

from trio_gateway.core.control import AudioParams
from trio_gateway.core.link import AudioLink
from trio_gateway.settings import AudioSettings
from trio_gateway.uplink import Uplink
from trio_gateway.utterance import LEAD_IN, MAX_UTTERANCE, AudioIn, Utterance, Utterances

if TYPE_CHECKING:
    from trio.testing import MockClock

KEY = b"sixteen byte key"
FRAME = 0.060
PAUSE = 0.5
SILENT = 0
SETTINGS = AudioSettings(voice_pause=PAUSE)


@define
class Talker:
    """A device that talks, and what a handler makes of it."""

    uplink: Uplink = field(init=False)
    device: FakeDevice = field(init=False)

    def __attrs_post_init__(self) -> None:
        link = AudioLink(KEY, 7)
        self.device = FakeDevice(KEY, link.nonce)
        self.uplink = Uplink(link, FakePool().as_pool, AudioParams(), SETTINGS, backlog=600.0)

    @property
    def utterances(self) -> Utterances:
        return Utterances(self.uplink, SETTINGS)

    def say(self, *values: int) -> None:
        for value in values:
            data = self.device.say(value)
            self.uplink.receive_datagram_untrusted(data, HOME, trio.current_time())

    async def talk(self, *values: int) -> None:
        """At the speed of speech."""
        for value in values:
            self.say(value)
            await trio.sleep(FRAME)

    async def stop(self) -> None:
        self.uplink.end_talk(trio.current_time())
        await trio.sleep(SETTINGS.tail_wait)
        self.uplink.handle_timer(trio.current_time())


async def collected(utterance: Utterance) -> list[int]:
    """The value of each frame."""
    return [int(value) for value in (await utterance.collect())[::960]]


async def nothing_more(utterances: Utterances) -> bool:
    with trio.move_on_after(100) as waited:
        await anext(utterances)
    return waited.cancelled_caught


async def test_a_talk_with_a_button_lasts_as_long_as_it_is_held(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("manual", trio.current_time())
    talker.say(9000, SILENT)
    await trio.sleep(30)
    talker.say(9001)
    await talker.stop()
    utterances = talker.utterances
    utterance = await anext(utterances)
    assert utterance.mode == "manual"
    assert await collected(utterance) == [9000, SILENT, 9001]
    assert await collected(utterance) == [], "it has been read"
    assert await nothing_more(utterances)


async def test_a_talk_without_a_word(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("manual", trio.current_time())
    await talker.stop()
    assert await collected(await anext(talker.utterances)) == []


async def test_auto_mode_ends_after_the_pause_and_the_next_words_are_the_next_utterance(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    got: list[tuple[float, list[int]]] = []

    async def listen() -> None:
        began = trio.current_time()
        async for utterance in talker.utterances:
            values = await collected(utterance)
            got.append((trio.current_time() - began, values))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await talker.talk(9000, 9001, *[SILENT] * 20)
        await talker.talk(9002, *[SILENT] * 20)
        nursery.cancel_scope.cancel()
    (first_at, first), (second_at, second) = got
    silence = round(PAUSE / FRAME)
    assert first[:2] == [9000, 9001]
    assert len(first) - 2 in (silence, silence + 1)
    assert first_at == pytest.approx(FRAME + PAUSE, abs=0.01)
    lead_in = int(LEAD_IN / FRAME)  # the onset of a word is soft; the rest belongs to neither
    assert second[: lead_in + 1] == [*[SILENT] * lead_in, 9002]
    assert second_at == pytest.approx(22 * FRAME + PAUSE, abs=0.01)


async def test_auto_mode_waits_for_the_first_word_and_cuts_the_silence_before_it(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    await talker.talk(*[SILENT] * (3 * int(MAX_UTTERANCE / FRAME)), 9000, *[SILENT] * 20)
    values = await collected(await anext(talker.utterances))
    lead_in = int(LEAD_IN / FRAME + 0.5)
    assert values[: lead_in + 1] == [SILENT] * lead_in + [9000]


async def test_a_handler_that_comes_late_hears_pauses_where_they_were(
    autojump_clock: MockClock,
) -> None:
    """It was busy, and reads half a minute in no time."""
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    await talker.talk(9000, *[SILENT] * 20, 9001, 9002, *[SILENT] * 20)
    utterances = talker.utterances
    assert max(await collected(await anext(utterances))) == 9000
    second = await collected(await anext(utterances))
    assert [value for value in second if value != SILENT] == [9001, 9002]


async def test_a_handler_that_is_slow_between_frames_is_not_a_pause(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    talker.say(9000, 9001, 9002)
    utterance = await anext(talker.utterances)
    heard = []
    async for frame in utterance:
        heard.append(int(frame[0]))
        await trio.sleep(3 * PAUSE)
    assert heard == [9000, 9001, 9002]


async def test_a_new_start_without_a_stop_ends_one_and_begins_another(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    talker.say(9000)
    talker.uplink.begin_talk("manual", trio.current_time())
    talker.say(9001)
    await talker.stop()
    utterances = talker.utterances
    assert await collected(await anext(utterances)) == [9000]
    assert await collected(await anext(utterances)) == [9001]


async def test_a_late_start_names_the_mode_of_what_is_heard_already(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    talker.say(9000)
    await trio.sleep(SETTINGS.tail_wait)
    talker.uplink.handle_timer(trio.current_time())
    utterance = await anext(talker.utterances)
    assert utterance.mode == "auto"
    talker.uplink.begin_talk("manual", trio.current_time())
    await talker.talk(SILENT)
    await trio.sleep(10 * PAUSE)
    talker.say(9001)
    await talker.stop()
    assert await collected(utterance) == [9000, SILENT, 9001]
    assert str(utterance.mode) == "manual"


async def test_a_late_start_of_a_realtime_talk_begins_a_new_utterance(
    autojump_clock: MockClock,
) -> None:
    """Who handles realtime talks otherwise must know before the first frame."""
    talker = Talker()
    talker.say(9000)
    await trio.sleep(SETTINGS.tail_wait)
    talker.uplink.handle_timer(trio.current_time())
    talker.uplink.begin_talk("realtime", trio.current_time())
    talker.say(9001)
    await talker.stop()
    utterances = talker.utterances
    assert await collected(await anext(utterances)) == [9000]
    second = await anext(utterances)
    assert second.mode == "realtime"
    assert await collected(second) == [9001]


@pytest.mark.parametrize("mode", ["manual", "auto"])
async def test_a_radio_is_cut_and_nothing_of_it_is_lost(
    autojump_clock: MockClock, mode: str
) -> None:
    talker = Talker()
    talker.uplink.begin_talk("manual" if mode == "manual" else "auto", trio.current_time())
    most = int(MAX_UTTERANCE / FRAME + 0.5)
    said = [5000 + number for number in range(2 * most + 7)]
    await talker.talk(*said)
    await talker.stop()
    utterances = talker.utterances
    heard = [await collected(await anext(utterances)) for _ in range(3)]
    assert [len(each) for each in heard] == [most, most, 7]
    assert [value for each in heard for value in each] == said
    assert await nothing_more(utterances)


async def test_a_realtime_talk_has_no_longest_utterance(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("realtime", trio.current_time())
    frames = 2 * int(MAX_UTTERANCE / FRAME)
    await talker.talk(*[9000] * frames)
    await talker.stop()
    assert len([frame async for frame in await anext(talker.utterances)]) == frames


async def test_the_rest_of_an_utterance_that_nobody_reads_is_skipped(
    autojump_clock: MockClock,
) -> None:
    talker = Talker()
    for value in (1, 5):
        talker.uplink.begin_talk("manual", trio.current_time())
        talker.say(value, value + 1, value + 2)
        await talker.stop()
    utterances = talker.utterances
    first = await anext(utterances)
    assert int((await anext(first))[0]) == 1
    assert await collected(await anext(utterances)) == [5, 6, 7]


async def test_an_utterance_ends_with_its_session(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("auto", trio.current_time())
    talker.say(9000)
    utterances = talker.utterances
    utterance = await anext(utterances)
    talker.uplink.close()
    assert await collected(utterance) == [9000]
    with pytest.raises(StopAsyncIteration):
        await anext(utterances)


async def test_audio_is_all_frames_whatever_the_talks(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("manual", trio.current_time())
    talker.say(1)
    await talker.stop()
    talker.uplink.begin_talk("auto", trio.current_time())
    talker.say(2)
    talker.uplink.close()
    audio = AudioIn(talker.uplink, SETTINGS)
    assert (audio.rate, audio.frame_ms, audio.sample_format) == (16000, 60, "int16")
    frames = [frame async for frame in audio]
    assert [int(frame[0]) for frame in frames] == [1, 2]
    assert all(frame.dtype == np.int16 and frame.shape == (960,) for frame in frames)


FLOATS = AudioSettings(voice_pause=PAUSE, sample_format="float32")


async def test_audio_as_float32_has_the_same_samples(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.say(9001, -32768)
    talker.uplink.close()
    audio = AudioIn(talker.uplink, FLOATS)
    assert audio.sample_format == "float32"
    frames = [frame async for frame in audio]
    assert all(frame.dtype == np.float32 and frame.shape == (960,) for frame in frames)
    assert [float(frame[0]) for frame in frames] == [9001 / 32768, -1.0]


async def test_utterances_as_float32_begin_and_end_where_the_others_do(
    autojump_clock: MockClock,
) -> None:
    said = [*[SILENT] * 20, 9000, -9001, *[SILENT] * 20, 9002, *[SILENT] * 20]
    heard = []
    for settings in (SETTINGS, FLOATS):
        talker = Talker()
        talker.uplink.begin_talk("auto", trio.current_time())
        talker.say(*said)
        utterances = Utterances(talker.uplink, settings)
        heard.append([await (await anext(utterances)).collect() for _ in range(2)])
    for ints, floats in zip(*heard, strict=True):
        assert (ints.dtype, floats.dtype) == (np.int16, np.float32)
        np.testing.assert_array_equal(floats * 32768, ints)


async def test_frames_and_nothing_as_float32(autojump_clock: MockClock) -> None:
    talker = Talker()
    talker.uplink.begin_talk("manual", trio.current_time())
    talker.say(9000)
    await talker.stop()
    utterance = await anext(Utterances(talker.uplink, FLOATS))
    frames = [frame async for frame in utterance]
    assert [float(frame[-1]) for frame in frames] == [9000 / 32768]
    assert all(frame.dtype == np.float32 for frame in frames)
    assert (await utterance.collect()).dtype == np.float32
