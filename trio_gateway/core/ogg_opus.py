"""Opus in Ogg files (RFC 7845): two headers, then packets, and which of their samples are played.

Rule 1: time is counted in samples at 48 kHz whatever the rate of the codec. The granule position of
a page is what a decoder has put out by its end. The first `pre_skip` samples are the encoder's
start-up and are not played; what the decoder puts out beyond the last page's granule is padding.
Rule 2: the writer holds a page back until the next packet comes, since the last page must be marked
as the last and say where to stop. A recording that breaks off lacks less than that page, and is
valid without it: RFC 7845 wants readers to live without a page marked so.
Rule 3: a file of whose samples the times disagree is refused. Some writers of calls leave such
holes; a reader that closes them moves all that follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from trio_gateway.core.ogg import (
    MAX_SEGMENTS,
    NO_GRANULE,
    Page,
    PageReader,
    paginated,
    segments_of,
)
from trio_gateway.core.opus_headers import OpusHead, OpusTags
from trio_gateway.core.opus_packet import SAMPLE_RATE, duration_untrusted
from trio_gateway.errors import BadOgg, BadPacket

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AudioPacket", "OpusReader", "OpusWriter"]

MAX_TAGS_BYTES: Final = 16 << 20
"""A guess: cover pictures are in there. RFC 7845 section 6 suggests a limit of 120 MiB."""

MAX_AUDIO_BYTES: Final = 61440
"""RFC 7845 section 6: no packet of one stream needs more, however it is padded."""

_BOTH: Final = 2  # headers


@frozen
class AudioPacket:
    """One packet and which of its samples are played. All counts at 48 kHz.

    Attributes:
        data: The packet.
        samples: What it decodes to.
        skip: Not to be played, at its beginning: pre-skip.
        trim: Not to be played, at its end: padding of the last frame.
    """

    data: bytes
    samples: int
    skip: int = 0
    trim: int = 0


class OpusReader:
    """The bytes of a file in, in pieces of any size; packets out.

    Attributes:
        head: The first header; it is there before the first packet is yielded.
        tags: The second, likewise.
        played: Samples at 48 kHz to be played in the packets so far.
    """

    head: OpusHead
    tags: OpusTags

    def __init__(self) -> None:
        self.played = 0
        self._pages = PageReader(MAX_TAGS_BYTES)
        self._headers = 0  # read so far
        self._granule: int | None = None  # at the end of the previous page of audio
        self._skip = 0  # of pre-skip, still to come

    def receive_untrusted(self, data: bytes) -> Iterator[AudioPacket]:
        """Yield the packets of the pages that are complete now.

        Raises:
            BadOgg: This is not, or no longer, a file that can be read. What was yielded is good.
        """
        for page, packets in self._pages.receive_untrusted(data):
            if self._headers == _BOTH:
                yield from self._audio_untrusted(page, packets)
            elif packets or page.first:
                self._header_untrusted(packets)

    def finish_untrusted(self) -> None:
        """The file ends here.

        Raises:
            BadOgg: In the middle of something, or before both headers.
        """
        self._pages.finish_untrusted()
        if self._headers < _BOTH:
            raise BadOgg("ends after its first header")

    def _header_untrusted(self, packets: list[bytes]) -> None:
        if len(packets) != 1:
            raise BadOgg("does not have its headers on pages of their own")
        if not self._headers:
            self.head = OpusHead.from_untrusted(packets[0])
            self._skip = self.head.pre_skip
        else:
            self.tags = OpusTags.from_untrusted(packets[0])
        self._headers += 1

    def _audio_untrusted(self, page: Page, packets: list[bytes]) -> Iterator[AudioPacket]:
        """Tell from a page's time and that of the page before which samples are played."""
        if not packets:
            if page.last and page.granule not in (NO_GRANULE, self._granule or 0):
                raise BadOgg("its last page trims packets of the page before")
            return
        durations = [_duration_untrusted(packet) for packet in packets]
        samples = sum(durations)
        if self._granule is None:  # a stream joined late begins at another time than 0
            trimmed = page.last and page.granule < samples
            self._granule = 0 if trimmed else page.granule - samples
        left = page.granule - self._granule
        if self._granule < 0:
            raise BadOgg(f"page {page.sequence} begins before 0")
        if left != samples and not (page.last and 0 <= left < samples):
            raise BadOgg(f"page {page.sequence} holds {samples} samples; its time says {left}")
        self._granule = page.granule
        for packet, duration in zip(packets, durations, strict=True):
            kept = min(duration, left)
            skip = min(kept, self._skip)
            left -= kept
            self._skip -= skip
            self.played += kept - skip
            yield AudioPacket(packet, duration, skip, duration - kept)


class OpusWriter:
    """Packets in, the bytes of a file out, to be written one after another.

    Args:
        head: The first header.
        tags: The second.
        serial: Any 32-bit number, a random one to be able to join files.
        page_samples: A page has no more at 48 kHz, unless a single packet does. One second is what
            libopusenc does: longer pages save nothing, and a recording that breaks off loses one.
    """

    def __init__(
        self,
        head: OpusHead,
        tags: OpusTags | None = None,
        *,
        serial: int,
        page_samples: int = SAMPLE_RATE,
    ) -> None:
        self._head = head
        self._tags = tags or OpusTags()
        self._page_samples = page_samples
        self._next = Page(serial=serial, sequence=0, granule=0, lengths=b"", body=b"")
        self._samples = 0  # on pages handed out
        self._lengths = bytearray()  # of the page at work
        self._body = bytearray()
        self._pending = 0  # samples on it

    def headers(self) -> bytes:
        """The beginning of the file; to be called first, once."""
        head = paginated(self._head.to_bytes(), evolve(self._next, first=True))
        pages = head + paginated(self._tags.to_bytes(), evolve(self._next, sequence=len(head)))
        self._next = evolve(self._next, sequence=len(pages))
        return b"".join(page.to_bytes() for page in pages)

    def write(self, packet: bytes) -> bytes:
        """Take a packet; return the page that it does not fit on any more, or nothing.

        Raises:
            ValueError: It is not Opus.
        """
        try:
            samples = _duration_untrusted(packet)
        except BadOgg as error:
            raise ValueError(str(error)) from error
        lengths = segments_of(packet)
        full = (
            self._pending + samples > self._page_samples
            or len(self._lengths) + len(lengths) > MAX_SEGMENTS
        )
        page = self._page() if full and self._pending else b""
        self._lengths += lengths
        self._body += packet
        self._pending += samples
        return page

    def finish(self, samples: int | None = None) -> bytes:
        """Return the last page.

        Args:
            samples: To be played of the whole file, at 48 kHz; None = to the last packet's end.

        Raises:
            ValueError: There are fewer, or so few that earlier pages are too long already.
        """
        written = self._samples + self._pending
        granule = written if samples is None else self._head.pre_skip + samples
        if not self._samples <= granule <= written:
            raise ValueError(
                f"{granule} samples with pre-skip; {self._samples} to {written} can be"
            )
        return self._page(granule)

    def _page(self, last_granule: int | None = None) -> bytes:
        self._samples += self._pending
        page = evolve(
            self._next,
            granule=self._samples if last_granule is None else last_granule,
            last=last_granule is not None,
            lengths=bytes(self._lengths),
            body=bytes(self._body),
        )
        self._next = evolve(self._next, sequence=page.sequence + 1)
        self._lengths.clear()
        self._body.clear()
        self._pending = 0
        return page.to_bytes()


def _duration_untrusted(packet: bytes) -> int:
    if len(packet) > MAX_AUDIO_BYTES:
        raise BadOgg(f"a packet of {len(packet)} bytes")
    try:
        return duration_untrusted(packet)
    except BadPacket as error:
        raise BadOgg(f"a packet is not Opus: {error}") from error
