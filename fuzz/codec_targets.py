"""Ways in around the codec: Ogg files, and what workers report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_office import FakeWorker, Office
from fuzzing import Feed, Take, Target, record, refusable
from link_call import opus

from trio_gateway.core.ogg_opus import OpusReader, OpusWriter
from trio_gateway.core.opus_headers import OpusHead, OpusTags
from trio_gateway.errors import BadOgg, WorkerFailed
from trio_gateway.workers.wire import COMPLETION, TICKET

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CODEC_TARGETS"]


def open_ogg() -> Feed:
    """A reader that gets the file in pieces; another one when it has refused it."""

    def feed(data: bytes) -> None:
        take, reader = Take(data), OpusReader()
        step = 1 + take.number(2)
        rest = take.rest()
        for start in range(0, len(rest), step):
            for packet in reader.receive_untrusted(rest[start : start + step]):
                assert 0 <= packet.skip + packet.trim <= packet.samples
        reader.finish_untrusted()
        assert reader.head.channels in (1, 2)

    return feed


def ogg_seeds() -> Iterator[bytes]:
    """A small file, in big and in small pieces."""
    for tags in (OpusTags(), OpusTags("v" * 300, ("TITLE=x",) * 3)):
        writer = OpusWriter(OpusHead(pre_skip=312), tags, serial=7, page_samples=9000)
        pages = [writer.headers(), *(writer.write(opus(number)) for number in range(20))]
        whole = b"".join([*pages, writer.finish(57_000)])
        yield b"\x00\x10" + whole
        yield b"\xff\xff" + whole


def open_opus_headers() -> Feed:
    """The two headers without the pages around them; a page's checksum keeps fuzzers out."""

    def feed(data: bytes) -> None:
        with refusable(BadOgg):
            head = OpusHead.from_untrusted(data)
            assert OpusHead.from_untrusted(head.to_bytes()) == head
        tags = OpusTags.from_untrusted(data)
        assert OpusTags.from_untrusted(tags.to_bytes()) == tags

    return feed


def opus_header_seeds() -> Iterator[bytes]:
    """One of each."""
    yield OpusHead(pre_skip=312).to_bytes()
    yield OpusTags("me", ("TITLE=x", "ARTIST=y")).to_bytes()


def open_worker() -> Feed:
    """A dispatcher and a worker that reports anything: one of ours, and not believed blindly."""

    def feed(data: bytes) -> None:
        office, worker = Office(), FakeWorker()
        office.hire(worker)
        stream = office.stream()
        take = Take(data)
        office.submit(stream, *map(str, range(take.number() % 16)))
        while take.more:
            if take.number() % 2:
                number = worker.tickets[0][1] if worker.tickets else 0
                office.dispatcher.completed_untrusted(worker, COMPLETION.pack(number, 960, 1))
                worker.pipe = worker.pipe[TICKET.size :]
            else:
                office.dispatcher.completed_untrusted(worker, take.block())

    return feed


def worker_seeds() -> Iterator[bytes]:
    """Good reports, torn ones, and lies."""
    yield bytes([8]) + b"\x01" * 8
    report = COMPLETION.pack(0, 960, 1)
    yield bytes([8]) + record(0, report[:5], 0, report[5:])
    yield bytes([8]) + record(0, COMPLETION.pack(3, 960, 1))


CODEC_TARGETS = (
    Target(
        name="ogg",
        open=open_ogg,
        refusal=BadOgg,
        covers=(
            "core.ogg:PageReader.receive_untrusted",
            "core.ogg:PageReader.finish_untrusted",
            "core.ogg:PageReader._next_untrusted",
            "core.ogg:PageReader._follow_untrusted",
            "core.ogg:PageReader._packets_untrusted",
            "core.ogg_opus:OpusReader.receive_untrusted",
            "core.ogg_opus:OpusReader.finish_untrusted",
            "core.ogg_opus:OpusReader._header_untrusted",
            "core.ogg_opus:OpusReader._audio_untrusted",
            "core.ogg_opus:_duration_untrusted",
        ),
        seeds=ogg_seeds,
    ),
    Target(
        name="opus_headers",
        open=open_opus_headers,
        refusal=BadOgg,
        covers=(
            "core.opus_headers:OpusHead.from_untrusted",
            "core.opus_headers:OpusTags.from_untrusted",
        ),
        seeds=opus_header_seeds,
    ),
    Target(
        name="worker",
        open=open_worker,
        refusal=WorkerFailed,
        covers=(
            "workers.dispatch:Dispatcher.completed_untrusted",
            "workers.lane:Lane.completions_untrusted",
        ),
        seeds=worker_seeds,
    ),
)
