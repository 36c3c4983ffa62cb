"""What a bad network leaves of speech on its way up, with the gateway's repair and without.

    pip install pesq
    python benchmarks/network.py [--waits | --senders] [--seeds N]

Speech (the clips of benchmarks/sounds.py) is encoded as a device does it, sealed, sent through the
simulator's network (trio_gateway/simulator/network.py) and received by the gateway's own uplink,
with libopus called directly. Time is simulated. Prints Markdown tables; % are of the frames sent:

lost        Never arrived.
in order    Arrived after a later one, in time to be put in its place.
late        Arrived and was dropped: its place had passed, or nothing confirmed it
            (trio_gateway/core/pinning.py).
FEC         Lost or late, and decoded from the copy in the next packet.
concealed   Lost or late, and filled in by libopus.
delay       How long a frame that arrived was kept back: mean / 95th percentile / greatest, ms.
SNR         Segmental, dB: see `segmental_snr`. For people / synthetic voices.
PESQ        Wideband, 1.0 to 4.64, the same way.

SNR and PESQ compare with the same packets, all decoded in order. "Without" is without repair: a
datagram whose sequence is not above the last one's is dropped, and what does not arrive is left
out. Such a gateway would move up what follows; here silence takes the place, so that both are
compared in step.
"""

from __future__ import annotations

import argparse
from functools import cache
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Final

import numpy as np
import trio
from arrivals import COUNTED, FRAME_SAMPLES, RATE, arrivals_of, run
from attrs import evolve, frozen
from listening import resampled
from pesq import pesq
from quality import by_kind, modes, print_table
from sounds import speech

from trio_gateway.core.opus_packet import carries_fec
from trio_gateway.settings import AudioSettings
from trio_gateway.simulator.codec import decode, device_encoder, encode
from trio_gateway.simulator.network import Weather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrivals import Run
    from listening import Pcm
    from sounds import Clip

SET_BITRATE: Final = 4002  # opus_defines.h
SET_INBAND_FEC: Final = 4012
SET_PACKET_LOSS_PERC: Final = 4014

SEGMENT: Final = RATE * 20 // 1000
SNR_RANGE: Final = (-10.0, 35.0)  # dB
LOUD_DB: Final = -40.0  # segments below this, relative to the loudest, do not count

COLUMNS: Final = (*COUNTED, "delay", "SNR", "SNR without", "PESQ", "PESQ without")
OF_THE_WAIT: Final = ("in order", "late", "concealed", "delay", "SNR", "PESQ")
WEATHERS: Final = {
    "nothing": Weather(),
    "2 % lost": Weather(loss=0.02),
    "5 % lost": Weather(loss=0.05),
    "10 % lost": Weather(loss=0.10),
    "20 % lost": Weather(loss=0.20),
    "10 % lost, 3 in a row": Weather(loss=0.10, burst=3),
    "jitter 50 ms": Weather(jitter=0.050),
    "5 % lost, jitter 50 ms": Weather(loss=0.05, jitter=0.050),
    "5 % twice": Weather(duplicate=0.05),
    "10 % overtaken": Weather(reorder=0.10),
    "jitter 150 ms": Weather(jitter=0.150),
}
WAITS: Final = (0.020, 0.040, 0.060, 0.120)
JITTERS: Final = (0.050, 0.100, 0.150, 0.200)


@frozen
class Sender:
    """A device. The firmware's own has neither a bit rate (libopus chooses) nor FEC."""

    name: str
    bitrate: int | None = None
    fec_percent: int = 0

    def packets(self, clip: Clip) -> list[bytes]:
        """What it makes of a clip."""
        state = device_encoder(RATE)
        if self.bitrate is not None:
            state.control(SET_BITRATE, self.bitrate)
        if self.fec_percent:
            state.control(SET_INBAND_FEC, 1)
            state.control(SET_PACKET_LOSS_PERC, self.fec_percent)
        return encode(state, resampled(clip.pcm, clip.rate, RATE), FRAME_SAMPLES)


FIRMWARE: Final = Sender("As the firmware sends it")
WITH_FEC: Final = Sender("With in-band FEC for 15 % loss, at 32 kbit/s", 32_000, 15)


def segmental_snr(clean: Pcm, heard: Pcm) -> float:
    """Signal-to-noise ratio, dB, of each 20 ms, limited to -10 ... 35, and the mean of these.

    The limits are those of Hansen and Pellom (ICSLP 1998), with which it is mostly used. Segments
    count in which somebody speaks: no more than 40 dB below the loudest one.
    """
    signal, other = (
        pcm[: len(pcm) // SEGMENT * SEGMENT].reshape(-1, SEGMENT).astype(np.float64)
        for pcm in (clean, heard)
    )
    power = np.square(signal).sum(axis=1)
    noise = np.square(signal - other).sum(axis=1)
    loud = power > power.max() * 10 ** (LOUD_DB / 10)
    with np.errstate(divide="ignore"):
        ratios = 10 * np.log10(power[loud] / noise[loud])
    return float(np.clip(ratios, *SNR_RANGE).mean())


@cache
def pesq_of(clean: bytes, heard: bytes) -> float:
    """ITU-T P.862.2, wideband. Cached: what came whole is the same in many runs."""
    return float(pesq(RATE, *(np.frombuffer(pcm, np.int16) for pcm in (clean, heard)), "wb"))


def scores(clean: Pcm, made: Run) -> list[float]:
    """SNR and PESQ, each with repair and without."""
    return [
        *(segmental_snr(clean, pcm) for pcm in made.pcm),
        *(pesq_of(clean.tobytes(), pcm.tobytes()) for pcm in made.pcm),
    ]


async def row(
    sender: Sender, weather: Weather, clips: Sequence[Clip], seeds: int, wait: float
) -> dict[str, str]:
    """Measure one set-up: its columns of the table."""
    runs: list[Run] = []
    heard: list[Clip] = []
    scored: list[list[float]] = []
    for (number, clip), seed in product(enumerate(clips), range(seeds)):
        packets = sender.packets(clip)
        arrivals = arrivals_of(len(packets), evolve(weather, seed=seed), number)
        runs.append(await run(packets, arrivals, wait))
        heard.append(clip)
        scored.append(scores(decode(packets, RATE, FRAME_SAMPLES), runs[-1]))
    frames = sum(each.frames for each in runs)
    delays = [1000 * delay for each in runs for delay in each.delays]
    texts = [
        *(f"{100 * sum(each.counts[name] for each in runs) / frames:.1f}" for name in COUNTED),
        f"{fmean(delays):.0f} / {np.percentile(delays, 95):.0f} / {max(delays):.0f}",
        *(by_kind(heard, values) for values in zip(*scored, strict=True)),
    ]
    return dict(zip(COLUMNS, texts, strict=True))


async def weather_table(sender: Sender, clips: Sequence[Clip], seeds: int) -> None:
    """Every weather, at the default wait."""
    packets = [packet for clip in clips for packet in sender.packets(clip)]
    size = fmean(map(len, packets))
    fec = sum(map(carries_fec, packets)) / len(packets)
    print(f"{sender.name}: {size:.0f} bytes a packet, a copy in {100 * fec:.0f} %.\n")
    wait = AudioSettings().reorder_wait
    rows = [
        [name, *(await row(sender, weather, clips, seeds, wait)).values()]
        for name, weather in WEATHERS.items()
    ]
    print_table("; ".join(("network", *COLUMNS)), rows)


async def waits_table(clips: Sequence[Clip], seeds: int) -> None:
    """How long to wait for what jitter, while 5 % are lost."""
    rows = []
    for jitter, wait in product(JITTERS, WAITS):
        weather = Weather(loss=0.05, jitter=jitter)
        head = [f"{1000 * jitter:.0f}", f"{1000 * wait:.0f}"]
        measured = await row(FIRMWARE, weather, clips, seeds, wait)
        rows.append(head + [measured[name] for name in OF_THE_WAIT])
    print_table("; ".join(("jitter, ms", "wait, ms", *OF_THE_WAIT)), rows)


def senders_table(clips: Sequence[Clip]) -> None:
    """What FEC costs: PESQ of all packets, decoded in order, against what was said."""
    rows = []
    for bitrate, percent in product((None, 24_000, 32_000), (0, 15)):
        sender = Sender("", bitrate, percent)
        sent = [sender.packets(clip) for clip in clips]
        every = [packet for packets in sent for packet in packets]
        whole = [
            pesq_of(
                resampled(clip.pcm, clip.rate, RATE).tobytes(),
                decode(packets, RATE, FRAME_SAMPLES).tobytes(),
            )
            for clip, packets in zip(clips, sent, strict=True)
        ]
        rows.append(
            [
                "libopus chooses" if bitrate is None else f"{bitrate // 1000}",
                f"{percent or 'off'}",
                f"{fmean(map(len, every)):.0f}",
                f"{100 * sum(map(carries_fec, every)) / len(every):.0f}",
                modes(every),
                by_kind(clips, whole),
            ]
        )
    print_table("kbit/s; FEC for, %; bytes; copies, %; modes, %; PESQ", rows)


async def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--waits", action="store_true", help="other values of audio.reorder_wait")
    parser.add_argument("--senders", action="store_true", help="what FEC costs where all arrives")
    parser.add_argument("--seeds", type=int, default=8, help="storms for each clip (8)")
    options = parser.parse_args()
    clips = speech()
    if options.waits:
        await waits_table(clips, options.seeds)
    elif options.senders:
        senders_table(clips)
    else:
        for sender in FIRMWARE, WITH_FEC:
            await weather_table(sender, clips, options.seeds)


if __name__ == "__main__":
    trio.run(main)
