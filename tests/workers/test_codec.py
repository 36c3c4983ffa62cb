"""libopus on raw addresses against opuslib's own calls."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np
import pytest
from opus_reference import ReferenceDecoder, ReferenceEncoder, frames, packets

from trio_gateway.errors import CodecError
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE, RECOVER, Codec, reference
from trio_gateway.workers.opus import (
    OpusState,
    codec_error,
    decoder_state,
    encoder_state,
    library_path,
    load_codec,
)

CODEC = load_codec(library_path())
PACKET_LOSS_PERC, INBAND_FEC, APPLICATION = 4014, 4012, 4000


class Workplace:
    """One slot's worth of memory."""

    def __init__(self) -> None:
        self.packet = ctypes.create_string_buffer(4096)
        self.pcm = (ctypes.c_int16 * 5760)()

    def perform(self, operation: int, state: OpusState, length: int, samples: int) -> int:
        return CODEC.perform(
            operation,
            reference(state.address),
            reference(ctypes.addressof(self.packet)),
            length,
            reference(ctypes.addressof(self.pcm)),
            samples,
        )

    def decode(self, state: OpusState, packet: bytes) -> list[int]:
        ctypes.memmove(self.packet, packet, len(packet))
        return self.pcm[: self.perform(DECODE, state, len(packet), 5760)]

    def encode(self, state: OpusState, pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> bytes:
        ctypes.memmove(self.pcm, pcm.tobytes(), pcm.nbytes)
        length = self.perform(ENCODE, state, 4096, len(pcm))
        return self.packet.raw[:length]


def test_decoding_and_concealing() -> None:
    place, state, right = Workplace(), decoder_state(CODEC, 16000), ReferenceDecoder(16000)
    first, second, third = packets(16000, 3)
    assert place.decode(state, first) == right.decode(first).tolist()
    assert place.decode(state, second) == right.decode(second).tolist()
    assert place.perform(CONCEAL, state, 0, 960) == 960
    assert place.pcm[:960] == right.conceal(960).tolist()
    assert place.decode(state, third) == right.decode(third).tolist()


@pytest.mark.parametrize("complexity", [0, 5, 10])
def test_encoding(complexity: int) -> None:
    place = Workplace()
    state = encoder_state(CODEC, 24000, complexity=complexity, bitrate=24000)
    right = ReferenceEncoder(24000, complexity=complexity)
    for pcm in frames(24000, 4):
        assert place.encode(state, pcm) == right.encode(pcm)


def test_the_application_is_what_libopus_is_told() -> None:
    place, pcm = Workplace(), frames(24000, 4)
    said = {
        application: [place.encode(state, frame) for frame in pcm]
        for application, state in (
            ("voip", encoder_state(CODEC, 24000, complexity=5, bitrate=24000, application="voip")),
            ("audio", encoder_state(CODEC, 24000, complexity=5, bitrate=24000)),
        )
    }
    told = encoder_state(CODEC, 24000, complexity=5, bitrate=24000)
    told.control(APPLICATION, 2048)
    assert said["voip"] == [place.encode(told, frame) for frame in pcm]
    # The first byte's upper five bits (RFC 6716, table 2): hybrid for speech, CELT for the rest.
    assert {packet[0] >> 3 for packet in said["voip"]} <= {12, 13, 14, 15}
    assert all(packet[0] >> 3 >= 16 for packet in said["audio"])


def test_without_a_bitrate_libopus_chooses() -> None:
    chosen = encoder_state(CODEC, 24000, complexity=5, bitrate=None)
    modest = encoder_state(CODEC, 24000, complexity=5, bitrate=8000)
    place, pcm = Workplace(), frames(24000, 5)
    assert sum(len(place.encode(chosen, frame)) for frame in pcm) > 2 * sum(
        len(place.encode(modest, frame)) for frame in pcm
    )


def test_recovery_comes_nearer_to_what_was_said_than_concealment() -> None:
    """With in-band FEC, a packet holds a coarse copy of the frame before it."""
    place = Workplace()
    encoder = encoder_state(CODEC, 16000, complexity=5, bitrate=32000)
    for request, value in ((APPLICATION, 2048), (INBAND_FEC, 1), (PACKET_LOSS_PERC, 30)):
        encoder.control(request, value)
    sent = [place.encode(encoder, frame) for frame in frames(16000, 60, frame_ms=20)]

    def error(operation: int) -> float:
        whole, lossy = decoder_state(CODEC, 16000), decoder_state(CODEC, 16000)
        squares = 0.0
        for lost, packet in enumerate(sent[:-1]):
            said = np.array(place.decode(whole, packet))
            if lost % 3 == 2:
                length = len(sent[lost + 1])
                ctypes.memmove(place.packet, sent[lost + 1], length)
                assert place.perform(operation, lossy, length, 320) == 320
                squares += float(np.square(said - np.array(place.pcm[:320])).sum())
            else:
                place.decode(lossy, packet)
        return squares

    assert error(RECOVER) < error(CONCEAL) / 2


def test_errors_have_libopus_own_words() -> None:
    place, state = Workplace(), decoder_state(CODEC, 16000)
    place.packet.value = b"\xff\xff\xff"
    assert place.perform(DECODE, state, 3, 5760) == -4
    assert place.perform(99, state, 0, 0) == -5
    assert str(codec_error(-4)) == "libopus: corrupted stream (-4)"
    assert str(codec_error(-4711)) == "libopus: unknown error (-4711)"
    with pytest.raises(CodecError, match="invalid argument"):
        encoder_state(CODEC, 24000, complexity=11, bitrate=None)
    with pytest.raises(CodecError, match="invalid argument"):
        decoder_state(CODEC, 44100)


def test_what_is_not_libopus_is_not_taken() -> None:
    with pytest.raises(OSError, match="nonexistent"):
        Codec("/nonexistent/libopus.so")
    with pytest.raises(AttributeError, match="opus_decode"):
        Codec(ctypes.util.find_library("c") or "libc.so.6")


def test_another_libopus_can_be_named() -> None:
    assert library_path("/opt/libopus.so.0") == "/opt/libopus.so.0"
    assert Codec(library_path()).decoder_bytes(1) > 0
