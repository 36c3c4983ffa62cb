"""Codec states: the memory that has heard all frames of a stream so far.

A state is plain memory of the size that libopus names, initialised in place, freed with its Python
object: nothing to destroy and nothing to leak. opuslib knows where libopus is and what its
constants and errors are called; its own calls convert through `argtypes`, which codec.py explains.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from trio_gateway.errors import CodecError
from trio_gateway.workers.codec import Codec, reference

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "GET_LOOKAHEAD",
    "INVALID_PACKET",
    "MAX_FRAME_MS",
    "SAMPLE_RATES",
    "Application",
    "OpusState",
    "codec_error",
    "decoder_state",
    "encoder_state",
    "library_path",
    "load_codec",
]

SAMPLE_RATES: Final = (8000, 12000, 16000, 24000, 48000)
MAX_FRAME_MS: Final = 120  # RFC 6716 section 2.1.4

Application: TypeAlias = Literal["voip", "audio"]

# opus_defines.h. Its third, restricted low delay, would save 4 ms of 60 and knows no speech.
_APPLICATIONS: Final[dict[Application, int]] = {"voip": 2048, "audio": 2049}
_SET_BITRATE: Final = 4002
_SET_COMPLEXITY: Final = 4010
GET_LOOKAHEAD: Final = 4027
_AUTO: Final = -1000
INVALID_PACKET: Final = -4
_ERRORS: Final = {
    -1: "invalid argument",
    -2: "buffer too small",
    -3: "internal error",
    INVALID_PACKET: "corrupted stream",
    -5: "request not implemented",
    -6: "invalid state",
    -7: "memory allocation failed",
}


def codec_error(code: int) -> CodecError:
    """The exception for a negative result of libopus."""
    return CodecError(code, _ERRORS.get(code, "unknown error"))


def library_path(override: str | None = None) -> str:
    """The libopus to use: `override`, or the one in opuslib's wheel."""
    if override is not None:
        return override
    from opuslib_next import api  # noqa: PLC0415  36 ms, and not needed with an override

    return str(api.libopus._name)  # noqa: SLF001  CDLL's name has no public accessor


@functools.cache
def load_codec(path: str) -> Codec:
    """The library at `path`, loaded once per process."""
    return Codec(path)


class OpusState:
    """One OpusDecoder or OpusEncoder, at a fixed address for its whole life."""

    __slots__ = ("_ctl", "_memory", "address")

    def __init__(self, size: int, ctl: Callable[..., int]) -> None:
        self._memory: Any = ctypes.create_string_buffer(size)
        self._ctl = ctl
        self.address = ctypes.addressof(self._memory)

    def control(self, request: int, *values: int) -> None:
        """Call opus_*_ctl.

        Raises:
            CodecError: libopus refused the request or the value.
        """
        code = self._ctl(reference(self.address), request, *values)
        if code < 0:
            raise codec_error(code)

    def ask(self, request: int) -> int:
        """Call opus_*_ctl for a value.

        Raises:
            CodecError: libopus does not know it.
        """
        value = ctypes.c_int32()
        code = self._ctl(reference(self.address), request, ctypes.byref(value))
        if code < 0:
            raise codec_error(code)
        return value.value


def decoder_state(codec: Codec, rate: int) -> OpusState:
    """A mono decoder at `rate` Hz (one of SAMPLE_RATES)."""
    state = OpusState(codec.decoder_bytes(1), codec.decoder_ctl)
    code = codec.decoder_init(reference(state.address), rate, 1)
    if code < 0:
        raise codec_error(code)
    return state


def encoder_state(
    codec: Codec,
    rate: int,
    *,
    complexity: int,
    bitrate: int | None,
    application: Application = "audio",
) -> OpusState:
    """A mono encoder at `rate` Hz, variable bit rate.

    Args:
        codec: The library.
        rate: One of SAMPLE_RATES, Hz.
        complexity: 0 to 10.
        bitrate: bit/s, or None for libopus' own choice.
        application: "audio" stays close to what it is given, music included; "voip" filters out
            what lies below speech and leans towards the coder made for it.
    """
    if application not in _APPLICATIONS:
        raise ValueError(f"application {application!r}: one of {', '.join(_APPLICATIONS)}")
    state = OpusState(codec.encoder_bytes(1), codec.encoder_ctl)
    code = codec.encoder_init(reference(state.address), rate, 1, _APPLICATIONS[application])
    if code < 0:
        raise codec_error(code)
    state.control(_SET_COMPLEXITY, complexity)
    state.control(_SET_BITRATE, _AUTO if bitrate is None else bitrate)
    return state
