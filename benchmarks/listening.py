"""How far what is heard is from what was said: three measures, for benchmarks/quality.py.

Signals are int16, mono, at `RATE`, in step with each other; the shorter one says how much is
compared.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray
from pesq import pesq

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RATE", "Pcm", "lsd_of", "pesq_of", "resampled", "visqol_of"]

Pcm: TypeAlias = NDArray[np.int16]

RATE: Final = 24_000  # Hz
PESQ_RATE: Final = 16_000  # wideband PESQ knows no other
VISQOL_RATE: Final = 48_000
LSD_BAND: Final = (100, 11_000)  # Hz
LSD_SIZE: Final = 512  # 21 ms
LOUD_DB: Final = -40.0  # frames below this, relative to the loudest, do not count
FLOOR_DB: Final = -60.0  # nobody hears how silent silence is


def resampled(pcm: Pcm, rate: int, to_rate: int) -> Pcm:
    """The same sound at another rate."""
    if rate == to_rate:
        return pcm
    floats = soxr.resample(pcm.astype(np.float32), rate, to_rate)
    samples: Pcm = np.rint(np.clip(floats, -32768, 32767)).astype(np.int16)
    return samples


def pesq_of(said: Pcm, heard: Pcm) -> float:
    """ITU-T P.862.2, wideband: 1.0 to 4.64."""
    both = _cut(said, heard)
    return float(pesq(PESQ_RATE, *(resampled(each, RATE, PESQ_RATE) for each in both), "wb"))


def visqol_of(said: Pcm, heard: Pcm) -> float:
    """ViSQOL 3, audio mode: 1.0 to 4.75."""
    both = _cut(said, heard)
    floats = [soxr.resample(each / 32768.0, RATE, VISQOL_RATE) for each in both]
    return float(_visqol()(*floats, VISQOL_RATE).moslqo)


def lsd_of(said: Pcm, heard: Pcm) -> float:
    """Log-spectral distance in dB: RMS over the band's lines, mean over the loud frames."""
    said_power, heard_power = map(_power, _cut(said, heard))
    level = said_power.mean(axis=1)
    loud = level > level.max() * 10 ** (LOUD_DB / 10)
    floor = level.max() * 10 ** (FLOOR_DB / 10)
    lines = slice(*(hertz * LSD_SIZE // RATE for hertz in LSD_BAND))
    ratio = (said_power[loud, lines] + floor) / (heard_power[loud, lines] + floor)
    return float(np.sqrt(np.square(10 * np.log10(ratio)).mean(axis=1)).mean())


def _cut(said: Pcm, heard: Pcm) -> tuple[Pcm, Pcm]:
    length = min(len(said), len(heard))
    return said[:length], heard[:length]


def _power(pcm: Pcm) -> NDArray[np.float64]:
    frames = np.lib.stride_tricks.sliding_window_view(pcm, LSD_SIZE)[:: LSD_SIZE // 2]
    spectrum = np.fft.rfft(frames * np.hanning(LSD_SIZE))
    power: NDArray[np.float64] = np.square(np.abs(spectrum))
    return power


@cache
def _visqol() -> Callable[..., Any]:
    from visqol import VisqolApi  # noqa: PLC0415  optional, and slow to load

    api = VisqolApi()
    api.create(mode="audio")
    measure: Callable[..., Any] = api.measure_from_arrays
    return measure
