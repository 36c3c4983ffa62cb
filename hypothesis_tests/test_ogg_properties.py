"""Invariant: a file is read as it was written, however it is cut; any other bytes are BadOgg."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from other_ogg import OggPage

from trio_gateway.core.ogg import PageReader
from trio_gateway.core.ogg_opus import AudioPacket, OpusReader, OpusWriter
from trio_gateway.core.opus_headers import OpusHead, OpusTags
from trio_gateway.core.opus_packet import duration_untrusted
from trio_gateway.errors import BadOgg

HEADS = st.builds(
    OpusHead,
    channels=st.sampled_from([1, 2]),
    pre_skip=st.one_of(st.integers(0, 4000), st.integers(0, 65535)),
    input_rate=st.integers(0, 2**32 - 1),
    gain=st.integers(-32768, 32767),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
TAGS = st.builds(OpusTags, TEXTS, st.lists(TEXTS, max_size=4).map(tuple))
# One frame: any first byte with c = 0, and anything up to 1275 bytes behind it (RFC 6716, R2).
PACKETS = st.builds(
    lambda config, stereo, size: bytes([config << 3 | stereo << 2]) + b"x" * size,
    st.integers(0, 31),
    st.booleans(),
    st.one_of(st.integers(0, 1275), st.sampled_from([253, 254, 255, 509, 510])),
)


def written(head: OpusHead, tags: OpusTags, packets: list[bytes], samples: int | None) -> bytes:
    writer = OpusWriter(head, tags, serial=1)
    pages = [writer.headers(), *map(writer.write, packets), writer.finish(samples)]
    return b"".join(pages)


def last_page_samples(packets: list[bytes]) -> int:
    """Samples on the last page, by the rules: a second at most, and 255 segments."""
    samples = segments = 0
    for packet in packets:
        more, longer = duration_untrusted(packet), len(packet) // 255 + 1
        if samples and (samples + more > 48_000 or segments + longer > 255):
            samples = segments = 0
        samples, segments = samples + more, segments + longer
    return samples


def played(head: OpusHead, durations: list[int], stop: int) -> list[tuple[int, int]]:
    """(skip, trim) of each packet, sample by sample: kept are those from pre-skip to `stop`."""
    marks = []
    start = 0
    for duration in durations:
        end = start + duration
        trim = end - max(start, min(end, stop))
        skip = max(0, min(end - trim, head.pre_skip) - start)
        marks.append((skip, trim))
        start = end
    return marks


@given(HEADS, TAGS, st.lists(PACKETS, max_size=120), st.data())
def test_what_is_written_is_read(
    head: OpusHead, tags: OpusTags, packets: list[bytes], data: st.DataObject
) -> None:
    durations = [duration_untrusted(packet) for packet in packets]
    total = sum(durations)
    trim = data.draw(st.integers(0, max(0, last_page_samples(packets) - 1)), "trim")
    file = written(head, tags, packets, total - trim - head.pre_skip)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(file)), max_size=10), "cuts"))
    reader = OpusReader()
    seen: list[AudioPacket] = []
    for start, end in pairwise([0, *cuts, len(file)]):
        seen += reader.receive_untrusted(file[start:end])
    reader.finish_untrusted()
    assert (reader.head, reader.tags) == (head, tags)
    assert [packet.data for packet in seen] == packets
    assert [packet.samples for packet in seen] == durations
    assert [(packet.skip, packet.trim) for packet in seen] == played(head, durations, total - trim)
    assert reader.played == max(0, total - trim - head.pre_skip)


@given(HEADS, TAGS, st.lists(PACKETS, max_size=60))
def test_mutagen_reads_the_same_pages(head: OpusHead, tags: OpusTags, packets: list[bytes]) -> None:
    file = written(head, tags, packets, None)
    stream = BytesIO(file)
    theirs = []
    while stream.tell() < len(file):
        theirs.append(OggPage(stream))
    assert OggPage.to_packets(theirs) == [head.to_bytes(), tags.to_bytes(), *packets]
    assert b"".join(page.write() for page in theirs) == file, "checksums, too"


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=20), st.integers(255, 5000))
def test_pages_of_mutagen_are_read(packets: list[bytes], page_size: int) -> None:
    pages = OggPage.from_packets(packets, default_size=page_size)
    pages[0].first = True
    reader = PageReader(10_000)
    data = b"".join(page.write() for page in pages)
    assert [packet for _, ended in reader.receive_untrusted(data) for packet in ended] == packets
    reader.finish_untrusted()


@given(st.lists(PACKETS, max_size=30), st.data())
def test_bytes_of_anybody_are_a_file_or_refused(packets: list[bytes], data: st.DataObject) -> None:
    """Pages are made right again after the change, or a checksum would keep all else unseen."""
    file = bytearray(written(OpusHead(pre_skip=312), OpusTags(), packets, None))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert", "drop"])):
            case "change":
                file[at] = data.draw(st.integers(0, 255))
            case "cut":
                del file[at:]
            case "insert":
                file[at:at] = data.draw(st.binary(max_size=40))
            case _:
                del file[at : at + data.draw(st.integers(1, 40))]
        if not file:
            return
    read_all(bytes(file))
    read_all(mended(bytes(file)))


@given(st.binary(max_size=200))
def test_headers_of_anybody_are_headers_or_refused(data: bytes) -> None:
    for parse in (OpusHead.from_untrusted, OpusTags.from_untrusted):
        for magic in (b"", b"OpusHead", b"OpusTags"):
            try:
                parse(magic + data)
            except BadOgg:
                continue


def read_all(file: bytes) -> None:
    reader = OpusReader()
    samples = 0
    try:
        for packet in reader.receive_untrusted(file):
            assert packet.skip >= 0
            assert packet.trim >= 0
            assert packet.skip + packet.trim <= packet.samples
            samples += packet.samples - packet.skip - packet.trim
        reader.finish_untrusted()
    except BadOgg:
        pass
    assert reader.played == samples


def mended(file: bytes) -> bytes:
    """The same with right checksums, as far as mutagen sees pages."""
    stream, pages = BytesIO(file), []
    while True:
        try:
            page = OggPage(stream)
            pages.append(page.write())
        except Exception:  # noqa: BLE001  mutagen's, and whatever else a broken page makes of it
            return b"".join(pages)
