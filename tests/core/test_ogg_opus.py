"""Ogg/Opus files; opus-tools' own and mutagen's readings of them are in test_transcode.py."""

from __future__ import annotations

from io import BytesIO

import pytest
from attrs import evolve
from other_ogg import OggOpus

from trio_gateway.core.ogg import Page, paginated, segments_of
from trio_gateway.core.ogg_opus import AudioPacket, OpusReader, OpusWriter
from trio_gateway.core.opus_headers import OpusHead, OpusTags
from trio_gateway.errors import BadOgg

HEAD = OpusHead(pre_skip=312, input_rate=16000, gain=-256)
TAGS = OpusTags("me", ("ARTIST=Goethe", "TITLE=Über allen Gipfeln"))
MS_20 = bytes([31 << 3]) + b"sound"  # 960 samples
MS_60 = bytes([3 << 3]) + b"sound"  # 2880


def file_of(
    packets: list[bytes],
    samples: int | None = None,
    *,
    head: OpusHead = HEAD,
    tags: OpusTags = TAGS,
) -> bytes:
    writer = OpusWriter(head, tags, serial=7)
    return b"".join(
        [writer.headers(), *(writer.write(packet) for packet in packets), writer.finish(samples)]
    )


def read(data: bytes) -> tuple[OpusReader, list[AudioPacket]]:
    reader = OpusReader()
    packets = list(reader.receive_untrusted(data))
    reader.finish_untrusted()
    return reader, packets


def audio_page(number: int, granule: int, *packets: bytes, last: bool = False) -> bytes:
    return Page(
        serial=7,
        sequence=number,
        granule=granule,
        last=last,
        lengths=b"".join(map(segments_of, packets)),
        body=b"".join(packets),
    ).to_bytes()


HEADERS = OpusWriter(HEAD, TAGS, serial=7).headers()


def test_what_is_written_is_read() -> None:
    packets = [MS_60, MS_20] * 30
    data = file_of(packets, 114_000)
    reader, read_packets = read(data)
    assert (reader.head, reader.tags, reader.played) == (HEAD, TAGS, 114_000)
    assert [packet.data for packet in read_packets] == packets
    assert sum(packet.samples for packet in read_packets) == 30 * (2880 + 960)


def test_mutagen_reads_it() -> None:
    info = OggOpus(BytesIO(file_of([MS_60] * 17, 48_000)))
    assert info.info.length == 1.0
    assert info.info.channels == 1
    assert dict(info.tags) == {"artist": ["Goethe"], "title": ["Über allen Gipfeln"]}


def test_pages_of_a_second_and_the_last_one_marked() -> None:
    writer = OpusWriter(HEAD, serial=7)
    sizes = [len(writer.write(MS_60)) for _ in range(40)]
    assert [index for index, size in enumerate(sizes) if size] == [16, 32]
    assert writer.finish()[5] == 4


def test_a_recording_that_breaks_off_is_a_file() -> None:
    writer = OpusWriter(HEAD, serial=7)
    broken = writer.headers() + b"".join(writer.write(MS_20) for _ in range(120))
    reader, packets = read(broken)
    assert len(packets) == 100
    assert reader.played == 96_000 - 312


def test_long_pre_skip_and_end_trimming_go_over_several_packets() -> None:
    head = evolve(HEAD, pre_skip=1000)
    reader, packets = read(HEADERS_WITH_1000 + audio_page(2, 2500, *[MS_20] * 5, last=True))
    assert reader.head == head
    assert [(packet.skip, packet.trim) for packet in packets] == [
        (960, 0),
        (40, 0),
        (0, 380),
        (0, 960),
        (0, 960),
    ]
    assert reader.played == 1500


HEADERS_WITH_1000 = OpusWriter(evolve(HEAD, pre_skip=1000), TAGS, serial=7).headers()


def test_a_stream_that_was_joined_late() -> None:
    reader, packets = read(HEADERS + audio_page(2, 100_960, MS_20) + audio_page(3, 101_920, MS_20))
    assert reader.played == 1920 - 312
    assert packets[0].skip == 312


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEADERS[:60], "ends inside"),
        (HEADERS[: HEADERS.index(b"OggS", 4)], "after its first header"),
        (HEADERS + audio_page(2, 960, b""), "not Opus"),
        (HEADERS + audio_page(2, 960, bytes(61_441)), "61441 bytes"),
        (HEADERS + audio_page(2, 959, MS_20), "begins before 0"),
        (HEADERS + audio_page(2, 960, MS_20) + audio_page(3, 1919, MS_20), "time says 959"),
        (HEADERS + audio_page(2, 960, MS_20) + audio_page(3, 1921, MS_20), "time says 961"),
        (
            HEADERS + audio_page(2, 960, MS_20) + audio_page(3, 959, MS_20, last=True),
            "time says -1",
        ),
        (HEADERS + audio_page(2, 960, MS_20) + audio_page(3, 900, last=True), "the page before"),
    ],
)
def test_files_that_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadOgg, match=reason):
        read(data)


def test_an_empty_last_page_is_one() -> None:
    reader, packets = read(HEADERS + audio_page(2, 960, MS_20) + audio_page(3, 960, last=True))
    assert reader.played == 960 - 312
    assert len(packets) == 1
    assert read(file_of([]))[1] == []


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x01vorbis" + bytes(23), "not Opus"),
        (HEAD.to_bytes()[:18], "cut off"),
        (HEAD.to_bytes()[:8] + b"\x10" + HEAD.to_bytes()[9:], "version 16"),
        (HEAD.to_bytes()[:9] + b"\x03" + HEAD.to_bytes()[10:], "3 channels"),
        (HEAD.to_bytes()[:18] + b"\x01", "mapping 1"),
    ],
)
def test_first_headers_that_are_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(BadOgg, match=reason):
        OpusHead.from_untrusted(packet)


@pytest.mark.parametrize("end", range(8, len(TAGS.to_bytes())))
def test_tags_that_are_cut_off(end: int) -> None:
    with pytest.raises(BadOgg, match="cut off"):
        OpusTags.from_untrusted(TAGS.to_bytes()[:end])


def test_tags_with_more_behind_them_or_without_any() -> None:
    assert OpusTags.from_untrusted(TAGS.to_bytes() + b"padding") == TAGS
    with pytest.raises(BadOgg, match="has no tags"):
        OpusTags.from_untrusted(MS_20)


def test_tags_over_several_pages() -> None:
    tags = OpusTags("me", ("METADATA_BLOCK_PICTURE=" + "A" * 200_000,))
    reader, packets = read(file_of([MS_20], tags=tags))
    assert reader.tags == tags
    assert len(packets) == 1
    head, *_ = paginated(
        HEAD.to_bytes(), Page(serial=7, sequence=0, granule=0, lengths=b"", body=b"")
    )
    together = evolve(head, first=True, lengths=head.lengths * 2, body=head.body * 2)
    with pytest.raises(BadOgg, match="pages of their own"):
        read(together.to_bytes())


def test_what_the_writer_does_not_take() -> None:
    writer = OpusWriter(HEAD, serial=7)
    with pytest.raises(ValueError, match="not Opus"):
        writer.write(b"")
    for _ in range(51):
        writer.write(MS_20)
    for samples in 48_000 - 313, 51 * 960 - 311:
        with pytest.raises(ValueError, match="can be"):
            writer.finish(samples)
    assert writer.finish(48_000 - 311)
