"""Invariant: the frames depend on the samples and on nothing else, and every float is a sample.

Compared with all samples resampled in one call, quantised one by one, and cut by slices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trio_gateway.core.pcm import FrameCutter, to_float32, to_int16

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = 1440
FRAME_RATE = 24000

DTYPES = st.sampled_from([np.int16, np.float32, np.float64])


@st.composite
def pcm(draw: st.DrawFn, max_samples: int = 12_000) -> NDArray[Any]:
    """Noise of some length: what matters is where it is cut, not what it is."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    samples = rng.integers(-32768, 32768, draw(st.integers(0, max_samples))).astype(np.int16)
    dtype = draw(DTYPES)
    return samples if dtype is np.int16 else (samples / 32768).astype(dtype)


def frames_of(chunks: list[NDArray[Any]], rate: int) -> NDArray[np.int16]:
    cutter = FrameCutter(rate, FRAME_RATE, FRAME)
    frames = [frame for chunk in chunks for frame in cutter.push(chunk)] + list(cutter.finish())
    assert all(len(frame) == FRAME and frame.dtype == np.int16 for frame in frames)
    return np.concatenate([np.empty(0, np.int16), *frames])


def naive(pcm: NDArray[Any], rate: int) -> NDArray[np.int16]:
    samples = pcm.astype(np.float32)
    if pcm.dtype != np.int16:
        samples = np.clip(samples, -1, 1) * np.float32(32768)
    if rate != FRAME_RATE:
        samples = soxr.resample(samples, rate, FRAME_RATE, quality="HQ")
    whole = np.rint(np.clip(samples, -32768, 32767)).astype(np.int16)
    return np.concatenate([whole, np.zeros(-len(whole) % FRAME, np.int16)])


@given(pcm=pcm(), cuts=st.lists(st.integers(0, 12_000)), rate=st.sampled_from([8000, 16000, 24000]))
def test_any_chunking_gives_the_same_frames(pcm: NDArray[Any], cuts: list[int], rate: int) -> None:
    chunks = np.split(pcm, sorted(min(cut, len(pcm)) for cut in cuts))
    np.testing.assert_array_equal(frames_of(chunks, rate), naive(pcm, rate))


@given(pcm=pcm(max_samples=2000), other=pcm(max_samples=2000))
def test_types_may_change_from_chunk_to_chunk(pcm: NDArray[Any], other: NDArray[Any]) -> None:
    both = np.concatenate([to_int16(pcm), to_int16(other)])
    np.testing.assert_array_equal(frames_of([pcm, other], FRAME_RATE), naive(both, FRAME_RATE))


@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_every_float_is_a_sample(data: st.DataObject, dtype: type[np.floating[Any]]) -> None:
    values = data.draw(arrays(dtype, st.integers(0, 20)))
    for value, sample in zip(values.tolist(), to_int16(values).tolist(), strict=True):
        clipped = 0.0 if math.isnan(value) else min(max(value, -1.0), 1.0)
        # Exact: Python's round() takes halves to the even one, too.
        assert sample == min(round(clipped * 32768), 32767)


@given(arrays(np.int16, st.integers(0, 200)), DTYPES)
def test_every_sample_survives_floats(pcm: NDArray[np.int16], dtype: type[Any]) -> None:
    floats = to_float32(pcm)
    np.testing.assert_array_equal(floats.astype(np.float64) * 32768, pcm)
    there_and_back = to_int16(pcm if dtype is np.int16 else floats.astype(dtype))
    np.testing.assert_array_equal(there_and_back, pcm)


@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_every_float_can_be_resampled(data: st.DataObject, dtype: type[np.floating[Any]]) -> None:
    values = data.draw(arrays(dtype, st.integers(0, 50)))
    known = np.nan_to_num(np.clip(values, -1, 1), nan=0.0)
    np.testing.assert_array_equal(frames_of([values], 16000), frames_of([known], 16000))
