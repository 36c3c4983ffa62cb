"""PCM as people have it, made into frames as an encoder wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["FrameCutter", "to_int16"]

# soxr's "HQ" recipe (20 bits): its noise lies below that of 16-bit samples; "VHQ" costs twice that.
QUALITY = "HQ"

FULL_SCALE = 32767.0  # what 1.0 becomes


def to_int16(pcm: NDArray[Any]) -> NDArray[np.int16]:
    """Return mono samples as int16.

    Args:
        pcm: Shape (n,) or (n, 1). int16 as it is; float32 or float64 with full scale at 1.0, beyond
            which it is clipped (and NaN is silence).

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


def _scaled(pcm: NDArray[Any]) -> NDArray[np.float32]:
    """Return samples in int16's units. Clipped first: infinity would ring in a resampler."""
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32)
    scaled: NDArray[np.float32] = np.clip(pcm, -1.0, 1.0).astype(np.float32)
    return np.nan_to_num(scaled, nan=0.0) * np.float32(FULL_SCALE)


def _quantised(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(np.clip(pcm, -32768.0, 32767.0)).astype(np.int16)


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
                yield from self._cut(_quantised(self._resampler.resample_chunk(_scaled(part))))

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
