"""What benchmarks/quality.py plays: people, machines that speak, and something like music."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from attrs import frozen

from trio_gateway.speech import CLIP_RATE, CLIPS, load_clip

if TYPE_CHECKING:
    from listening import Pcm

__all__ = ["Clip", "Kind", "music", "speech"]

Kind: TypeAlias = Literal["person", "synthetic", "music"]

VOICES: Final = {
    "en-us": "The birch canoe slid on the smooth planks. Rice is often served in round bowls.",
    "en-gb+f3": "These days a chicken leg is a rare dish. Four hours of steady work faced us.",
    "cmn": "今天天气很好。请给我讲一个故事。然后我想听一首歌。",
}


@frozen(eq=False)
class Clip:
    """Something to hear."""

    kind: Kind
    rate: int
    pcm: Pcm


def speech() -> list[Clip]:
    """People, and machines that speak."""
    clips = [Clip("person", CLIP_RATE, load_clip(name)) for name in CLIPS]
    espeak = shutil.which("espeak-ng")
    for voice, text in VOICES.items() if espeak else ():
        command = [str(espeak), "-v", voice, "--stdout", text]
        output = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603  our own words
        with wave.open(io.BytesIO(output)) as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            clips.append(Clip("synthetic", file.getframerate(), pcm))
    return clips


def music() -> list[Clip]:
    """A gong, and chords that climb, with a drum."""
    rate = 24_000
    seconds = np.arange(rate // 2) / rate
    noise = np.random.default_rng(1).standard_normal(len(seconds)) * np.exp(-40 * seconds)
    gong = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (392.0, 523.3, 659.3))
    chords = [
        sum(
            np.sin(2 * np.pi * hertz * ratio * overtone * seconds) / overtone
            for ratio in (0.5, 1, 1.5)
            for overtone in range(1, 9)
        )
        * np.exp(-3 * seconds)
        + 0.3 * noise
        for hertz in (262, 294, 330, 349, 392, 440, 494, 523)
    ]
    pieces = np.tile(gong * np.exp(-6 * seconds), 16), np.tile(np.concatenate(chords), 2)
    return [
        Clip("music", rate, np.rint(20_000 * piece / np.abs(piece).max()).astype(np.int16))
        for piece in pieces
    ]
