"""Loss, copies, disorder and delay, both ways, for a minute of virtual time."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from attrs import define, field
from fake_pool import CONCEALED, value_of
from served_sessions import Call, FakeGateway, serving
from terrible_network import FRAME, Bearer, Listener, StrictDevice, made_up, speech, through

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.settings import AudioSettings
from trio_gateway.simulator.network import BadNetwork, Weather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terrible_network import Arrival
    from trio.testing import MockClock

    from trio_gateway import Session

MINUTE = 1000  # frames
WAIT = AudioSettings().reorder_wait
LEAD = AudioSettings().lead_frames
ROUNDING = 1e-9

WEATHERS = [
    *(Weather(loss=0.3, duplicate=0.2, reorder=0.1, jitter=0.3, seed=seed) for seed in range(4)),
    Weather(loss=0.3, burst=4, duplicate=0.2, jitter=0.3, seed=4),
    Weather(loss=0.3, burst=15, duplicate=0.2, reorder=0.1, jitter=0.05, seed=5),
]
each_weather = pytest.mark.parametrize("weather", WEATHERS, ids=lambda weather: weather.seed)


def up(weather: Weather) -> BadNetwork:
    return BadNetwork(weather, 0, "up", FRAME)


def accounted(call: Call) -> bool:
    """Whether every datagram and every frame has become exactly one thing."""
    link, up = call.session.link.statistics(), call.session.statistics().up
    over = link.duplicate + link.late + link.unconfirmed + sum(link.bad.values())
    made = up.decoded + up.recovered + up.concealed + up.failed + up.dropped
    return (
        link.received == link.delivered + over + link.waiting + link.held
        and link.delivered + link.lost == made
        and up.unaccounted() == {}
    )


async def finish(call: Call) -> None:
    call.listen("stop")
    await trio.sleep(1)


# The way up


def check_delays(arrivals: Sequence[Arrival], heard: dict[int, float]) -> None:
    """Rules 1 and 3 of core/jitter.py, by the clock; a sequence is a frame's number here."""
    moments = {arrival.time for arrival in arrivals}
    taken: dict[int, Arrival] = {}
    for arrival in arrivals:  # of copies, the one that was believed, else the first
        known = taken.get(arrival.sequence)
        if known is None or (arrival.is_believed and not known.is_believed):
            taken[arrival.sequence] = arrival
    for number, time in heard.items():
        arrival = taken[number]
        delay = time - arrival.time
        if arrival.is_next:
            assert delay == 0
        elif arrival.is_believed:
            assert 0 <= delay <= WAIT + ROUNDING
        else:  # held: it leaves with the datagram that confirms it, or its wait goes on
            assert time in moments or 0 < delay <= WAIT + ROUNDING


@each_weather
async def test_a_minute_of_speech(autojump_clock: MockClock, weather: Weather) -> None:
    listener = Listener()
    async with serving(listener) as gateway:
        call = gateway.call()
        call.listen("start")
        bearer = Bearer(call)
        await bearer.bring(through(up(weather), speech(call, trio.current_time(), MINUTE)))
        assert accounted(call)
        await finish(call)
        link = call.session.link.statistics()
        assert accounted(call)
    assert link.received == len(bearer.arrivals)
    assert link.waiting == 0  # late ones of before a jump may still be held: see pinning.py, rule 5
    heard = listener.decoded
    assert listener.numbers == made_up(list(heard))
    assert len(heard) == link.delivered
    check_delays(bearer.arrivals, heard)
    # That was the storm that it says it is.
    counts = link.duplicate, link.late, link.unconfirmed, link.lost
    assert min(counts) > 0, counts
    assert 0 < sum(arrival.is_next for arrival in bearer.arrivals) < len(bearer.arrivals)


@each_weather
async def test_after_the_storm_all_is_well_at_once(
    autojump_clock: MockClock, weather: Weather
) -> None:
    listener = Listener()
    async with serving(listener) as gateway:
        call = gateway.call()
        call.listen("start")
        bearer = Bearer(call)
        began = trio.current_time()
        storm = through(up(weather), speech(call, began, 100))
        sun = began + 100 * FRAME
        calm = speech(call, sun, 30, first=101)
        await bearer.bring(sorted([*storm, *calm], key=lambda sent: sent[0]))
        await finish(call)
        assert accounted(call)
    after = [(time, number) for time, number in listener.heard if number > 100]
    # The first may stand behind a gap, and wait for it; the second confirms it at the latest.
    assert [number for _, number in after] == list(range(101, 131))
    for time, number in after[2:]:
        assert time == sun + (number - 101) * FRAME
    assert listener.numbers[-30:] == list(range(101, 131)), "nothing made up between"


async def test_silence_is_no_loss(autojump_clock: MockClock) -> None:
    """In DTX a device sends packets of one byte, then none for a while; the sequence goes on."""
    listener = Listener()
    async with serving(listener) as gateway:
        call = gateway.call()
        call.listen("start")
        sent = []
        for pause in (0.4, 5.0, 60.0, 0.06):
            call.send(call.audio.say_packet(b"\x58"))
            sent.append(trio.current_time())
            await trio.sleep(pause)
        await finish(call)
        assert call.session.link.statistics().lost == 0
        assert accounted(call)
    assert listener.heard == [(time, 0) for time in sent]


@pytest.mark.parametrize(("frames", "silence"), [(500, 30.0), (80, 0.0)], ids=["outage", "jump"])
async def test_what_a_long_gap_holds_is_skipped(
    autojump_clock: MockClock, frames: int, silence: float
) -> None:
    listener = Listener()
    async with serving(listener) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(1, 2, 3)
        call.audio.lose(frames)
        await trio.sleep(silence)
        call.say(4)
        assert call.session.link.statistics().held == 1
        await trio.sleep(FRAME)
        confirmed = trio.current_time()
        call.say(5, 6)
        await finish(call)
        assert accounted(call)
        assert call.session.link.statistics().skipped == frames - 10
    assert listener.numbers == [1, 2, 3, *[CONCEALED] * 10, 4, 5, 6]
    assert {time for time, _ in listener.heard[3:]} == {confirmed}


async def test_copies_of_what_ended_a_gap_are_only_copies(autojump_clock: MockClock) -> None:
    listener = Listener()
    async with serving(listener) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(1, 2)
        call.audio.lose(4)
        behind = [call.audio.say(value) for value in (7, 8)]
        for data in behind * 2:
            call.send(data)
            await trio.sleep(2 * FRAME)
        await finish(call)
        assert accounted(call)
        assert call.session.link.statistics().duplicate == 2
    assert listener.numbers == [1, 2, *[CONCEALED] * 4, 7, 8]


async def test_over_the_wrap(autojump_clock: MockClock) -> None:
    """A device never gets there; 8 years of silence do, because then such jumps are plausible."""
    listener = Listener()
    weather = Weather(loss=0.05, duplicate=0.2, reorder=0.2, jitter=0.02, seed=1)
    async with serving(listener, idle_timeout=1e10, unheard_timeout=1e10) as gateway:
        call = gateway.call()
        call.listen("start")
        call.say(1)
        for sequence in (1 << 31) - 1, (1 << 32) - 51:
            await trio.sleep((1 << 31) * FRAME)
            call.audio.sequence = sequence - 1
            call.say(1)
            await trio.sleep(FRAME)
            call.say(1)
            await trio.sleep(FRAME)
        del listener.heard[:]
        began = trio.current_time()
        sent = speech(call, began, 49)  # 2**32 - 49 to 2**32 - 1
        assert call.audio.sequence == (1 << 32) - 1
        call.audio.sequence = -1
        sent += speech(call, began + 49 * FRAME, 50, first=50)  # 0 to 49
        arrivals = through(up(weather), sent)
        bearer = Bearer(call)
        await bearer.bring(arrivals)
        await finish(call)
        assert accounted(call)
    # Overtaken packets are back within the wait, so all that arrived is heard.
    came = {data for _, data in arrivals}
    assert listener.numbers == made_up([n for n, (_, data) in enumerate(sent, 1) if data in came])
    order = [(arrival.sequence + 50) % (1 << 32) for arrival in bearer.arrivals]
    assert order != sorted(order)


# The way down


@define(eq=False)
class Player:
    """A handler that plays frames 1, 2, 3 ... and listens as well."""

    frames: int
    listener: Listener = field(factory=Listener)

    async def __call__(self, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.listener, session)
            numbers = np.arange(1, self.frames + 1, dtype=np.int16)
            assert await session.play(np.repeat(numbers, 1440), 24000)


def carried_down(gateway: FakeGateway, weather: Weather) -> StrictDevice:
    """What a device makes of all that was sent to it; messages are never late."""
    device = StrictDevice()
    down = BadNetwork(weather, 0, "down", FRAME)
    datagrams = through(down, [(time, data) for time, data, _ in gateway.sender.sent])
    events: list[tuple[float, str | bytes]] = [
        (time, message["state"])
        for time, _, message in gateway.front.sent
        if message["type"] == "tts"
    ]
    for time, what in sorted([*events, *datagrams], key=lambda event: event[0]):
        if isinstance(what, str):
            device.tts(what)
        else:
            device.hear(what, time)
    return device


def blocks(datagram: bytes) -> range:
    """Counters whose keystream this header would use with the longest Opus frame, 1275 bytes."""
    first = int.from_bytes(datagram[:16], "big")
    return range(first, first + 80)


@each_weather
async def test_a_minute_both_ways(autojump_clock: MockClock, weather: Weather) -> None:
    player = Player(MINUTE)
    async with serving(player) as gateway:
        call = gateway.call()
        call.listen("start", "realtime")
        said = speech(call, trio.current_time(), MINUTE + 50)
        await Bearer(call).bring(through(up(weather), said))
        await finish(call)
        assert accounted(call)
        assert call.session.statistics().down.unaccounted() == {}
        assert call.session.statistics().down.sent == MINUTE
        # What happens on one way is nothing to the other.
        assert player.listener.numbers == made_up(list(player.listener.decoded))
        device = carried_down(gateway, weather)
    sent = [(time, data) for time, data, _ in gateway.sender.sent]
    start = sent[0][0]
    for index, (time, _) in enumerate(sent):
        assert time == pytest.approx(start + max(0, index - LEAD + 1) * FRAME, abs=ROUNDING)
    heard = [struct.unpack_from(">I", data, 12)[0] for data in device.heard]
    assert all(one < other for one, other in pairwise(heard))
    for data, sequence in zip(device.heard, heard, strict=True):
        opus = AudioCipher(call.audio.key).apply(data[:16], data[16:])
        assert value_of(opus) == sequence
    assert set(device.refused) <= {"old", "not speaking"}
    assert device.deepest <= LEAD + round(weather.jitter / FRAME)
    used = set().union(*(blocks(data) for _, data in sent))
    assert len(used) == 80 * MINUTE
    assert used.isdisjoint(set().union(*(blocks(data) for _, data in said)))
