"""Levels and pauses, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trio_gateway.core.voice import VoiceActivity, dbfs

RATE = 16000
FRAME = 960
LOUD = np.full(FRAME, 3277, np.int16)  # a tenth of full scale: -20 dBFS
QUIET = np.full(FRAME, 10, np.int16)  # -70 dBFS
NOTHING = np.zeros(FRAME, np.int16)


def activity() -> VoiceActivity:
    return VoiceActivity(RATE, threshold_dbfs=-45, pause=0.3)


def test_levels() -> None:
    assert dbfs(LOUD) == pytest.approx(-20, abs=0.01)
    assert dbfs(np.full(10, -32768, np.int16)) == 0
    assert dbfs(np.array([32767, -32767] * 50, np.int16)) == pytest.approx(0, abs=0.001)
    sine = 32767 * np.sin(2 * np.pi * np.arange(16000) * 440 / 16000)
    assert dbfs(sine.astype(np.int16)) == pytest.approx(-3.01, abs=0.01)
    assert dbfs(np.array([1], np.int16)) == pytest.approx(-90.3, abs=0.1)


def test_silence_and_nothing_have_no_level() -> None:
    assert dbfs(NOTHING) == -math.inf
    assert dbfs(np.empty(0, np.int16)) == -math.inf


def test_before_the_first_voice_nothing_ends() -> None:
    voice = activity()
    for step in range(100):
        voice.hear(QUIET, step * 0.06)
        assert voice.ends_at() == math.inf
    assert not voice.heard


def test_time_without_voice_ends_it_though_nothing_is_heard() -> None:
    voice = activity()
    voice.hear(LOUD, 10.0)
    assert voice.heard
    assert voice.ends_at() == pytest.approx(10.3)
    voice.hear(QUIET, 10.06)
    assert voice.ends_at() == pytest.approx(10.3), "silence does not put it off"
    voice.hear(LOUD, 10.12)
    assert voice.ends_at() == pytest.approx(10.42)


def test_silence_that_is_heard_ends_it_though_no_time_passes() -> None:
    voice = activity()
    voice.hear(LOUD, 10.0)
    for _ in range(4):
        voice.hear(NOTHING, 10.0)
        assert voice.ends_at() == pytest.approx(10.3)
    voice.hear(NOTHING, 10.0)  # 5 * 60 ms
    assert voice.ends_at() == -math.inf
    voice.hear(LOUD, 10.0)
    assert voice.ends_at() == pytest.approx(10.3)
