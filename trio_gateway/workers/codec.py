"""libopus on raw addresses.

Rule 1: standard library only. This file is imported inside isolated interpreters.
Rule 2: no `argtypes`. CPython 3.14.10 and 3.15.2 crash when one interpreter imports ctypes while
another is inside a foreign call that converts through `argtypes`. Pointers are passed as
`byref(c_char.from_address(address))`, integers as plain ints (C int), results are C int, which is
what ctypes assumes. It is faster as well.

libopus' API: https://opus-codec.org/docs/opus_api-1.5/ (opus_decoder.h, opus_encoder.h).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

__all__ = ["CONCEAL", "DECODE", "ENCODE", "RECOVER", "STOP", "Codec", "Reference", "reference"]

# Operations of a ticket.
DECODE: Final = 0
CONCEAL: Final = 1  # decode nothing: libopus invents the lost frame (PLC)
RECOVER: Final = 2  # decode the in-band FEC copy of the frame before this packet
ENCODE: Final = 3
STOP: Final = 255

Reference = Any  # what byref() returns has no public type


def reference(address: int) -> Reference:
    """A pointer argument for the memory at `address`. It keeps nothing alive."""
    return ctypes.byref(ctypes.c_char.from_address(address))


class Codec:
    """The functions of one libopus. Loading the same path again shares the library.

    Args:
        path: File name of the shared library, as `ctypes.CDLL` takes it.

    Raises:
        OSError: There is no such library, or it is not a library.
        AttributeError: It is a library, but not libopus.
    """

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self.decode = library.opus_decode
        self.encode = library.opus_encode
        self.decoder_bytes = library.opus_decoder_get_size
        self.encoder_bytes = library.opus_encoder_get_size
        self.decoder_init = library.opus_decoder_init
        self.encoder_init = library.opus_encoder_init
        self.decoder_ctl = library.opus_decoder_ctl
        self.encoder_ctl = library.opus_encoder_ctl
        if sys.platform == "darwin":  # pragma: no cover
            # Variadic: on arm64 macOS the optional arguments go on the stack, and ctypes has to be
            # told where the fixed ones end. Main's calls only, never in a worker's loop.
            fixed = [ctypes.c_void_p, ctypes.c_int]
            self.decoder_ctl.argtypes = fixed
            self.encoder_ctl.argtypes = fixed

    def perform(
        self,
        operation: int,
        state: Reference,
        packet: Reference,
        length: int,
        pcm: Reference,
        samples: int,
    ) -> int:
        """Do what one ticket asks for.

        Args:
            operation: One of the constants above, not STOP.
            state: The stream's OpusDecoder or OpusEncoder.
            packet: Opus packet, read (decode) or written (encode).
            length: Bytes of the packet; for ENCODE the room for it.
            pcm: int16 samples, written (decode) or read (encode).
            samples: Samples per channel: the room in `pcm` for DECODE, else the exact frame size.

        Returns:
            Samples per channel decoded or bytes encoded; negative is libopus' error code.
        """
        if operation == DECODE:
            return self.decode(state, packet, length, pcm, samples, 0)  # type: ignore[no-any-return]
        if operation == ENCODE:
            return self.encode(state, pcm, samples, packet, length)  # type: ignore[no-any-return]
        if operation == CONCEAL:
            return self.decode(state, None, 0, pcm, samples, 0)  # type: ignore[no-any-return]
        if operation == RECOVER:
            return self.decode(state, packet, length, pcm, samples, 1)  # type: ignore[no-any-return]
        return -5  # OPUS_UNIMPLEMENTED
