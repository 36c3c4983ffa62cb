"""PCM of any shape into frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soxr

from trio_gateway.core.pcm import FrameCutter, in_format, to_float32, to_int16

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_int16_is_taken_as_it_is() -> None:
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert to_int16(pcm) is pcm
    np.testing.assert_array_equal(to_int16(pcm.reshape(-1, 1)), pcm)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_have_full_scale_at_one(dtype: type[np.floating[Any]]) -> None:
    pcm = np.array([0, 1, -1, 0.5, -0.5, 1 / 32768, 32767 / 32768], dtype)
    np.testing.assert_array_equal(to_int16(pcm), [0, 32767, -32768, 16384, -16384, 1, 32767])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_and_halves_to_the_even(
    dtype: type[np.floating[Any]],
) -> None:
    steps = [0.4, 0.5, 0.6, 1.5, 2.5, -0.5, -1.5, -2.5, 32766.5, 32767.4, -32767.6]
    samples = to_int16(np.array(steps, dtype) / dtype(32768))
    np.testing.assert_array_equal(samples, [0, 0, 1, 2, 2, 0, -2, -2, 32766, 32767, -32768])


def test_every_int16_survives_float32() -> None:
    pcm = np.arange(-32768, 32768).astype(np.int16)
    floats = to_float32(pcm)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (-1.0, 32767 / 32768)
    np.testing.assert_array_equal(floats.astype(np.float64) * 32768, pcm)
    np.testing.assert_array_equal(to_int16(floats), pcm)
    np.testing.assert_array_equal(to_int16(floats.astype(np.float64)), pcm)


def test_samples_come_in_the_format_that_was_asked_for() -> None:
    pcm = np.array([-32768, 0, 16384], np.int16)
    assert in_format(pcm, "int16") is pcm
    np.testing.assert_array_equal(in_format(pcm, "float32"), np.array([-1, 0, 0.5], np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [24000, 16000])
def test_what_is_played_is_not_written_to(dtype: type[np.floating[Any]], rate: int) -> None:
    pcm = np.array([0.5, 2, np.nan], dtype)
    pcm.flags.writeable = False
    frames_of([pcm], rate)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [24000, 16000])
def test_what_is_no_sample_is_clipped_or_silent(dtype: type[np.floating[Any]], rate: int) -> None:
    big = float(np.finfo(dtype).max)
    pcm = np.array([2, -2, big, -big, np.inf, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(to_int16(pcm), [32767, -32768, 32767, -32768, 32767, -32768, 0])
    # In a resampler one infinite sample would ring far; it may not be heard for longer than a 1.
    frames = frames_of([np.concatenate([pcm, np.zeros(2000, dtype)])], rate)
    assert not np.concatenate(frames)[200:].any()


@pytest.mark.parametrize(
    ("pcm", "error"),
    [
        (np.zeros((4, 2), np.int16), ValueError),
        (np.zeros((1, 4), np.int16), ValueError),
        (np.zeros((2, 2, 1), np.int16), ValueError),
        (np.array(5, np.int16), ValueError),
        (np.zeros(4, np.int32), ValueError),
        (np.zeros(4, np.uint8), ValueError),
        (np.zeros(4, np.float16), ValueError),
        (np.zeros(4, ">i2"), ValueError),
        (np.zeros(4, bool), ValueError),
        (b"\0\0", TypeError),
        ([0, 0], TypeError),
    ],
)
def test_what_would_be_noise_is_refused(pcm: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="PCM"):
        to_int16(pcm)
    for rate in (24000, 16000):
        with pytest.raises(error, match="PCM"):
            list(FrameCutter(rate, 24000, 1440).push(pcm))


def frames_of(
    chunks: list[NDArray[Any]], rate: int, frame_rate: int = 24000, samples: int = 1440
) -> list[NDArray[np.int16]]:
    cutter = FrameCutter(rate, frame_rate, samples)
    return [
        *(frame for chunk in chunks for frame in cutter.push(chunk)),
        *cutter.finish(),
    ]


def test_the_last_frame_is_filled_with_silence() -> None:
    pcm = np.arange(1, 4001, dtype=np.int16)
    frames = frames_of([pcm], 24000)
    assert [len(frame) for frame in frames] == [1440, 1440, 1440]
    joined = np.concatenate(frames)
    np.testing.assert_array_equal(joined[:4000], pcm)
    assert not joined[4000:].any()


@pytest.mark.parametrize("rate", [24000, 16000])
def test_nothing_gives_no_frame(rate: int) -> None:
    assert frames_of([], rate) == []
    assert frames_of([np.empty(0, np.int16), np.empty(0, np.float32)], rate) == []


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_resampling_is_soxrs_own_over_all_of_it(rate: int) -> None:
    rng = np.random.default_rng(rate)
    pcm = rng.integers(-20000, 20000, rate * 5 // 2).astype(np.int16)
    joined = np.concatenate(frames_of([pcm], rate))
    expected = soxr.resample(pcm.astype(np.float32), rate, 24000, quality="HQ")
    expected = np.rint(np.clip(expected, -32768, 32767)).astype(np.int16)
    np.testing.assert_array_equal(joined[: len(expected)], expected)
    assert not joined[len(expected) :].any()
    assert len(joined) - len(expected) < 1440


def test_frames_are_the_callers_no_more() -> None:
    pcm = np.ones(1440 * 2 + 10, np.int16)
    cutter = FrameCutter(24000, 24000, 1440)
    frames = list(cutter.push(pcm))
    pcm[:] = 2  # the caller's buffer is filled anew
    frames += cutter.finish()
    assert {int(value) for frame in frames for value in frame} == {0, 1}


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("rate", [24000, 16000])
def test_every_other_sample_of_a_stereo_buffer_will_do(dtype: type[Any], rate: int) -> None:
    whole = np.arange(6000, dtype=np.int16).reshape(-1, 2)
    stereo = whole if dtype is np.int16 else to_float32(whole).astype(dtype)
    for view in (stereo[:, 0], stereo[:, :1], stereo[::-1, 1]):
        apart = np.concatenate(frames_of([view], rate))
        np.testing.assert_array_equal(apart, np.concatenate(frames_of([view.copy()], rate)))
    if rate == 24000:
        joined = np.concatenate(frames_of([stereo[:, 0]], rate))
        np.testing.assert_array_equal(joined[:3000], whole[:, 0])


@pytest.mark.parametrize("rate", [0, -16000])
def test_a_rate_is_positive(rate: int) -> None:
    with pytest.raises(ValueError, match="rate"):
        FrameCutter(rate, 24000, 1440)
