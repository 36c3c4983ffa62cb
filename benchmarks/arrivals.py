"""What becomes of a clip's packets in a network and in the gateway's uplink, for network.py.

The uplink is the gateway's own; libopus is called directly, and time is an argument.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import numpy as np
from attrs import define, field, frozen

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.control import AudioParams
from trio_gateway.core.link import AudioLink
from trio_gateway.core.packet import header
from trio_gateway.settings import AudioSettings
from trio_gateway.simulator.codec import decode
from trio_gateway.simulator.network import BadNetwork, Weather
from trio_gateway.uplink import Uplink
from trio_gateway.workers.codec import CONCEAL, DECODE, RECOVER, reference
from trio_gateway.workers.opus import codec_error, decoder_state, library_path, load_codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from listening import Pcm

    from trio_gateway.core.jitter import UplinkFrame
    from trio_gateway.interfaces import Address
    from trio_gateway.workers.frame import Result
    from trio_gateway.workers.pool import WorkerPool

__all__ = ["COUNTED", "FRAME_SAMPLES", "RATE", "Run", "arrivals_of", "run"]

RATE: Final = 16_000  # Hz
FRAME_MS: Final = 60
FRAME: Final = FRAME_MS / 1000
FRAME_SAMPLES: Final = RATE * FRAME_MS // 1000
DEVICE: Address = ("192.0.2.1", 40000)
KEY: Final = b"sixteen byte key"
SSRC: Final = 7

COUNTED: Final = ("lost", "in order", "late", "FEC", "concealed")

Arrival: TypeAlias = tuple[float, int]  # seconds, place of the packet


class DirectDecoder:
    """What the uplink uses of a decoder, done at once and in place."""

    def __init__(self) -> None:
        self._codec = load_codec(library_path())
        self._state = decoder_state(self._codec, RATE)

    def submit_decode(self, packet: bytes, done: Callable[[Result], None]) -> None:
        """As `workers.stream.Decoder`; so are the others."""
        self._perform(DECODE, packet, FRAME_SAMPLES, done)

    def submit_conceal(self, samples: int, done: Callable[[Result], None]) -> None:
        """Fill in."""
        self._perform(CONCEAL, b"", samples, done)

    def submit_recover(self, packet: bytes, samples: int, done: Callable[[Result], None]) -> None:
        """Use the copy."""
        self._perform(RECOVER, packet, samples, done)

    def _perform(
        self, operation: int, packet: bytes, samples: int, done: Callable[[Result], None]
    ) -> None:
        room = np.empty(samples, np.int16)
        buffer = ctypes.create_string_buffer(packet, max(len(packet), 1))
        count = self._codec.perform(
            operation,
            reference(self._state.address),
            reference(ctypes.addressof(buffer)) if packet else None,
            len(packet),
            reference(room.ctypes.data),
            samples,
        )
        done(room if count == samples else codec_error(min(count, -1)))


class DirectPool:
    """What the uplink uses of a pool."""

    def decoder(self, rate: int) -> DirectDecoder:
        """A decoder for each uplink."""
        assert rate == RATE  # noqa: S101
        return DirectDecoder()


@define
class NotingLink(AudioLink):
    """Keeps when which frame left."""

    left: list[tuple[float, UplinkFrame]] = field(factory=list, init=False)

    def receive_datagram_untrusted(
        self, data: bytes, addr: Address, now: float
    ) -> list[UplinkFrame]:
        """See AudioLink."""
        return self._note(super().receive_datagram_untrusted(data, addr, now), now)

    def handle_timer(self, now: float) -> list[UplinkFrame]:
        """See AudioLink."""
        return self._note(super().handle_timer(now), now)

    def _note(self, frames: list[UplinkFrame], now: float) -> list[UplinkFrame]:
        self.left += [(now, frame) for frame in frames]
        return frames


@frozen
class Run:
    """What became of one clip.

    Attributes:
        frames: How many were sent.
        counts: Frames by COUNTED.
        delays: How long each frame that was decoded had been kept back, seconds.
        pcm: What the handler hears, and what it would hear without repair.
    """

    frames: int
    counts: dict[str, int]
    delays: list[float]
    pcm: tuple[Pcm, Pcm]


def arrivals_of(packets: int, weather: Weather, path: int) -> list[Arrival]:
    """When which packets arrive, in this order."""
    network = BadNetwork(weather, path, "up", FRAME)
    return sorted((due, place) for place in range(packets) for due in network.admit(place * FRAME))


def seal(packet: bytes, place: int) -> bytes:
    """The datagram, as a device makes it."""
    head = header(SSRC, payload_len=len(packet), sequence=place + 1)
    return head + AudioCipher(KEY).apply(head, packet)


async def run(packets: Sequence[bytes], arrivals: Sequence[Arrival], wait: float) -> Run:
    """Send a clip's packets through the gateway's uplink."""
    settings = AudioSettings(reorder_wait=wait)
    link = NotingLink(
        KEY, SSRC, frame_s=FRAME, reorder_wait=wait, max_gap_frames=settings.max_gap_frames
    )
    pool = cast("WorkerPool", DirectPool())
    uplink = Uplink(link, pool, AudioParams(), settings, backlog=len(packets))
    uplink.begin_talk("manual", 0.0)
    for now, place in arrivals:
        while (due := uplink.get_timer()) <= now:
            uplink.handle_timer(due)
        uplink.receive_datagram_untrusted(seal(packets[place], place), DEVICE, now)
    while (due := uplink.get_timer()) < math.inf:
        uplink.handle_timer(due)
    frames = []
    while uplink.is_readable:
        item = await uplink.next()
        if isinstance(item, np.ndarray):
            frames.append(item)
    repaired = np.zeros((len(packets), FRAME_SAMPLES), np.int16)
    for (_, frame), pcm in zip(link.left, frames, strict=True):
        repaired[frame.sequence - 1] = pcm
    unrepaired = without_repair(packets, arrivals)
    return account(uplink, link, arrivals, (repaired.reshape(-1), unrepaired))


def account(
    uplink: Uplink, link: NotingLink, arrivals: Sequence[Arrival], pcm: tuple[Pcm, Pcm]
) -> Run:
    """Count a run's frames, and take their delays."""
    arrived: dict[int, float] = {}
    overtaken: set[int] = set()
    for now, place in arrivals:
        if place not in arrived:
            arrived[place] = now
            if place < max(arrived):
                overtaken.add(place)
    decoded = {frame.sequence - 1: now for now, frame in link.left if frame.payload is not None}
    frames = len(pcm[0]) // FRAME_SAMPLES
    statistics = uplink.statistics()
    if statistics.unaccounted() or statistics.failed or statistics.dropped:
        raise RuntimeError(f"frames were lost on the way: {statistics}")
    counts = {
        "lost": frames - len(arrived),
        "in order": len(overtaken & decoded.keys()),
        "late": len(arrived) - len(decoded),
        "FEC": statistics.recovered,
        "concealed": statistics.concealed,
    }
    return Run(frames, counts, [now - arrived[place] for place, now in decoded.items()], pcm)


def without_repair(packets: Sequence[bytes], arrivals: Iterable[Arrival]) -> Pcm:
    """What the same arrivals are without reordering and repair, in step."""
    taken, last = [], -1
    for _, place in arrivals:
        if place > last:
            taken.append(place)
            last = place
    heard = np.zeros((len(packets), FRAME_SAMPLES), np.int16)
    heard[taken] = decode((packets[place] for place in taken), RATE, FRAME_SAMPLES).reshape(
        -1, FRAME_SAMPLES
    )
    return heard.reshape(-1)
