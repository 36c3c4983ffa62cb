"""Transcode a folder of Ogg/Opus files to another bitrate, many at once, through one worker pool.

    python examples/transcode.py SOURCE_DIR TARGET_DIR --bitrate 16000

Files that cannot be read are named with the reason and skipped. A file in TARGET_DIR is whole or it
is not there. Stereo is mixed down: the pool's codecs are mono, and a mono Opus decoder averages the
two channels (RFC 6716, 2.1.2). Exit code: 0, 1 if a file was skipped, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio
from attrs import define, evolve
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trio_gateway import PoolSettings, open_worker_pool
from trio_gateway.core.ogg_opus import OpusReader, OpusWriter
from trio_gateway.core.opus_headers import OpusTags
from trio_gateway.core.pcm import FrameCutter
from trio_gateway.errors import BadOgg, CodecError, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    from numpy.typing import NDArray

    from trio_gateway import Encoder, WorkerPool
    from trio_gateway.core.ogg_opus import AudioPacket

    Write: TypeAlias = Callable[[bytes], Awaitable[int]]

OGG_RATE = 48000  # in which Ogg counts, whatever the rate of the codec
FRAME_MS = 60  # a third of the packets that 20 ms would make, and of what each costs
PACKET_BYTES = FRAME_MS // 20 * 1275  # the most that Opus makes of it; no network is in the way
CHUNK_BYTES = 1 << 16
SUFFIXES = {".opus", ".ogg", ".oga"}
SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)
MAX_WORKERS = 64  # PoolSettings allows no more

# A file has one frame in the pool at a time: with more files than workers, each worker finds work
# while some files are read or written. How many more is a guess.
FILES_PER_WORKER = 4

INTERRUPTED = 128 + signal.SIGINT  # what a shell makes of it


@define
class Transcoder:
    """All files of one run.

    Attributes:
        pool: Does the codec work.
        console: Hears of files that fail.
        rate: Hz, of decoders and encoders. No tone above half of it survives.
        bitrate: bit/s of the new files.
        complexity: 0 to 10, of the encoders.
        bytes_read: Of all files so far.
        done: Files transcoded.
        failed: Files skipped.
        stereo: Files mixed down.
    """

    pool: WorkerPool
    console: Console
    rate: int
    bitrate: int
    complexity: int
    bytes_read: int = 0
    done: int = 0
    failed: int = 0
    stereo: int = 0

    async def take(self, jobs: Iterator[tuple[Path, Path]]) -> None:
        """Transcode files until there are no more. Several tasks share the iterator."""
        for source, target in jobs:
            try:
                await self.transcode(source, target)
            # ValueError: one of its packets is longer than the pool takes.
            except (BadOgg, CodecError, OSError, ValueError, WorkerFailed) as error:
                self.failed += 1
                self.console.print(f"{source}: {error}", markup=False, soft_wrap=True)
            else:
                self.done += 1

    async def transcode(self, source: Path, target: Path) -> None:
        """Transcode one file."""
        with (
            appearing_whole(target) as part,
            self.pool.decoder(self.rate) as decoder,
            self.pool.encoder(
                self.rate,
                complexity=self.complexity,
                bitrate=self.bitrate,
                max_packet_bytes=PACKET_BYTES,
            ) as encoder,
        ):
            async with (
                await trio.open_file(source, "rb") as file,
                await trio.open_file(part, "wb") as out,
            ):
                reader = OpusReader()
                recording = Recording(encoder, reader, out.write)
                unread = (await trio.Path(source).stat()).st_size
                try:
                    while data := await file.read(CHUNK_BYTES):
                        for packet in reader.receive_untrusted(data):
                            pcm = await decoder.decode(packet.data)
                            await recording.add(played(pcm, packet, self.rate))
                        self.bytes_read += len(data)
                        unread -= len(data)
                finally:
                    self.bytes_read += unread
                reader.finish_untrusted()
                await recording.finish()
        self.stereo += reader.head.channels > 1


def played(pcm: NDArray[np.int16], packet: AudioPacket, rate: int) -> NDArray[np.int16]:
    """Cut off what the file says is not to be played."""
    begin = packet.skip * rate // OGG_RATE
    return pcm[begin : len(pcm) - packet.trim * rate // OGG_RATE]


class Recording:
    """One file on its way out, a frame at a time: memory does not grow with its length.

    An encoder is late by its lookahead, so the file tells players to skip that much, and silence of
    that length pushes the last samples out of the encoder.
    """

    def __init__(self, encoder: Encoder, source: OpusReader, write: Write) -> None:
        self._encoder = encoder
        self._source = source
        self._write = write
        self._cutter = FrameCutter(encoder.rate, encoder.rate, encoder.rate * FRAME_MS // 1000)
        self._writer: OpusWriter | None = None

    async def add(self, pcm: NDArray[np.int16]) -> None:
        """Encode some samples."""
        await self._encode(self._cutter.push(pcm))

    async def finish(self) -> None:
        """Complete the file: it lasts as long as its source, which has been read to its end."""
        await self.add(np.zeros(self._encoder.lookahead, np.int16))
        await self._encode(self._cutter.finish())
        writer = await self._begun()
        await self._write(writer.finish(self._source.played))

    async def _encode(self, frames: Iterator[NDArray[np.int16]]) -> None:
        writer = await self._begun()
        for frame in frames:
            page = writer.write(await self._encoder.encode(frame))
            if page:
                await self._write(page)

    async def _begun(self) -> OpusWriter:
        """Write the headers, which say what those of the source do, as soon as those are there."""
        if self._writer is None:
            pre_skip = self._encoder.lookahead * OGG_RATE // self._encoder.rate
            head = evolve(self._source.head, channels=1, pre_skip=pre_skip)
            comments = self._source.tags.comments
            tags = OpusTags(comments=tuple(c for c in comments if not c.startswith("ENCODER")))
            self._writer = OpusWriter(head, tags, serial=secrets.randbits(32))
            await self._write(self._writer.headers())
        return self._writer


@contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """Where to write `target`: it gets its name when it is complete, and vanishes if that fails.

    Nothing is awaited in here: when cancelled, it could not be.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


async def show(bar: Progress, transcoder: Transcoder, files: int, total_bytes: int) -> None:
    """Draw the progress bar ten times a second, and once at the end."""
    begun = trio.current_time()
    task = bar.add_task("", total=total_bytes)

    def draw() -> None:
        statistics = transcoder.pool.statistics()
        finished = transcoder.done + transcoder.failed
        rate = statistics.frames / (trio.current_time() - begun + 0.001)
        workers = f"{len(statistics.workers)} {statistics.kind} workers"
        text = f"{finished}/{files} files, {rate:,.0f} frames/s, {workers}"
        bar.update(task, completed=transcoder.bytes_read, description=text, refresh=True)

    try:
        while True:
            draw()
            await trio.sleep(0.1)
    finally:
        draw()


async def transcode_all(
    jobs: list[tuple[Path, Path]], options: argparse.Namespace, console: Console
) -> int:
    """Return the exit code."""
    total_bytes = sum(source.stat().st_size for source, _ in jobs)
    settings = PoolSettings(min_workers=options.workers, max_workers=options.workers)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    async with open_worker_pool(settings) as pool:
        transcoder = Transcoder(pool, console, options.rate, options.bitrate, options.complexity)
        with Progress(*columns, console=console, auto_refresh=False) as bar:
            async with trio.open_nursery() as display:
                display.start_soon(show, bar, transcoder, len(jobs), total_bytes)
                async with trio.open_nursery() as files:
                    shared = iter(jobs)
                    for _ in range(FILES_PER_WORKER * options.workers):
                        files.start_soon(transcoder.take, shared)
                display.cancel_scope.cancel()
    console.print(
        f"{transcoder.done} transcoded ({transcoder.stereo} of them mixed down from stereo), "
        f"{transcoder.failed} skipped",
        highlight=False,
    )
    return 1 if transcoder.failed else 0


async def until_interrupted(job: Callable[[], Awaitable[int]]) -> int:
    """Run `job`. Ctrl-C cancels it, and so strikes at an `await` and nowhere between."""
    code = INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                async for _ in interrupts:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(cancel)
            code = await job()
            nursery.cancel_scope.cancel()
    return code


def parse(arguments: list[str]) -> tuple[list[tuple[Path, Path]], argparse.Namespace]:
    """Return (source, target) of each file, and the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source_dir", type=Path)
    parser.add_argument("target_dir", type=Path)
    parser.add_argument("--bitrate", type=int, default=16000, help="bit/s, 6000 to 256000")
    parser.add_argument("--rate", type=int, default=OGG_RATE, choices=SAMPLE_RATES, help="Hz")
    parser.add_argument("--complexity", type=int, default=10, choices=range(11))
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, MAX_WORKERS))
    options = parser.parse_args(arguments)
    if not 6000 <= options.bitrate <= 256000:  # noqa: PLR2004  what libopus keeps for mono
        parser.error(f"--bitrate {options.bitrate}: 6000 to 256000 bit/s are possible")
    if not 1 <= options.workers <= MAX_WORKERS:
        parser.error(f"--workers {options.workers}: 1 to {MAX_WORKERS} are possible")
    if options.target_dir.resolve().is_relative_to(options.source_dir.resolve()):
        parser.error("TARGET_DIR lies in SOURCE_DIR: it would be transcoded, too")
    sources = sorted(
        path
        for path in options.source_dir.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not sources:
        parser.error(f"no {', '.join(sorted(SUFFIXES))} files in {options.source_dir}")
    jobs = [
        (source, options.target_dir / source.relative_to(options.source_dir)) for source in sources
    ]
    return jobs, options


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    jobs, options = parse(arguments)
    console = Console(stderr=True)
    try:
        code = trio.run(until_interrupted, partial(transcode_all, jobs, options, console))
    except KeyboardInterrupt:  # a second one, when the first had ended everything
        code = INTERRUPTED
    if code == INTERRUPTED:
        console.print("interrupted; what is in TARGET_DIR is whole")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
