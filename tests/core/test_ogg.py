"""Ogg pages, beside those of mutagen, which others wrote. (It does not look at checksums.)"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from attrs import evolve
from other_ogg import OggPage

from trio_gateway.core.ogg import NO_GRANULE, Page, PageReader, paginated, segments_of
from trio_gateway.errors import BadOgg

PACKETS = [b"", b"a" * 254, b"b" * 255, b"c" * 256, b"d" * 70_000]


def page(number: int = 0, *, packet: bytes = b"packet", first: bool | None = None) -> Page:
    return Page(
        serial=7,
        sequence=number,
        granule=number,
        first=number == 0 if first is None else first,
        lengths=segments_of(packet),
        body=packet,
    )


def stream(packets: list[bytes]) -> list[Page]:
    pages: list[Page] = []
    for packet in packets:
        blank = Page(
            serial=7, sequence=len(pages), granule=9, first=not pages, lengths=b"", body=b""
        )
        pages += paginated(packet, blank)
    return pages


def read(data: bytes, max_packet_bytes: int = 100_000) -> list[bytes]:
    reader = PageReader(max_packet_bytes)
    packets = [packet for _, ended in reader.receive_untrusted(data) for packet in ended]
    reader.finish_untrusted()
    return packets


def theirs(page: Page) -> Any:
    return OggPage(BytesIO(page.to_bytes()))


def test_our_pages_are_theirs_byte_for_byte() -> None:
    pages = stream(PACKETS)
    assert len(pages) == len(PACKETS) + 1, "70,000 bytes take two"
    for ours in pages:
        assert theirs(ours).write() == ours.to_bytes()
    assert OggPage.to_packets([theirs(ours) for ours in pages], strict=True) == PACKETS


def test_we_read_their_pages() -> None:
    pages = OggPage.from_packets(PACKETS)
    pages[0].first = True
    assert len(pages) > 10, "they fill a page with several packets, and begin the next one there"
    assert read(b"".join(page.write() for page in pages)) == PACKETS


def test_how_the_bytes_are_cut_does_not_matter() -> None:
    data = b"".join(page.to_bytes() for page in stream(PACKETS))
    reader = PageReader(100_000)
    seen = [page for byte in data for page, _ in reader.receive_untrusted(bytes([byte]))]
    assert seen == stream(PACKETS)


def test_a_packet_that_goes_on_and_one_that_ends_full() -> None:
    first, second = stream([bytes(65_025)])
    assert (len(first.lengths), first.granule, first.continued) == (255, NO_GRANULE, False)
    assert (second.lengths, second.granule, second.continued) == (b"\x00", 9, True)


@pytest.mark.parametrize("at", [5, 10, 15, 20, 24, 26, 27, 30])
def test_one_wrong_bit_is_seen(at: int) -> None:
    data = bytearray(page().to_bytes() + page(1).to_bytes())
    data[at] ^= 4
    with pytest.raises(BadOgg):
        read(bytes(data))


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([page(first=False)], "does not begin"),
        ([page(), page(2)], "page 2 follows page 0"),
        ([page(), page(0, first=False)], "page 0 follows page 0"),
        ([page(), page(1, first=True)], "more than one stream"),
        ([page(), evolve(page(1), serial=8)], "more than one stream"),
        ([page(), evolve(page(1), last=True), page(2)], "goes on after its last page"),
        ([page(), evolve(page(1), continued=True)], "does not go on"),
        ([stream([bytes(65_025)])[0], page(1)], "does not go on"),
        ([evolve(page(), granule=NO_GRANULE)], "what time"),
        ([page(), evolve(stream([bytes(65_025)])[0], first=False, sequence=1)], "inside a packet"),
        (
            [page(), evolve(stream([bytes(65_025)])[0], first=False, sequence=1, last=True)],
            "the last page ends inside",
        ),
        ([], "is empty"),
    ],
)
def test_what_is_refused(pages: list[Page], reason: str) -> None:
    with pytest.raises(BadOgg, match=reason):
        read(b"".join(page.to_bytes() for page in pages))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"Once upon a time", "no Ogg page"),
        (page().to_bytes() + b"junk", "no Ogg page"),
        (b"OggS\x01" + page().to_bytes()[5:], "version 1"),
        (page().to_bytes()[:3], "inside a page"),
        (page().to_bytes()[:-1], "inside a page"),
    ],
)
def test_what_is_no_page(data: bytes, reason: str) -> None:
    with pytest.raises(BadOgg, match=reason):
        read(data)


def test_a_packet_without_end_takes_no_memory_without_end() -> None:
    data = b"".join(page.to_bytes() for page in stream([bytes(300_000)]))
    with pytest.raises(BadOgg, match="more than 100000 bytes"):
        read(data)


def test_pages_before_a_bad_one_are_good() -> None:
    reader = PageReader(1000)
    pages = reader.receive_untrusted(page().to_bytes() + b"junk")
    assert next(pages) == (page(), [b"packet"])
    with pytest.raises(BadOgg):
        next(pages)
