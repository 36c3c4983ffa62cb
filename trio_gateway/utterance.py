"""What a handler hears: frames, or whole utterances.

Rule 1: nothing that was said is left out because of where an utterance was cut. One that ends by
    itself (a pause in auto mode, or its length) is followed by the next one of the same talk.
Rule 2: a pause is judged only when there is nothing to read: a handler that comes late finds what
    was said meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Self

import numpy as np
import trio

from trio_gateway.core.pcm import in_format
from trio_gateway.core.voice import VoiceActivity
from trio_gateway.uplink import Talk, TalkEnd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trio_gateway.core.pcm import SampleFormat, Samples
    from trio_gateway.settings import AudioSettings
    from trio_gateway.uplink import ListenMode, Uplink

__all__ = ["AudioIn", "Utterance", "Utterances"]

MAX_UTTERANCE = 60.0
"""Seconds; a guess: nobody speaks longer without a breath, but a radio does."""

LEAD_IN = 0.3
"""Seconds kept before the first voice in auto mode. A guess: the onset of a word is soft."""


class AudioIn:
    """A device's audio: `async for frame in session.audio`, arrays of shape (samples,).

    Ends with the session. Who reads it, reads what its utterances are made of: choose one of them.

    Attributes:
        rate: Hz.
        frame_ms: Milliseconds in a frame.
        sample_format: "int16", or "float32": in [-1, 1). What `audio.sample_format` says.
    """

    def __init__(self, uplink: Uplink, settings: AudioSettings) -> None:
        self.rate = uplink.rate
        self.frame_ms = uplink.frame_ms
        self.sample_format: SampleFormat = settings.sample_format
        self._uplink = uplink

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Samples:
        while True:
            try:
                item = await self._uplink.next()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(item, np.ndarray):
                return in_format(item, self.sample_format)


class Utterances:
    """Iterates over a session's utterances. The rest of one that was not read is skipped."""

    def __init__(self, uplink: Uplink, settings: AudioSettings) -> None:
        self._uplink = uplink
        self._settings = settings
        self._current: Utterance | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Utterance:
        if self._current is not None:
            async for _ in self._current:
                pass
        try:
            talk = await self._next_talk(self._current)
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        self._current = Utterance(self._uplink, self._settings, talk)
        return self._current

    async def _next_talk(self, before: Utterance | None) -> Talk:
        silence: deque[NDArray[np.int16]] = deque(maxlen=_lead_in_frames(self._uplink))
        while True:
            item = await self._uplink.next()
            if isinstance(item, Talk):
                return item
            if isinstance(item, TalkEnd):
                before = None
            elif before is not None and before.may_continue_with(item):
                for frame in (item, *reversed(silence)):
                    self._uplink.put_back(frame)
                return before.continuation()
            else:
                silence.append(item)


class Utterance:
    """What is said between `listen start` and `listen stop`.

    In auto mode it ends, too, when the voice pauses for `audio.voice_pause`. An async iterator over
    its frames while it lasts, of shape (samples,) and in the format of `audio.sample_format`.

    Attributes:
        mode: "auto", "manual" or "realtime".
    """

    def __init__(self, uplink: Uplink, settings: AudioSettings, talk: Talk) -> None:
        self.mode: ListenMode = talk.mode
        self._implied = talk.implied
        self._uplink = uplink
        self._sample_format: SampleFormat = settings.sample_format
        self._voice = VoiceActivity(
            uplink.rate, threshold_dbfs=settings.voice_threshold_dbfs, pause=settings.voice_pause
        )
        self._max_frames = int(MAX_UTTERANCE * 1000) // uplink.frame_ms
        self._frames = 0
        self._ended = False
        self._talk_goes_on = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Samples:
        frame = await self._next_frame()
        if frame is None:
            raise StopAsyncIteration
        return in_format(frame, self._sample_format)

    async def collect(self) -> Samples:
        """Wait for its end; return all of it, as one array in the format of its frames.

        In auto mode the silence before the first voice is cut to `LEAD_IN` seconds.
        """
        frames: list[NDArray[np.int16]] = []
        voiced = False
        while (frame := await self._next_frame()) is not None:
            frames.append(frame)
            if self._voice.heard and not voiced:
                voiced = True
                del frames[: -1 - _lead_in_frames(self._uplink)]
            elif len(frames) > self._max_frames:
                del frames[0]  # nothing but silence for so long
        whole = np.concatenate(frames) if frames else np.empty(0, np.int16)
        return in_format(whole, self._sample_format)

    def may_continue_with(self, frame: NDArray[np.int16]) -> bool:
        """Whether `frame`, which came next, begins another utterance of the same talk."""
        return self._talk_goes_on and (self.mode != "auto" or self._voice.is_voice(frame))

    def continuation(self) -> Talk:
        """What to begin that one with."""
        return Talk(self.mode, implied=self._implied)

    async def _next_frame(self) -> NDArray[np.int16] | None:
        while not self._ended:
            item = await self._next()
            if isinstance(item, np.ndarray):
                return item
            # The `listen start` of what we hear, late.
            if isinstance(item, Talk) and self._implied and item.mode != "realtime":
                self.mode, self._implied = item.mode, False
                continue
            self._ended = True
            if isinstance(item, Talk):  # a new start without a stop
                self._uplink.put_back(item)
        return None

    async def _next(self) -> NDArray[np.int16] | Talk | TalkEnd:
        ends_at = self._ends_at()
        if self._uplink.is_readable and ends_at > -math.inf:
            ends_at = math.inf
        with trio.move_on_at(ends_at):
            try:
                item = await self._uplink.next()
            except trio.EndOfChannel:
                return TalkEnd()
            if isinstance(item, np.ndarray):
                self._hear(item)
            return item
        self._talk_goes_on = True
        return TalkEnd()

    def _hear(self, frame: NDArray[np.int16]) -> None:
        if self.mode == "auto":
            self._voice.hear(frame, trio.current_time())
        # In auto mode a device sends its silence, too, until somebody speaks.
        self._frames += self.mode == "manual" or self._voice.heard

    def _ends_at(self) -> float:
        if self.mode == "realtime":
            return math.inf
        if self._frames >= self._max_frames:
            return -math.inf
        return self._voice.ends_at() if self.mode == "auto" else math.inf


def _lead_in_frames(uplink: Uplink) -> int:
    return int(LEAD_IN * 1000) // uplink.frame_ms
