"""When somebody has stopped speaking: frame energy and a pause.

Not a recogniser. It serves backends without one, such as the echo; a chat server brings its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VoiceActivity", "dbfs"]


def dbfs(pcm: NDArray[np.int16]) -> float:
    """Return the level of int16 samples, shape (n,): RMS re full scale, dB; -inf for silence."""
    if not len(pcm):
        return -math.inf
    power = float(np.mean(np.square(pcm, dtype=np.float64))) / 32768.0**2
    return 10 * math.log10(power) if power > 0 else -math.inf


class VoiceActivity:
    """Follows one utterance.

    Args:
        threshold_dbfs: A frame above this level is voice.
        pause: Seconds without voice, after voice, that end the utterance.
    """

    def __init__(self, *, threshold_dbfs: float, pause: float) -> None:
        self._threshold = threshold_dbfs
        self._pause = pause
        self._voice_at: float | None = None

    def hear(self, pcm: NDArray[np.int16], now: float) -> None:
        """Take one frame."""
        if dbfs(pcm) > self._threshold:
            self._voice_at = now

    def ends_at(self) -> float:
        """When the utterance is over unless there is voice before; inf before the first voice."""
        return math.inf if self._voice_at is None else self._voice_at + self._pause
