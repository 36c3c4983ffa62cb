from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from trio_gateway.core.voice import dbfs
from trio_gateway.speech import CLIP_RATE, CLIPS, load_clip


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_a_few_seconds_of_voice(name: str) -> None:
    clip = load_clip(name)
    assert clip.dtype == np.int16
    assert clip.ndim == 1
    assert 2.5 < len(clip) / CLIP_RATE < 3.5
    frames = clip[: len(clip) // 960 * 960].reshape(-1, 960)
    levels = [dbfs(frame) for frame in frames]
    assert max(levels) > -30, "somebody speaks"
    assert max(levels) - min(levels) > 20, "and not all the time"


def test_the_clips_differ() -> None:
    clips = [load_clip(name) for name in CLIPS]
    assert len({clip.tobytes() for clip in clips}) == len(clips)


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(ValueError, match="goforward, youngman, amiable"):
        load_clip("nobody")


def test_the_licence_names_every_clip_and_the_package_stays_small() -> None:
    folder = files("trio_gateway.speech")
    licence = folder.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    for name in CLIPS:
        assert f"{name}.wav" in licence
    assert sum(len(folder.joinpath(f"{name}.wav").read_bytes()) for name in CLIPS) < 300_000
