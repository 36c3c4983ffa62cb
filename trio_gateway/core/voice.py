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
    """Follows one utterance. A pause is silence that was heard, or time in which nothing was.

    Both count, because neither is enough: a device in DTX sends no silence, and who reads late what
    has been waiting reads a minute in no time.

    Args:
        rate: Of the samples, Hz.
        threshold_dbfs: A frame above this level is voice.
        pause: Seconds without voice, after voice, that end the utterance.

    Attributes:
        heard: Whether there was voice.
    """

    def __init__(self, rate: int, *, threshold_dbfs: float, pause: float) -> None:
        self.heard = False
        self._rate = rate
        self._threshold = threshold_dbfs
        self._pause = pause
        self._voice_at = math.inf
        self._silent_samples = 0

    def hear(self, pcm: NDArray[np.int16], now: float) -> None:
        """Take one frame, read at `now` (seconds of any clock)."""
        if self.is_voice(pcm):
            self.heard = True
            self._voice_at = now
            self._silent_samples = 0
        else:
            self._silent_samples += len(pcm)

    def is_voice(self, pcm: NDArray[np.int16]) -> bool:
        """Whether this frame alone is."""
        return dbfs(pcm) > self._threshold

    def ends_at(self) -> float:
        """When the utterance is over if nothing more is heard.

        -inf: it is, whatever the clock says. inf: never, before the first voice.
        """
        if self.heard and self._silent_samples >= self._pause * self._rate:
            return -math.inf
        return self._voice_at + self._pause
