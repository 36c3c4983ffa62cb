"""What is measured: one operation of libopus, on the same speech for whoever does it."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import frozen

from trio_gateway.core.pcm import FrameCutter
from trio_gateway.speech import CLIP_RATE, load_clip
from trio_gateway.workers.codec import reference
from trio_gateway.workers.opus import codec_error, decoder_state, encoder_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trio_gateway.workers.codec import Codec
    from trio_gateway.workers.opus import OpusState
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.stream import Decoder, Encoder

__all__ = ["FRAME_MS", "PACKET_BYTES", "Job", "Op", "Submit", "decoding", "encoding"]

Op: TypeAlias = Literal["decode", "encode"]
Submit: TypeAlias = "Callable[[Any, Callable[[Any], None]], None]"
"""Takes a frame and whom to tell."""

# What devices send and are sent (protocol section 5).
DECODE_RATE: Final = 16_000
ENCODE_RATE: Final = 24_000
FRAME_MS: Final = 60

PACKET_BYTES: Final = 1400  # room for a packet, as the pool's encoders have

# OPUS_SET_APPLICATION, OPUS_APPLICATION_VOIP (opus_defines.h): what devices encode with.
_SET_APPLICATION: Final = 4000
_VOIP: Final = 2048


@frozen(eq=False)
class Job:
    """An operation and its input.

    Attributes:
        codec: The libopus that the direct loop calls.
        rate: Hz.
        complexity: Of the encoder; None for a decoder.
        bitrate: Of the encoder, bit/s; None leaves it to libopus.
        frames: Packets to decode, or int16 PCM to encode: 2.8 s of speech, to be taken in order
            and over and over.
    """

    codec: Codec
    rate: int
    complexity: int | None
    bitrate: int | None
    frames: Sequence[bytes] | Sequence[NDArray[np.int16]]

    @property
    def op(self) -> Op:
        """What it does."""
        return "decode" if self.complexity is None else "encode"

    def state(self) -> OpusState:
        """A codec that has heard nothing."""
        if self.complexity is None:
            return decoder_state(self.codec, self.rate)
        return encoder_state(
            self.codec, self.rate, complexity=self.complexity, bitrate=self.bitrate
        )

    def stream(self, pool: WorkerPool) -> tuple[Decoder | Encoder, Submit]:
        """A stream of the pool, and the function that takes its frames."""
        if self.complexity is None:
            decoder = pool.decoder(self.rate)
            return decoder, decoder.submit_decode
        encoder = pool.encoder(self.rate, complexity=self.complexity, bitrate=self.bitrate)
        return encoder, encoder.submit_encode


def decoding(codec: Codec, bitrate: int | None) -> Job:
    """Decode what a device's encoder made of the speech, at that bit rate.

    Devices also use DTX; silence that is not sent would make the decoder look cheaper than it is.
    """
    state = encoder_state(codec, DECODE_RATE, complexity=0, bitrate=bitrate)
    state.control(_SET_APPLICATION, _VOIP)
    packets = [_encode(codec, state, pcm) for pcm in _speech(DECODE_RATE)]
    return Job(codec, DECODE_RATE, None, None, packets)


def encoding(codec: Codec, complexity: int, bitrate: int | None) -> Job:
    """Encode the speech."""
    return Job(codec, ENCODE_RATE, complexity, bitrate, _speech(ENCODE_RATE))


def _speech(rate: int) -> list[NDArray[np.int16]]:
    return list(FrameCutter(CLIP_RATE, rate, rate * FRAME_MS // 1000).push(load_clip()))


def _encode(codec: Codec, state: OpusState, pcm: NDArray[np.int16]) -> bytes:
    room = ctypes.create_string_buffer(PACKET_BYTES)
    packet = reference(ctypes.addressof(room))
    sound = reference(pcm.ctypes.data)
    length = codec.encode(reference(state.address), sound, len(pcm), packet, PACKET_BYTES)
    if length < 0:
        raise codec_error(length)
    return room.raw[:length]
