"""PCM as people have it, made into frames as an encoder wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FrameCutter", "SampleFormat", "Samples", "in_format", "to_float32", "to_int16"]

SampleFormat: TypeAlias = Literal["int16", "float32"]

Samples: TypeAlias = NDArray[np.int16 | np.float32]
"""int16, or float32 in [-1, 1): which of them, a setting decides when the program runs."""

# soxr's "HQ" recipe (20 bits): its noise lies below that of 16-bit samples; "VHQ" costs twice that.
QUALITY = "HQ"

# What 1.0 stands for, as in libopus (celt/arch.h, CELT_SIG_SCALE). A power of two: scaling by it is
# exact, so int16 -> float32 -> int16 gives back every sample.
FULL_SCALE = 32768.0


def to_float32(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return int16 samples as float32 in [-1, 1): each / 32768, which float32 holds exactly."""
    return pcm * np.float32(1 / FULL_SCALE)


def in_format(pcm: NDArray[np.int16], sample_format: SampleFormat) -> Samples:
    """Return samples as they were asked for."""
    return to_float32(pcm) if sample_format == "float32" else pcm


def to_int16(pcm: NDArray[Any]) -> NDArray[np.int16]:
    """Return mono samples as int16.

    Floats become x * 32768, rounded to the nearest integer (halves to the even one) and clipped to
    -32768 ... 32767, as in libopus (celt/float_cast.h, FLOAT2INT16). No dither: Opus' own noise is
    far above the last bit of 16.

    Args:
        pcm: Shape (n,) or (n, 1), contiguous or not. int16 as it is; float32 or float64 with full
            scale at 1.0, beyond which, infinities included, it is clipped. NaN is silence: a click
            for one bad sample, but the call goes on.

    Raises:
        TypeError: Not an array.
        ValueError: Another shape or type: a guess about either would be noise in somebody's ear.
    """
    pcm = _mono(pcm)
    return pcm if pcm.dtype == np.int16 else _quantised(_scaled(pcm))


def _mono(pcm: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(pcm, np.ndarray):
        raise TypeError(f"PCM is a {type(pcm).__name__}; a numpy array is needed")
    if pcm.ndim == 2 and pcm.shape[1] == 1:  # noqa: PLR2004  a column
        pcm = pcm[:, 0]
    if pcm.ndim != 1:
        raise ValueError(f"PCM of shape {pcm.shape}; mono, shape (n,), is needed")
    if pcm.dtype not in (np.int16, np.float32, np.float64):
        raise ValueError(f"PCM of type {pcm.dtype}; int16, float32 or float64 is needed")
    return pcm


def _scaled(pcm: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Return samples in int16's units. Clipped first: infinity would ring in a resampler."""
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32)
    clipped: NDArray[np.floating[Any]] = np.clip(pcm, -1.0, 1.0)
    clipped[np.isnan(clipped)] = 0.0
    clipped *= FULL_SCALE
    return clipped


def _quantised(pcm: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    samples: NDArray[np.int16] = np.rint(np.clip(pcm, -32768.0, 32767.0)).astype(np.int16)
    return samples


class FrameCutter:
    """Chunks of any length in, frames of one length out; resampled where the rates differ.

    The frames do not depend on how the chunks were cut.

    Args:
        rate: Of what comes in, Hz.
        frame_rate: Of the frames, Hz.
        frame_samples: Samples in a frame.
    """

    def __init__(self, rate: int, frame_rate: int, frame_samples: int) -> None:
        if rate <= 0:
            raise ValueError(f"a sample rate of {rate} Hz")
        self._rate = rate
        self._frame_samples = frame_samples
        self._rest: NDArray[np.int16] = np.empty(0, np.int16)
        self._resampler: Any = None
        if rate != frame_rate:
            # float32: with int16, soxr dithers, and the noise depends on how the chunks were cut.
            self._resampler = soxr.ResampleStream(
                rate, frame_rate, 1, dtype="float32", quality=QUALITY
            )

    def push(self, pcm: NDArray[Any]) -> Iterator[NDArray[np.int16]]:
        """Take a chunk (see `to_int16`); yield the frames that are complete now.

        A second is resampled at a time, so whoever awaits between frames holds up nobody.
        """
        pcm = _mono(pcm)
        for start in range(0, len(pcm), self._rate):
            part = pcm[start : start + self._rate]
            if self._resampler is None:
                yield from self._cut(to_int16(part))
            else:
                scaled = _scaled(part).astype(np.float32, copy=False)
                yield from self._cut(_quantised(self._resampler.resample_chunk(scaled)))

    def finish(self) -> Iterator[NDArray[np.int16]]:
        """Yield what is left, the last frame padded with silence. The cutter is used up then."""
        if self._resampler is not None:
            nothing = np.empty(0, np.float32)
            yield from self._cut(_quantised(self._resampler.resample_chunk(nothing, last=True)))
        if len(self._rest):
            last = np.zeros(self._frame_samples, np.int16)
            last[: len(self._rest)] = self._rest
            yield last

    def _cut(self, samples: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        if len(self._rest):
            samples = np.concatenate([self._rest, samples])
        whole = len(samples) - len(samples) % self._frame_samples
        self._rest = samples[whole:].copy()
        # Copies: the caller may fill its buffer anew while these wait for the encoder.
        return [
            samples[start : start + self._frame_samples].copy()
            for start in range(0, whole, self._frame_samples)
        ]
