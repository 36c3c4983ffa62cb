"""Ogg pages (RFC 3533): a packet goes into pages and comes out of them whole, or not at all.

    byte 0   "OggS"
         4   version: 0
         5   flags: 1 the first packet began on an earlier page, 2 first page, 4 last page
         6   granule position, 64 bits signed: the codec's time at the end of the last packet that
             ends on this page; -1 if none does
        14   serial number of the logical stream, 32 bits
        18   sequence number of the page, 32 bits
        22   CRC-32 of the page with these four bytes 0
        26   number of segments, then the length of each: one byte
             then the segments

A packet is as many segments of 255 bytes as it fills and one that is shorter (0 bytes, if need be);
a page that ends in a segment of 255 bytes leaves its last packet open. All numbers little-endian.

Rule 1: nothing is guessed. A byte between pages, a wrong checksum, a missing page or a second
stream ends the reading with BadOgg. RFC 3533 lets a reader search for the next page; then a file
with a hole looks like one that is shorter.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from trio_gateway.errors import BadOgg

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_SEGMENTS", "NO_GRANULE", "Page", "PageReader", "paginated", "segments_of"]

NO_GRANULE: Final = -1
MAX_SEGMENTS: Final = 255
_FULL: Final = 255

_HEADER: Final = struct.Struct("<4sBBqIIIB")
_MAGIC: Final = b"OggS"
_CONTINUED: Final = 1
_FIRST: Final = 2
_LAST: Final = 4
_CRC_AT: Final = slice(22, 26)

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _crc(page: bytes) -> int:
    """Return Ogg's CRC-32: zlib's polynomial, most significant bit first, from 0 and not inverted.

    zlib takes the least significant bit first and inverts: mirror what goes in and what comes out,
    and undo the inversions. That is 140 times as fast as a table in Python.
    """
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_MIRRORED), "big")


@frozen(kw_only=True)
class Page:
    """One page.

    Attributes:
        serial: Of its logical stream.
        sequence: Counts a stream's pages from 0.
        granule: NO_GRANULE, or the codec's time at the end of the last packet that ends here.
        first: Begins the stream.
        last: Ends the stream.
        continued: Its first segments belong to a packet that began on an earlier page.
        lengths: Of its segments.
        body: The segments.
    """

    serial: int
    sequence: int
    granule: int = NO_GRANULE
    first: bool = False
    last: bool = False
    continued: bool = False
    lengths: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        """The page as it stands in the file."""
        flags = _CONTINUED * self.continued | _FIRST * self.first | _LAST * self.last
        page = bytearray(
            _HEADER.pack(
                _MAGIC, 0, flags, self.granule, self.serial, self.sequence, 0, len(self.lengths)
            )
        )
        page += self.lengths + self.body
        page[_CRC_AT] = _crc(bytes(page)).to_bytes(4, "little")
        return bytes(page)


def segments_of(packet: bytes) -> bytes:
    """Return the lengths of the segments that `packet` takes."""
    return bytes([_FULL]) * (len(packet) // _FULL) + bytes([len(packet) % _FULL])


def paginated(packet: bytes, page: Page) -> list[Page]:
    """Spread a packet over pages of its own, from `page.sequence` on; the last has the granule."""
    lengths = segments_of(packet)
    pages: list[Page] = []
    for start in range(0, len(lengths), MAX_SEGMENTS):
        part = lengths[start : start + MAX_SEGMENTS]
        ends = start + MAX_SEGMENTS >= len(lengths)
        pages.append(
            evolve(
                page,
                sequence=page.sequence + len(pages),
                granule=page.granule if ends else NO_GRANULE,
                first=page.first and not pages,
                continued=bool(pages),
                lengths=part,
                body=packet[start * _FULL : start * _FULL + sum(part)],
            )
        )
    return pages


class PageReader:
    """Bytes in, in pieces of any size; pages of one logical stream out, with whole packets."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes
        self._buffer = bytearray()
        self._previous: Page | None = None
        self._packet = bytearray()  # the beginning of one that goes on
        self._open = False

    def receive_untrusted(self, data: bytes) -> Iterator[tuple[Page, list[bytes]]]:
        """Yield each page that is complete now, with the packets that end on it.

        Raises:
            BadOgg: See Rule 1.
        """
        self._buffer += data
        while (page := self._next_untrusted()) is not None:
            self._follow_untrusted(page)
            yield page, self._packets_untrusted(page)

    def finish_untrusted(self) -> None:
        """The file ends here.

        Raises:
            BadOgg: In the middle of a page or a packet, or before the first page.
        """
        if self._buffer:
            raise BadOgg("ends inside a page")
        if self._open:
            raise BadOgg("ends inside a packet")
        if self._previous is None:
            raise BadOgg("is empty")

    def _next_untrusted(self) -> Page | None:
        buffer = self._buffer
        if not _MAGIC.startswith(buffer[:4]):
            raise BadOgg("no Ogg page where one should begin")
        if len(buffer) < _HEADER.size:
            return None
        _, version, flags, granule, serial, sequence, crc, count = _HEADER.unpack_from(buffer)
        if version != 0:
            raise BadOgg(f"Ogg version {version}; 0 is known")
        lengths = bytes(buffer[_HEADER.size : _HEADER.size + count])
        start = _HEADER.size + count
        end = start + sum(lengths)
        if len(lengths) < count or len(buffer) < end:
            return None
        whole = buffer[:end]
        whole[_CRC_AT] = bytes(4)
        if _crc(bytes(whole)) != crc:
            raise BadOgg(f"page {sequence} is damaged: its checksum is wrong")
        del buffer[:end]
        return Page(
            serial=serial,
            sequence=sequence,
            granule=granule,
            first=bool(flags & _FIRST),
            last=bool(flags & _LAST),
            continued=bool(flags & _CONTINUED),
            lengths=lengths,
            body=bytes(whole[start:]),
        )

    def _follow_untrusted(self, page: Page) -> None:
        previous = self._previous
        self._previous = page
        if previous is None:
            if not page.first or page.continued:
                raise BadOgg("does not begin with the first page of a stream")
        elif page.first or page.serial != previous.serial:
            raise BadOgg("holds more than one stream; files with one are read")
        elif previous.last:
            raise BadOgg("goes on after its last page")
        elif page.sequence != (previous.sequence + 1) & 0xFFFFFFFF:
            raise BadOgg(f"page {page.sequence} follows page {previous.sequence}")
        if page.continued != self._open:
            raise BadOgg(f"page {page.sequence} does not go on where the one before it ends")

    def _packets_untrusted(self, page: Page) -> list[bytes]:
        packets = []
        start = 0
        for length in page.lengths:
            self._packet += page.body[start : start + length]
            start += length
            self._open = length == _FULL
            if not self._open:
                packets.append(bytes(self._packet))
                self._packet.clear()
            elif len(self._packet) > self._max_packet_bytes:
                raise BadOgg(f"a packet of more than {self._max_packet_bytes} bytes")
        if packets and page.granule == NO_GRANULE:
            raise BadOgg(f"page {page.sequence} does not say what time it is")
        if page.last and self._open:
            raise BadOgg("the last page ends inside a packet")
        return packets
