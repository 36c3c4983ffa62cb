"""Did the device hear back what it said? Judged on decoded audio, without knowing the gateway.

What was said is the uplink as it left the device, decoded; what was heard is the downlink as it
arrived, decoded with its gaps concealed. Both are put on one time axis by cross-correlation, and
`similarity` is the mean normalised correlation of 60 ms frames in the voice band, over all frames
in which either side speaks. So silence counts nothing, and a word too many as much as one too few.

Measured with the three clips of trio_gateway.speech: uplink 14 to 17 kbit/s as a device sends it,
then one decoder, soxr, one encoder at 24 kHz unless said. The range is over the clips, and over
eight draws each where something is drawn. tests/simulator/test_verify.py repeats the rows.

    right, complexity 0, 5 and 10, 24 kbit/s             0.98 to 1.00
    right, complexity 0, 5 and 10, 16 / 12 kbit/s        0.91 to 0.99 / 0.90 to 0.98
    2 / 5 / 10 % of the downlink or uplink lost          0.90 to 0.99 / 0.81 to 0.99 / 0.78 to 0.98
    an encoder per worker, two workers in turn           0.84 to 0.87
    half of the packets lost                             0.31 to 0.67
    one frame missing and the rest moved up              0.44 to 0.66
    every two frames exchanged / half of it / twice      0.34 to 0.46 / 0.53 to 0.57 / 0.50 to 0.55
    white noise on top, 0 dB over the whole band         0.43 to 0.66
    another clip, shuffled, reversed, noise, unresampled -0.05 to 0.09
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np
import soxr
import trio
from attrs import frozen

from trio_gateway.simulator.codec import Pcm, decode, encode, gateway_encoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from trio_gateway.simulator.caller import Call

__all__ = [
    "REQUIRED",
    "Echo",
    "Similarity",
    "judge",
    "reference_echo",
    "required_similarity",
    "similarity",
]

REQUIRED: Final = 0.9
"""Least similarity of an undamaged echo: between right audio and one codec per worker, above."""

_COST_OF_A_LOSS: Final = 3.5
# A lost frame spoils itself and most of the next; in "goforward" 27 of 47 frames are voiced:
# 2 / 27 of the similarity for 1 / 47 of the frames.
_LEAST_REQUIRED: Final = 0.3  # well above another clip's 0.09, for the worst of networks

_BAND: Final = (80.0, 2500.0)
# Hz. Below it the recordings have DC and rumble, above it Opus at these bit rates keeps the
# spectrum but not the waveform (with 4000 the least right value is 0.85, with 8000 it is 0.81).
_VOICED: Final = 1e-3  # -30 dB from the loudest frame; a guess: breath and room lie below
_FRAME_MS: Final = 60


@frozen
class Similarity:
    """How like one another two recordings are."""

    value: float
    """Mean normalised correlation of the frames with speech, -1 to 1; 0 when nothing was heard."""

    delay: float
    """How much later the second has what the first has, seconds. One codec pair makes 0.0065."""

    frames: int
    """Frames of 60 ms that were compared."""


def similarity(said: Pcm, heard: Pcm, *, rate: int = 24_000) -> Similarity:
    """Compare two mono recordings of `rate` Hz, whatever their lengths and levels."""
    frame = rate * _FRAME_MS // 1000
    if not len(said) or not len(heard):
        return Similarity(0.0, 0.0, 0)
    size = (-(-(len(said) + len(heard)) // frame) + 1) * frame
    left = _band_spectrum(said, size, rate)
    right = _band_spectrum(heard, size, rate)
    lag = int(np.argmax(np.fft.irfft(right * left.conj(), size)))
    if lag >= len(heard):  # the correlation is circular: its end is the negative lags
        lag -= size
    # One axis long enough for both; rolling is circular as well, and nothing wraps onto sound.
    a = np.roll(np.fft.irfft(left, size), max(lag, 0)).reshape(-1, frame)
    b = np.roll(np.fft.irfft(right, size), max(-lag, 0)).reshape(-1, frame)
    energy_a, energy_b = (a * a).sum(1), (b * b).sum(1)
    spoken = (energy_a > _VOICED * energy_a.max()) | (energy_b > _VOICED * energy_b.max())
    # A frame below half a step of the sample grid is silence: it correlates with nothing.
    floor = frame / 4
    both = spoken & (energy_a > floor) & (energy_b > floor)
    correlation = (a * b).sum(1)[both] / np.sqrt(energy_a[both] * energy_b[both])
    count = int(spoken.sum())
    return Similarity(float(correlation.sum() / count) if count else 0.0, lag / rate, count)


def required_similarity(damaged: float) -> float:
    """The least `similarity` that counts as heard back.

    Args:
        damaged: Share of the frames, 0 to 1, that the simulated network is known to have dropped
            or held up, both ways together. What the gateway lost itself is no excuse.
    """
    return max(REQUIRED - _COST_OF_A_LOSS * damaged, _LEAST_REQUIRED)


async def judge(calls: Iterable[Call]) -> None:
    """Set the `similarity` of calls, in threads. 12 ms each.

    Devices that say the same get the same bytes back from a gateway that is in order, and the same
    bytes are decoded once.
    """
    alike: dict[object, list[Call]] = {}
    for call in calls:
        if call.playback is not None:
            packets = tuple(call.playback.sequence())
            alike.setdefault((call.voice.name, call.playback.audio, packets), []).append(call)

    async def judge_alike(group: list[Call]) -> None:
        value = await trio.to_thread.run_sync(_similarity_of, group[0], limiter=limiter)
        for call in group:
            call.similarity = value

    limiter = trio.CapacityLimiter(os.cpu_count() or 1)
    async with trio.open_nursery() as nursery:
        for group in alike.values():
            nursery.start_soon(judge_alike, group)


def _similarity_of(call: Call) -> float:
    assert call.playback is not None  # noqa: S101  judge() chose it
    audio = call.playback.audio
    heard = decode(call.playback.sequence(), audio.rate, audio.rate * audio.frame_ms // 1000)
    return similarity(call.voice.said(audio.rate), heard, rate=audio.rate).value


@frozen(eq=False)
class Echo:
    """What a gateway's echo of one utterance is when one decoder and one encoder do all of it."""

    packets: tuple[bytes, ...]
    """The downlink, Opus."""

    pcm: Pcm
    """What a device decodes from it, at the downlink's rate."""


def reference_echo(
    packets: Sequence[bytes | None],
    *,
    rate: int = 16_000,
    frame_ms: int = 60,
    downlink_rate: int = 24_000,
    downlink_frame_ms: int = 60,
    complexity: int = 7,
    bitrate: int | None = 24_000,
    quality: str = "HQ",
) -> Echo:
    """Decode, resample, encode and decode in one thread, each stage with one state throughout.

    The echo of a gateway with these settings has to be this, bit for bit.

    Args:
        packets: The uplink in order; None is a lost packet, which the decoder conceals.
        rate: At which the gateway decodes the uplink, Hz.
        frame_ms: Length of an uplink frame.
        downlink_rate: Of the downlink, Hz.
        downlink_frame_ms: Length of a downlink frame; the last one is padded with silence.
        complexity: Of the downlink's encoder, 0 to 10.
        bitrate: Of the downlink, bit/s; None is libopus' own choice.
        quality: Of the resampler, as soxr names it.
    """
    spoken = decode(packets, rate, rate * frame_ms // 1000)
    resampler = soxr.ResampleStream(rate, downlink_rate, 1, dtype="int16", quality=quality)
    resampled = resampler.resample_chunk(spoken, last=True) if rate != downlink_rate else spoken
    frame_samples = downlink_rate * downlink_frame_ms // 1000
    encoder = gateway_encoder(downlink_rate, complexity=complexity, bitrate=bitrate)
    downlink = encode(encoder, resampled, frame_samples)
    return Echo(tuple(downlink), decode(downlink, downlink_rate, frame_samples))


def _band_spectrum(pcm: Pcm, size: int, rate: int) -> npt.NDArray[np.complex128]:
    spectrum = np.fft.rfft(pcm.astype(np.float64), size)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    spectrum[(frequencies < _BAND[0]) | (frequencies > _BAND[1])] = 0
    return spectrum
