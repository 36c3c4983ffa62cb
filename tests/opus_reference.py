"""libopus as others call it: opuslib's own classes on one thread, and speech to feed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import opuslib_next
from opuslib_next.api import ctl
from opuslib_next.api import decoder as decoder_api
from opuslib_next.api import encoder as encoder_api

from trio_gateway.speech import load_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ReferenceDecoder", "ReferenceEncoder", "frames", "packets", "speech"]


def speech(samples: int) -> NDArray[np.int16]:
    """A clip that ships with the package, repeated; at another rate it is only another voice."""
    clip = load_clip()
    return np.tile(clip, -(-samples // len(clip)))[:samples]


class ReferenceEncoder:
    """`loss_percent`: told of so much loss, it adds in-band FEC from 15 % or so."""

    def __init__(
        self, rate: int, *, complexity: int = 7, bitrate: int = 24000, loss_percent: int = 0
    ) -> None:
        self._encoder = opuslib_next.Encoder(rate, 1, opuslib_next.APPLICATION_AUDIO)
        state = self._encoder.encoder_state
        encoder_api.encoder_ctl(state, ctl.set_complexity, complexity)
        encoder_api.encoder_ctl(state, ctl.set_bitrate, bitrate)
        if loss_percent:
            encoder_api.encoder_ctl(state, ctl.set_inband_fec, 1)
            encoder_api.encoder_ctl(state, ctl.set_packet_loss_perc, loss_percent)

    def encode(self, pcm: NDArray[np.int16]) -> bytes:
        return cast("bytes", self._encoder.encode(pcm.tobytes(), len(pcm)))


class ReferenceDecoder:
    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._state = decoder_api.create_state(rate, 1)

    def decode(self, packet: bytes) -> NDArray[np.int16]:
        room = self._rate * 120 // 1000
        pcm = decoder_api.decode(self._state, packet, len(packet), room, False, 1)
        return np.frombuffer(pcm, np.int16)

    def recover(self, packet: bytes, samples: int) -> NDArray[np.int16]:
        pcm = decoder_api.decode(self._state, packet, len(packet), samples, True, 1)
        return np.frombuffer(pcm, np.int16)[:samples]

    def conceal(self, samples: int) -> NDArray[np.int16]:
        pcm = decoder_api.decode(self._state, b"", 0, samples, False, 1)
        return np.frombuffer(pcm, np.int16)[:samples]


def frames(rate: int, number: int, frame_ms: int = 60) -> list[NDArray[np.int16]]:
    """The first frames of the clip."""
    samples = rate * frame_ms // 1000
    return list(speech(number * samples).reshape(number, samples))


def packets(rate: int, number: int, *, loss_percent: int = 0) -> list[bytes]:
    """The same, as Opus."""
    encoder = ReferenceEncoder(rate, loss_percent=loss_percent)
    return [encoder.encode(frame) for frame in frames(rate, number)]
