"""Real human speech, what simulated devices say. Sources and licence: LICENSE.txt beside this."""

from __future__ import annotations

import io
import wave
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["CLIPS", "CLIP_RATE", "load_clip"]

CLIP_RATE: Final = 16_000
"""Samples per second of every clip: the uplink rate of the devices (protocol section 5)."""

CLIPS: Final = ("goforward", "youngman", "amiable")
"""The clips by name, 2.8, 3.0 and 3.3 s long; two speakers. Several, so that a mix-up shows."""


def load_clip(name: str = CLIPS[0]) -> npt.NDArray[np.int16]:
    """Read one clip.

    Args:
        name: One of `CLIPS`.

    Returns:
        The samples, shape (n,), mono, at `CLIP_RATE`.

    Raises:
        ValueError: There is no such clip.
    """
    if name not in CLIPS:
        raise ValueError(f"no clip named {name!r}; there are {', '.join(CLIPS)}")
    data = files(__package__).joinpath(f"{name}.wav").read_bytes()
    with wave.open(io.BytesIO(data)) as clip:
        samples = clip.readframes(clip.getnframes())
    # A WAV file is little-endian whatever the machine is.
    return np.frombuffer(samples, "<i2").astype(np.int16)
