"""The pool with both kinds of worker, the real libopus and real pipes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from attrs import evolve
from leftovers import nothing_left
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames
from opus_reference import packets as opus_packets

from trio_gateway.errors import CodecError, FrameDropped, PoolClosed, WorkerFailed
from trio_gateway.settings import PoolSettings
from trio_gateway.workers.interpreter import interpreters_work
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> PoolSettings:
    return PoolSettings(kind=request.param, min_workers=2, max_workers=4)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    with nothing_left():
        yield


async def test_pcm_and_packets_are_those_of_one_codec_on_one_thread(settings: PoolSettings) -> None:
    encoder, decoder = ReferenceEncoder(24000), ReferenceDecoder(24000)
    pcm = frames(24000, 20)
    packets = [encoder.encode(frame) for frame in pcm]
    decoded = [decoder.decode(packet) for packet in packets]
    async with open_worker_pool(settings) as pool:
        assert pool.kind == settings.kind
        with pool.encoder(24000, bitrate=24000) as ours, pool.decoder(24000) as heard:
            assert [await ours.encode(frame) for frame in pcm] == packets
            for packet, expected in zip(packets, decoded, strict=True):
                np.testing.assert_array_equal(await heard.decode(packet), expected)


async def test_streams_survive_a_storm_of_scaling_bit_for_bit(settings: PoolSettings) -> None:
    packets = opus_packets(16000, 40)
    reference = ReferenceDecoder(16000)
    expected = np.concatenate([reference.decode(packet) for packet in packets])
    done = trio.Event()
    matches: list[bool] = []

    async with open_worker_pool(settings) as pool:

        async def stream() -> None:
            with pool.decoder(16000) as decoder:
                for _ in range(3):
                    pcm = [await decoder.decode(packet) for packet in packets]
                matches.append(len(pcm) == len(packets))

        async def exact() -> None:
            with pool.decoder(16000) as decoder:
                pcm = [await decoder.decode(packet) for packet in packets]
                matches.append(np.array_equal(np.concatenate(pcm), expected))

        async def storm() -> None:
            while not done.is_set():
                for workers in (1, 4, 2, 3):
                    await pool.resize(workers)

        async with trio.open_nursery() as outer:
            outer.start_soon(storm)
            async with trio.open_nursery() as inner:
                for _ in range(12):
                    inner.start_soon(stream)
                    inner.start_soon(exact)
            done.set()
        statistics = pool.statistics()
        assert matches == [True] * 24
        assert statistics.decoded == statistics.frames == 12 * 4 * len(packets)
        assert statistics.deaths == statistics.dropped == statistics.slots_used == 0


async def test_callbacks_come_in_order_and_a_batch_is_one_hand_out(settings: PoolSettings) -> None:
    packets = opus_packets(16000, 10)
    reference = ReferenceDecoder(16000)
    expected = [reference.decode(packet) for packet in packets]
    results: list[object] = []
    everything = trio.Event()

    def done(result: object) -> None:
        results.append(result)
        if len(results) == len(packets):
            everything.set()

    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        with pool.batch():
            for packet in packets:
                decoder.submit_decode(packet, done)
            assert pool.statistics().waiting == len(packets)
        assert pool.statistics().in_flight == 1, "one ticket of a stream at a time"
        with trio.fail_after(5):
            await everything.wait()
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, right)


async def test_a_refused_packet_is_its_own_error_and_the_stream_goes_on(
    settings: PoolSettings,
) -> None:
    (packet,) = opus_packets(16000, 1)
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        with pytest.raises(CodecError, match="corrupted stream"):
            await decoder.decode(b"\xff\xff\xff")  # code 3 with an impossible frame count
        assert len(await decoder.decode(packet)) == 960
        assert pool.statistics().failed == 1


async def test_an_encoder_is_told_the_application(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        music = pool.encoder(24000, bitrate=24000)
        speech = pool.encoder(24000, application="voip", bitrate=24000)
        for frame in frames(24000, 3):
            assert await music.encode(frame) != await speech.encode(frame)


async def test_no_packet_is_longer_than_was_asked_for(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        encoder = pool.encoder(24000, bitrate=510_000, max_packet_bytes=200)
        lengths = [len(await encoder.encode(frame)) for frame in frames(24000, 20)]
        assert 150 < max(lengths) <= 200
        with pytest.raises(ValueError, match="1 to 8192"):
            pool.encoder(24000, max_packet_bytes=0)


async def test_lost_frames_are_concealed_at_the_length_asked_for(settings: PoolSettings) -> None:
    packets, reference = opus_packets(16000, 4), ReferenceDecoder(16000)
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        for packet in packets[:3]:
            np.testing.assert_array_equal(await decoder.decode(packet), reference.decode(packet))
        np.testing.assert_array_equal(await decoder.conceal(960), reference.conceal(960))
        np.testing.assert_array_equal(
            await decoder.decode(packets[3]), reference.decode(packets[3])
        )
        assert pool.statistics().concealed == 1


async def test_a_full_backlog_drops_its_oldest_frame(settings: PoolSettings) -> None:
    (packet,) = opus_packets(16000, 1)
    results: list[object] = []
    async with open_worker_pool(
        PoolSettings(kind=settings.kind, min_workers=1, backlog_frames=3)
    ) as pool:
        decoder = pool.decoder(16000)
        with pool.batch():
            for _ in range(5):
                decoder.submit_decode(packet, results.append)
            assert [type(result) for result in results] == [FrameDropped, FrameDropped]
        with trio.fail_after(5):
            while len(results) < 5:
                await trio.lowlevel.checkpoint()
        assert pool.statistics().dropped == 2


async def test_who_is_cancelled_before_the_call_has_said_nothing(settings: PoolSettings) -> None:
    packets, reference = opus_packets(16000, 2), ReferenceDecoder(16000)
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        with trio.CancelScope() as scope:
            scope.cancel()
            await decoder.decode(packets[0])
        assert scope.cancelled_caught
        np.testing.assert_array_equal(
            await decoder.decode(packets[1]), reference.decode(packets[1])
        )


async def test_who_is_cancelled_in_flight_has_been_heard(settings: PoolSettings) -> None:
    packets, reference = opus_packets(16000, 2), ReferenceDecoder(16000)
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(decoder.decode, packets[0])
            while not pool.statistics().in_flight + pool.statistics().frames:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        reference.decode(packets[0])
        np.testing.assert_array_equal(
            await decoder.decode(packets[1]), reference.decode(packets[1])
        )


@pytest.mark.parametrize("bad", [b"", b"x" * 9000, "text", bytearray(b"bytes")])
async def test_impossible_packets_are_the_callers_error(settings: PoolSettings, bad: bytes) -> None:
    async with open_worker_pool(settings) as pool:
        with pytest.raises(ValueError, match="bytes"):
            await pool.decoder(16000).decode(bad)


async def test_impossible_pcm_is_the_callers_error(settings: PoolSettings) -> None:
    async with open_worker_pool(settings) as pool:
        encoder = pool.encoder(24000)
        with pytest.raises(ValueError, match="no Opus frame length"):
            await encoder.encode(np.zeros(1441, np.int16))
        with pytest.raises(ValueError, match="float64"):
            await encoder.encode(np.zeros(1440))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="sample rate"):
            pool.decoder(44100)


async def test_what_is_closed_says_so(settings: PoolSettings) -> None:
    (packet,) = opus_packets(16000, 1)
    async with open_worker_pool(settings) as pool:
        decoder = pool.decoder(16000)
        decoder.close()
        decoder.close()
        with pytest.raises(PoolClosed):
            await decoder.decode(packet)
        left = pool.decoder(16000)
        assert pool.statistics().streams == 1
    with pytest.raises(PoolClosed):
        await left.decode(packet)
    with pytest.raises(PoolClosed):
        pool.decoder(16000)


async def test_a_libopus_that_is_none_is_a_clear_error(settings: PoolSettings) -> None:
    wrong = PoolSettings(kind=settings.kind, libopus="/nonexistent/libopus.so")
    with pytest.raises(WorkerFailed, match="nonexistent"):
        async with open_worker_pool(wrong):
            raise AssertionError("not reached")


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
async def test_the_lookahead_is_where_an_impulse_comes_out(
    settings: PoolSettings, rate: int
) -> None:
    frame = rate * 60 // 1000
    pcm = np.zeros(frame, np.int16)
    pcm[frame // 2] = 30000
    async with open_worker_pool(settings) as pool:
        encoder = pool.encoder(rate, complexity=10, bitrate=128000)
        decoder = pool.decoder(rate)
        heard = [await decoder.decode(await encoder.encode(pcm))]
        heard.append(await decoder.decode(await encoder.encode(np.zeros(frame, np.int16))))
    peak = int(np.argmax(np.abs(np.concatenate(heard).astype(int))))
    assert abs(peak - frame // 2 - encoder.lookahead) <= rate // 1000


async def test_the_interpreter_switches_threads_faster_while_workers_are_threads(
    settings: PoolSettings,
) -> None:
    before = sys.getswitchinterval()
    async with open_worker_pool(evolve(settings, switch_interval=0.00025)) as pool:
        faster = pool.kind == "thread"
        assert sys.getswitchinterval() == pytest.approx(0.00025 if faster else before)
    assert sys.getswitchinterval() == before
