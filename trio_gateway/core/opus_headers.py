"""The two headers of an Ogg/Opus file (RFC 7845, section 5). All numbers little-endian.

OpusHead   0  "OpusHead"       OpusTags   0  "OpusTags"
           8  version: 1                  8  length of the vendor string, 32 bits
           9  channels                       the vendor string, UTF-8
          10  pre-skip, 16 bits              number of comments, 32 bits
          12  rate of the input, 32 bits     for each: its length, 32 bits, then "NAME=value"
          16  gain, 1/256 dB, 16 bits
          18  mapping: 0 = one Opus stream, mono or stereo
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import field, frozen, validators

from trio_gateway.errors import BadOgg

__all__ = ["OpusHead", "OpusTags"]

_HEAD: Final = struct.Struct("<8sBBHIhB")
_HEAD_MAGIC: Final = b"OpusHead"
_TAGS_MAGIC: Final = b"OpusTags"
_LENGTH: Final = struct.Struct("<I")


@frozen(kw_only=True)
class OpusHead:
    """The first header.

    Attributes:
        channels: 1 or 2.
        pre_skip: Samples at 48 kHz to drop at the beginning: the encoder's lookahead, or more.
        input_rate: Hz, of what was encoded; for people to know. 0 = not said.
        gain: To be applied after decoding, in 1/256 dB.
    """

    channels: int = field(default=1, validator=validators.in_((1, 2)))
    pre_skip: int = field(validator=[validators.ge(0), validators.lt(1 << 16)])
    input_rate: int = field(default=0, validator=[validators.ge(0), validators.lt(1 << 32)])
    gain: int = field(default=0, validator=[validators.ge(-1 << 15), validators.lt(1 << 15)])

    def to_bytes(self) -> bytes:
        """The packet."""
        return _HEAD.pack(
            _HEAD_MAGIC, 1, self.channels, self.pre_skip, self.input_rate, self.gain, 0
        )

    @classmethod
    def from_untrusted(cls, packet: bytes) -> OpusHead:
        """Parse the packet.

        Raises:
            BadOgg: It is none, or of a kind that is not read (more than two channels).
        """
        if not packet.startswith(_HEAD_MAGIC):
            raise BadOgg("is Ogg, but not Opus")
        if len(packet) < _HEAD.size:
            raise BadOgg("its Opus header is cut off")
        _, version, channels, pre_skip, rate, gain, mapping = _HEAD.unpack_from(packet)
        if version >> 4:  # the upper half counts incompatible changes
            raise BadOgg(f"Opus header version {version}; 1 is known")
        if mapping or channels not in (1, 2):
            raise BadOgg(f"{channels} channels with mapping {mapping}; mono and stereo are read")
        return cls(channels=channels, pre_skip=pre_skip, input_rate=rate, gain=gain)


@frozen
class OpusTags:
    """The second header: who wrote the file, and what people say about it."""

    vendor: str = "trio-gateway"
    comments: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The packet."""
        vendor, *comments = (text.encode() for text in (self.vendor, *self.comments))
        parts = [_TAGS_MAGIC, _LENGTH.pack(len(vendor)), vendor, _LENGTH.pack(len(comments))]
        for comment in comments:
            parts += [_LENGTH.pack(len(comment)), comment]
        return b"".join(parts)

    @classmethod
    def from_untrusted(cls, packet: bytes) -> OpusTags:
        """Parse the packet; what is not UTF-8 becomes U+FFFD.

        Raises:
            BadOgg: It is none.
        """
        if not packet.startswith(_TAGS_MAGIC):
            raise BadOgg("has no tags after its Opus header")
        try:
            vendor, at = _text(packet, len(_TAGS_MAGIC))
            (count,) = _LENGTH.unpack_from(packet, at)
            at += _LENGTH.size
            comments = []
            for _ in range(count):
                comment, at = _text(packet, at)
                comments.append(comment)
        except (struct.error, IndexError) as error:
            raise BadOgg("its tags are cut off") from error
        return cls(vendor, tuple(comments))


def _text(packet: bytes, at: int) -> tuple[str, int]:
    """Return the text with its length in front at `at`, and where it ends."""
    (length,) = _LENGTH.unpack_from(packet, at)
    end = at + _LENGTH.size + length
    if end > len(packet):
        raise IndexError
    return packet[at + _LENGTH.size : end].decode("utf-8", "replace"), end
