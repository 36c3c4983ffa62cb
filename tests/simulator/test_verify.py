"""Right audio passes by far and wrong audio fails by far, both through real Opus."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soxr
from opus_reference import ReferenceDecoder, ReferenceEncoder

from trio_gateway.simulator.codec import decode, encode, gateway_encoder
from trio_gateway.simulator.verify import (
    REQUIRED,
    reference_echo,
    required_similarity,
    similarity,
)
from trio_gateway.simulator.voice import FRAME_MS, Voice, voice
from trio_gateway.speech import CLIPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RATE = 24000
FRAME = RATE * FRAME_MS // 1000
CLIP_NUMBERS = range(len(CLIPS))


@pytest.fixture(params=CLIP_NUMBERS, ids=CLIPS)
def spoken(request: pytest.FixtureRequest) -> Voice:
    return voice(request.param)


def judged(spoken: Voice, heard: NDArray[np.int16]) -> float:
    return similarity(spoken.said(RATE), heard, rate=RATE).value


def heard_from(downlink: Sequence[bytes | None]) -> NDArray[np.int16]:
    return decode(downlink, RATE, FRAME)


def thinned(packets: Sequence[bytes], share: float, seed: int) -> list[bytes | None]:
    """Lose exactly that share of the packets, somewhere."""
    lost = random.Random(seed).sample(range(len(packets)), round(share * len(packets)))
    return [None if index in lost else packet for index, packet in enumerate(packets)]


@pytest.mark.parametrize("complexity", [0, 5, 7, 10])
def test_an_echo_at_24_kbit_passes_by_far(spoken: Voice, complexity: int) -> None:
    echo = reference_echo(spoken.packets, complexity=complexity)
    assert judged(spoken, echo.pcm) > 0.97


def test_half_the_bit_rate_still_passes(spoken: Voice) -> None:
    echo = reference_echo(spoken.packets, bitrate=12_000)
    assert judged(spoken, echo.pcm) > REQUIRED


def test_passed_through_it_is_the_same(spoken: Voice) -> None:
    """As a gateway without codec has it: the uplink's packets come back."""
    heard = decode(spoken.packets, 16000, 960)
    result = similarity(spoken.said(16000), heard, rate=16000)
    assert result.value == pytest.approx(1)
    assert result.frames > 20
    assert result.delay == 0


def test_the_delay_is_found_in_both_directions(spoken: Voice) -> None:
    said = spoken.said(RATE)
    later = np.concatenate([np.zeros(10_000, np.int16), said, np.zeros(7, np.int16)])
    assert similarity(said, later).delay == 10_000 / RATE
    assert similarity(later, said).delay == -10_000 / RATE
    assert similarity(said, later).value > 0.99


def test_level_and_silence_around_do_not_count(spoken: Voice) -> None:
    quiet = (reference_echo(spoken.packets).pcm * 0.1).astype(np.int16)
    pause = np.zeros(RATE, np.int16)
    assert judged(spoken, np.concatenate([pause, quiet, pause])) > 0.97


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_what_the_network_is_known_to_have_lost_is_forgiven(
    spoken: Voice, share: float, seed: int
) -> None:
    echo = reference_echo(spoken.packets).packets
    down = heard_from(thinned(echo, share, seed))
    # The share of the frames of both ways together.
    assert judged(spoken, down) > required_similarity(share / 2)
    up = reference_echo(thinned(spoken.packets, share, seed)).pcm
    assert judged(spoken, up) > required_similarity(share / 2)


@pytest.mark.parametrize("seed", range(4))
def test_half_lost_fails_by_far(spoken: Voice, seed: int) -> None:
    echo = reference_echo(spoken.packets).packets
    assert judged(spoken, heard_from(thinned(echo, 0.5, seed))) < 0.75
    up = reference_echo(thinned(spoken.packets, 0.5, seed)).pcm
    assert judged(spoken, up) < 0.75


def test_an_encoder_for_each_worker_fails(spoken: Voice) -> None:
    """The known gateways' way: consecutive frames meet different codec states."""
    pcm = soxr.resample(decode(spoken.packets, 16000, 960), 16000, RATE)
    encoders = [gateway_encoder(RATE, complexity=5, bitrate=24_000) for _ in range(2)]
    downlink = [
        encode(encoders[index % 2], pcm[start : start + FRAME], FRAME)[0]
        for index, start in enumerate(range(0, len(pcm), FRAME))
    ]
    assert judged(spoken, heard_from(downlink)) < REQUIRED - 0.02


def test_a_frame_too_few_fails_by_far(spoken: Voice) -> None:
    echo = list(reference_echo(spoken.packets).packets)
    del echo[len(echo) // 2]
    assert judged(spoken, heard_from(echo)) < 0.75


def test_order_matters(spoken: Voice) -> None:
    echo = list(reference_echo(spoken.packets).packets)
    swapped = [packet for pair in zip(echo[1::2], echo[::2], strict=False) for packet in pair]
    assert judged(spoken, heard_from(swapped)) < 0.6
    random.Random(1).shuffle(echo)
    assert judged(spoken, heard_from(echo)) < 0.2


def test_too_little_and_too_much_fail(spoken: Voice) -> None:
    pcm = reference_echo(spoken.packets).pcm
    assert judged(spoken, pcm[: len(pcm) // 2]) < 0.7
    assert judged(spoken, np.tile(pcm, 2)) < 0.7


def test_another_voice_fails_by_far(spoken: Voice) -> None:
    for other in map(voice, CLIP_NUMBERS):
        if other is not spoken:
            assert judged(spoken, reference_echo(other.packets).pcm) < 0.2


def test_what_is_no_speech_fails_by_far(spoken: Voice) -> None:
    pcm = reference_echo(spoken.packets).pcm
    noise = np.random.default_rng(1).normal(0, 3000, len(pcm)).astype(np.int16)
    assert judged(spoken, noise) < 0.1
    assert judged(spoken, pcm[::-1].copy()) < 0.2
    assert judged(spoken, pcm + noise) < 0.75
    assert judged(spoken, np.zeros(len(pcm), np.int16)) == 0
    assert judged(spoken, np.empty(0, np.int16)) == 0
    assert judged(spoken, decode(spoken.packets, 16000, 960)) < 0.2, "16 kHz played at 24"


def test_the_reference_is_what_others_make_of_libopus(spoken: Voice) -> None:
    """Bit for bit, with opuslib's own classes and one call of soxr for all of it."""
    decoder = ReferenceDecoder(16000)
    pcm = np.concatenate([decoder.decode(packet) for packet in spoken.packets])
    resampled = soxr.resample(pcm, 16000, RATE, quality="HQ")
    padded = np.zeros(-(-len(resampled) // FRAME) * FRAME, np.int16)
    padded[: len(resampled)] = resampled
    encoder, device = ReferenceEncoder(RATE), ReferenceDecoder(RATE)
    packets = [encoder.encode(frame) for frame in padded.reshape(-1, FRAME)]
    echo = reference_echo(spoken.packets)
    assert list(echo.packets) == packets
    np.testing.assert_array_equal(
        echo.pcm, np.concatenate([device.decode(packet) for packet in packets])
    )


def test_what_is_no_opus_is_concealed() -> None:
    packets: list[bytes | None] = list(voice(0).packets[:20])
    gap = decode([*packets[:10], None, *packets[11:]], RATE, FRAME)
    packets[10] = b"\xff\xff"  # 63 frames in nothing: no valid packet
    np.testing.assert_array_equal(decode(packets, RATE, FRAME), gap)
    assert len(gap) == 20 * FRAME


def test_what_is_required_goes_down_with_the_damage_and_not_below_other_voices() -> None:
    shares = np.linspace(0, 1, 50)
    required = [required_similarity(share) for share in shares]
    assert required[0] == REQUIRED
    assert required == sorted(required, reverse=True)
    assert required[-1] > 0.2


def test_a_voice_is_silent_after_its_clip_for_as_long_as_it_takes() -> None:
    spoken = voice(0)
    packets = [spoken.packet(index) for index in range(len(spoken.packets) + 300)]
    assert packets[: len(spoken.packets)] == list(spoken.packets)
    after = decode(packets, 16000, 960)[(len(spoken.packets) + 10) * 960 :]
    assert np.abs(after.astype(int)).max() < 100
    assert min(len(packet) for packet in packets[-20:]) <= 2, "DTX"
