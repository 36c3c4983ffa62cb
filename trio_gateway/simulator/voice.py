"""What a device says: a clip, encoded once and shared by all devices that say it."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import soxr
from attrs import field, frozen

from trio_gateway.simulator.codec import Pcm, decode, device_encoder, encode
from trio_gateway.speech import CLIP_RATE, CLIPS, load_clip

__all__ = ["FRAME_MS", "Voice", "voice"]

FRAME_MS: Final = 60
"""Length of an uplink frame (protocol section 5)."""

_FRAME_SAMPLES: Final = CLIP_RATE * FRAME_MS // 1000
_SILENCE: Final = 3.0
# Seconds of encoded silence after the clip. By then DTX has settled into frames of one byte with a
# refresh of 400 ms, and the last second can be repeated for as long as the device stays silent.
_REPEATED_FRAMES: Final = 20  # 1.2 s, three refreshes


@frozen(eq=False)
class Voice:
    """A clip as a device sends it: 16 kHz, mono, 60 ms, DTX on.

    Attributes:
        name: Of the clip.
        packets: Opus, one a frame.
        silence: What follows when the microphone stays open.
    """

    name: str
    packets: tuple[bytes, ...] = field(repr=False)
    silence: tuple[bytes, ...] = field(repr=False)

    def packet(self, index: int) -> bytes:
        """Return frame `index`, from 0; behind the clip it is silence, however far."""
        if index < len(self.packets):
            return self.packets[index]
        index -= len(self.packets)
        if index >= len(self.silence):
            index = (
                len(self.silence)
                - _REPEATED_FRAMES
                + (index - len(self.silence)) % _REPEATED_FRAMES
            )
        return self.silence[index]

    def said(self, rate: int) -> Pcm:
        """What the packets carry, decoded by one decoder and resampled to `rate` Hz."""
        return _said(self, rate)


@functools.cache
def voice(number: int) -> Voice:
    """The voice of device `number`: clips go round, so that neighbours differ."""
    return _encoded(CLIPS[number % len(CLIPS)])


@functools.cache
def _encoded(name: str) -> Voice:
    silence = np.zeros(round(_SILENCE * CLIP_RATE), np.int16)
    clip = load_clip(name)
    count = -(-len(clip) // _FRAME_SAMPLES)
    padded = np.concatenate([clip, np.zeros(count * _FRAME_SAMPLES - len(clip), np.int16), silence])
    packets = encode(device_encoder(CLIP_RATE), padded, _FRAME_SAMPLES)
    return Voice(name, tuple(packets[:count]), tuple(packets[count:]))


@functools.cache
def _said(spoken: Voice, rate: int) -> Pcm:
    pcm = decode(spoken.packets, CLIP_RATE, _FRAME_SAMPLES)
    if rate == CLIP_RATE:
        return pcm
    resampled: Pcm = soxr.resample(pcm, CLIP_RATE, rate)
    return resampled
