"""Opus over a whole clip at once, in the calling thread: the devices' mouth and ear.

One codec state sees all frames of a clip in order, so what comes out is the reference that a
gateway's many workers are measured against. libopus releases the GIL: threads may do this.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE, Codec, reference
from trio_gateway.workers.opus import (
    OpusState,
    codec_error,
    decoder_state,
    encoder_state,
    library_path,
    load_codec,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Pcm", "decode", "device_encoder", "encode", "gateway_encoder"]

Pcm = npt.NDArray[np.int16]
"""Mono samples, shape (n,)."""

_SET_DTX: Final = 4016
_MAX_PACKET_BYTES: Final = 4000  # what the documentation of opus_encode recommends


def _codec() -> Codec:
    return load_codec(library_path())


def device_encoder(rate: int = 16_000) -> OpusState:
    """An encoder set up as in a device: VOIP, DTX on, complexity 0 (fw 2.x audio_service.cc)."""
    state = encoder_state(_codec(), rate, application="voip", complexity=0, bitrate=None)
    state.control(_SET_DTX, 1)
    return state


def gateway_encoder(rate: int, *, complexity: int, bitrate: int | None) -> OpusState:
    """An encoder as a gateway has it. Rate in Hz, `bitrate` in bit/s, None for libopus' choice."""
    return encoder_state(_codec(), rate, complexity=complexity, bitrate=bitrate)


def encode(state: OpusState, pcm: Pcm, frame_samples: int) -> list[bytes]:
    """Cut `pcm` into frames, the last one padded with silence, and encode them in order.

    Raises:
        CodecError: libopus refused a frame.
    """
    frames = np.zeros((-(-len(pcm) // frame_samples), frame_samples), np.int16)
    frames.reshape(-1)[: len(pcm)] = pcm
    codec = _codec()
    room = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
    packets = []
    for frame in frames:
        count = codec.perform(
            ENCODE,
            reference(state.address),
            reference(ctypes.addressof(room)),
            _MAX_PACKET_BYTES,
            reference(frame.ctypes.data),
            frame_samples,
        )
        if count < 0:
            raise codec_error(count)
        packets.append(room.raw[:count])
    return packets


def decode(packets: Iterable[bytes | None], rate: int, frame_samples: int) -> Pcm:
    """Decode packets in order with a fresh decoder.

    Args:
        packets: Opus packets; None is a lost one and is concealed, as is one that is no Opus.
        rate: Of the result, Hz.
        frame_samples: Length of a lost frame, in samples at `rate`.

    Returns:
        The samples of all frames, one after the other.
    """
    codec = _codec()
    state = decoder_state(codec, rate)
    address = reference(state.address)
    room = np.empty(rate * 120 // 1000, np.int16)  # RFC 6716 section 2.1.4: 120 ms at most
    pcm = reference(room.ctypes.data)
    heard = []
    for packet in packets:
        count = -1
        if packet:
            buffer = ctypes.create_string_buffer(packet, len(packet))
            source = reference(ctypes.addressof(buffer))
            count = codec.perform(DECODE, address, source, len(packet), pcm, len(room))
        if count < 0:
            count = codec.perform(CONCEAL, address, None, 0, pcm, frame_samples)
        if count < 0:
            raise codec_error(count)
        heard.append(room[:count].copy())
    return np.concatenate(heard) if heard else np.empty(0, np.int16)
