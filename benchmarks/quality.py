"""What a listener gets for the encoder's microseconds: settings of Opus, measured on speech.

    pip install pesq visqol-python
    python benchmarks/quality.py [--clean] [--visqol] [--loss] [--music]

Sound goes through libopus and back, 60 ms a frame: the clips of the package (two people, nothing
above 8 kHz), three synthetic voices that reach 11 kHz (needs `espeak-ng`), and two pieces of
something like music. Prints Markdown tables:

us      CPU time of this process for a frame, median over clips of the best of three.
modes   What the packets say that the encoder chose (RFC 6716, table 2), % of the packets.
PESQ    1.0 to 4.64, for people / synthetic voices. Made for speech; deaf above 8 kHz.
LSD     Log-spectral distance, dB, the same way. Less is better.
ViSQOL  1.0 to 4.75, the same way. Hears everything; its audio mode is made for music.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections import Counter
from itertools import chain
from statistics import fmean, median
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from attrs import frozen
from listening import RATE, lsd_of, pesq_of, resampled, visqol_of
from sounds import music, speech

from trio_gateway.simulator.codec import encode
from trio_gateway.workers.codec import CONCEAL, DECODE, RECOVER, reference
from trio_gateway.workers.opus import decoder_state, encoder_state, library_path, load_codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from listening import Pcm
    from sounds import Clip, Kind

    from trio_gateway.workers.opus import OpusState

Repair: TypeAlias = Literal["conceal", "fec", "skip"]

CODEC: Final = load_codec(library_path())
FRAME_MS: Final = 60
LOSS: Final = 0.05
STORMS: Final = 8  # patterns of loss, the same ones for every set-up

# opus_defines.h. "audio, voice" is what XiaoZhi servers use: AUDIO with OPUS_SET_SIGNAL(VOICE).
APPLICATIONS: Final = {"voip": 2048, "audio": 2049, "audio, voice": 2049, "lowdelay": 2051}
SET_APPLICATION: Final = 4000
SET_INBAND_FEC: Final = 4012
SET_PACKET_LOSS_PERC: Final = 4014
SET_SIGNAL: Final = 4024
SIGNAL_VOICE: Final = 3001


@frozen
class SetUp:
    """An encoder's settings. `fec_percent`: the loss that it is told to prepare for."""

    application: str
    complexity: int
    bitrate: int = 24_000
    rate: int = 24_000
    fec_percent: int = 0

    def state(self) -> OpusState:
        """An encoder that has them."""
        state = encoder_state(CODEC, self.rate, complexity=self.complexity, bitrate=self.bitrate)
        state.control(SET_APPLICATION, APPLICATIONS[self.application])
        if self.application == "audio, voice":
            state.control(SET_SIGNAL, SIGNAL_VOICE)
        if self.fec_percent:
            state.control(SET_INBAND_FEC, 1)
            state.control(SET_PACKET_LOSS_PERC, self.fec_percent)
        return state

    @property
    def frame_samples(self) -> int:
        """Samples in a frame."""
        return self.rate * FRAME_MS // 1000

    @property
    def delay(self) -> float:
        """How late the codec is, in seconds (opus_encoder.c); less without a coder for speech."""
        return 0.0025 if self.application == "lowdelay" else 0.0065


def encoded(setup: SetUp, clip: Clip) -> list[bytes]:
    """The clip's packets."""
    pcm = resampled(clip.pcm, clip.rate, setup.rate)
    return encode(setup.state(), pcm, setup.frame_samples)


def said(setup: SetUp, clip: Clip, packets: int, *, without: Iterable[int] = ()) -> Pcm:
    """What packets hold at best: the clip, as late as the codec is, without the frames named."""
    frame_samples = RATE * FRAME_MS // 1000
    late = np.zeros(packets * frame_samples, np.int16)
    pcm = resampled(clip.pcm, clip.rate, RATE)
    room = late[round(RATE * setup.delay) :]
    room[: len(pcm)] = pcm[: len(room)]
    return np.delete(late.reshape(packets, -1), sorted(without), axis=0).reshape(-1)


def heard(
    setup: SetUp, packets: Sequence[bytes], lost: Iterable[int] = (), repair: Repair = "conceal"
) -> Pcm:
    """Decode what arrived, and bring it to `RATE`.

    Args:
        setup: Of the encoder.
        packets: All that were sent.
        lost: Places of those that did not arrive.
        repair: What becomes of these: concealed by libopus, taken from the in-band FEC of the next
            packet if that arrived, or skipped, as devices do.
    """
    state = decoder_state(CODEC, setup.rate)
    room = np.empty(setup.frame_samples, np.int16)
    frames = []
    gone = frozenset(lost)
    for place, packet in enumerate(packets):
        operation, source = DECODE, packet
        if place in gone:
            if repair == "skip":
                continue
            copied = repair == "fec" and place + 1 < len(packets) and place + 1 not in gone
            operation, source = (RECOVER, packets[place + 1]) if copied else (CONCEAL, b"")
        buffer = ctypes.create_string_buffer(source, max(len(source), 1))
        count = CODEC.perform(
            operation,
            reference(state.address),
            reference(ctypes.addressof(buffer)) if source else None,
            len(source),
            reference(room.ctypes.data),
            len(room),
        )
        if count != len(room):
            raise RuntimeError(f"libopus answered {count} to packet {place}")
        frames.append(room.copy())
    return resampled(np.concatenate(frames), setup.rate, RATE)


def mode(packet: bytes) -> str:
    """What a packet says that it is."""
    config = packet[0] >> 3
    if config < 12:  # noqa: PLR2004  the rows of the table
        return "SILK " + ("NB", "MB", "WB")[config // 4]
    if config < 16:  # noqa: PLR2004
        return "hybrid " + ("SWB", "FB")[config // 2 - 6]
    return "CELT " + ("NB", "WB", "SWB", "FB")[config // 4 - 4]


def modes(packets: Sequence[bytes]) -> str:
    """The same of many."""
    counts = Counter(map(mode, packets)).most_common()
    return ", ".join(f"{name} {100 * count / len(packets):.0f}" for name, count in counts)


def cpu_us(setup: SetUp, clip: Clip) -> float:
    """CPU microseconds for a frame."""
    pcm, times = resampled(clip.pcm, clip.rate, setup.rate), []
    for _ in range(3):
        state = setup.state()
        began = time.process_time()
        packets = encode(state, pcm, setup.frame_samples)
        times.append((time.process_time() - began) / len(packets))
    return min(times) * 1e6


def by_kind(clips: Iterable[Clip], values: Iterable[float]) -> str:
    """The mean for each kind of clip."""
    kinds: dict[Kind, list[float]] = {}
    for clip, value in zip(clips, values, strict=True):
        kinds.setdefault(clip.kind, []).append(value)
    return " / ".join(f"{fmean(values):.2f}" for values in kinds.values())


def clean_row(setup: SetUp, clips: Sequence[Clip], *, visqol: bool = False) -> list[str]:
    """Every packet arrives."""
    sent = [encoded(setup, clip) for clip in clips]
    every = [packet for packets in sent for packet in packets]
    pairs = [
        (said(setup, clip, len(packets)), heard(setup, packets))
        for clip, packets in zip(clips, sent, strict=True)
    ]
    is_speech = clips[0].kind != "music"
    measures = [pesq_of] * is_speech + [lsd_of] + [visqol_of] * visqol
    return [
        setup.application,
        f"{setup.rate // 1000}",
        f"{setup.bitrate // 1000}",
        f"{setup.complexity}",
        f"{median(cpu_us(setup, clip) for clip in clips):.0f}",
        f"{fmean(map(len, every)):.0f}",
        modes(every),
        *(by_kind(clips, [measure(*pair) for pair in pairs]) for measure in measures),
    ]


def loss_row(setup: SetUp, clips: Sequence[Clip]) -> list[str]:
    """One packet in twenty is lost."""
    scores: dict[Repair, list[float]] = {"conceal": [], "fec": [], "skip": []}
    sizes: list[int] = []
    for clip in clips:
        packets = encoded(setup, clip)
        sizes += map(len, packets)
        for storm in range(STORMS):
            rng = np.random.default_rng(storm)
            lost = np.flatnonzero(rng.random(len(packets)) < LOSS).tolist()
            for repair, values in scores.items():
                whole = said(setup, clip, len(packets), without=lost if repair == "skip" else ())
                values.append(pesq_of(whole, heard(setup, packets, lost, repair)))
    every = [clip for clip in clips for _ in range(STORMS)]
    return [
        setup.application,
        f"{setup.complexity}",
        f"{setup.fec_percent or 'off'}",
        f"{fmean(sizes):.0f}",
        *(by_kind(every, values) for values in scores.values()),
    ]


def print_table(head: str, rows: Iterable[Sequence[str]]) -> None:
    """Markdown, line by line as it comes."""
    names = head.split("; ")
    for row in chain((names, ["---"] * len(names)), rows):
        print("|", " | ".join(row), "|", flush=True)
    print()


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clean", action="store_true", help="speech, all of it arriving")
    parser.add_argument(
        "--visqol", action="store_true", help="that at 24 kbit/s, with ViSQOL: slow"
    )
    parser.add_argument("--loss", action="store_true", help="PESQ with 5 %% of the packets lost")
    parser.add_argument("--music", action="store_true", help="music, all of it arriving")
    options = parser.parse_args()
    head = "application; kHz; kbit/s; complexity; us; bytes; modes, %"
    efforts = (0, 5, 7, 8, 10)
    if options.clean or options.visqol:
        setups = [
            SetUp(application, complexity, bitrate)
            for bitrate in ((24_000,) if options.visqol else (16_000, 24_000, 32_000))
            for application in APPLICATIONS
            for complexity in efforts
        ]
        setups += [SetUp("audio", complexity, rate=16_000) for complexity in efforts]
        setups += [SetUp("voip", 0, rate=16_000)]  # the cheapest that is made for speech
        rows = (clean_row(setup, speech(), visqol=options.visqol) for setup in setups)
        print_table(head + "; PESQ; LSD" + "; ViSQOL" * options.visqol, rows)
    if options.music:
        setups = [SetUp(name, complexity) for name in APPLICATIONS for complexity in efforts]
        print_table(head + "; LSD", (clean_row(each, music()) for each in setups))
    if options.loss:
        setups = [
            SetUp(application, complexity, fec_percent=percent)
            for application in ("audio", "audio, voice", "voip")
            for complexity in (5, 7)
            for percent in (0, 5, 15)
        ]
        head = "application; complexity; FEC for, %; bytes; concealed; FEC used; skipped"
        print_table(head, (loss_row(setup, speech()) for setup in setups))


if __name__ == "__main__":
    main()
