"""The example that transcodes a folder, read back by what others wrote: mutagen and opus-tools."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import opuslib_next
import pytest
import trio
from components import find
from example_programs import EXAMPLES, load
from opus_reference import ReferenceDecoder, ReferenceEncoder, speech
from other_ogg import OggOpus

from trio_gateway.core.ogg_opus import OpusReader, OpusWriter
from trio_gateway.core.opus_headers import OpusHead, OpusTags

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKAHEAD = 312  # libopus at any rate: 6.5 ms


def write_file(
    path: Path, packets: list[bytes], samples: int, *, channels: int = 1, gain: int = 0
) -> None:
    head = OpusHead(channels=channels, pre_skip=LOOKAHEAD, input_rate=16000, gain=gain)
    tags = OpusTags("test", ("ARTIST=Goethe", "ENCODER=opusenc"))
    writer = OpusWriter(head, tags, serial=1)
    pages = [writer.headers(), *map(writer.write, packets), writer.finish(samples)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pages))


def mono(path: Path, samples: int, *, padding: int = 0, gain: int = 0, noise: bool = False) -> None:
    """A file of `samples` samples at 48 kHz, in packets of 20 ms, and `padding` to be trimmed."""
    encoder = ReferenceEncoder(48000, bitrate=64000)
    padded = -(-(samples + padding + LOOKAHEAD) // 960) * 960
    pcm = speech(padded)
    if noise:
        pcm = np.random.default_rng(1).normal(0, 3000, padded).astype(np.int16)
    packets = [encoder.encode(frame) for frame in pcm.reshape(-1, 960)]
    write_file(path, packets, samples, gain=gain)


def stereo(path: Path, left: NDArray[np.int16], right: NDArray[np.int16]) -> None:
    encoder = opuslib_next.Encoder(48000, 2, opuslib_next.APPLICATION_AUDIO)
    pcm = np.stack([left, right], 1).reshape(-1, 960, 2)
    packets = [encoder.encode(frame.tobytes(), 960) for frame in pcm]
    write_file(path, packets, len(left) - LOOKAHEAD, channels=2)


def heard(path: Path) -> NDArray[np.int16]:
    """What a player would play, by opuslib's own decoder."""
    reader = OpusReader()
    decoder = ReferenceDecoder(48000)
    pcm = [
        decoder.decode(packet.data)[packet.skip : packet.samples - packet.trim]
        for packet in reader.receive_untrusted(path.read_bytes())
    ]
    reader.finish_untrusted()
    return np.concatenate(pcm)


def lag(one: NDArray[np.int16], other: NDArray[np.int16]) -> int:
    """Samples by which `other` is late."""
    size = 2 * len(one)
    product = np.conj(np.fft.rfft(one, size)) * np.fft.rfft(other, size)
    at = int(np.argmax(np.fft.irfft(product)))
    return at if at < len(one) else at - size


@pytest.fixture(scope="module")
def transcode() -> Any:
    return load("transcode").main


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_the_same_speech_at_another_bitrate(transcode: Any, tmp_path: Path, rate: int) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    lengths = {"a.opus": 100_003, "b/c.ogg": 60 * 48, "b/d/e.opus": 1}
    for name, samples in lengths.items():
        mono(source / name, samples)
    options = ["--rate", str(rate), "--bitrate", "24000", "--workers", "2", "--complexity", "5"]
    assert transcode([str(source), str(target), *options]) == 0
    assert {str(path.relative_to(target)) for path in target.rglob("*.o*")} == set(lengths)
    for name, samples in lengths.items():
        file = OggOpus(target / name)
        assert file.info.length == samples / 48000
        assert dict(file.tags) == {"artist": ["Goethe"]}, "not who encoded the source"
        assert len(heard(target / name)) == samples
    original, result = heard(source / "a.opus"), heard(target / "a.opus")
    assert abs(lag(original, result)) <= 3, "0.06 ms"
    assert np.corrcoef(original, result)[0, 1] > 0.9
    assert (target / "a.opus").stat().st_size < (source / "a.opus").stat().st_size / 2


def test_stereo_is_averaged(
    transcode: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = speech(48000)
    stereo(tmp_path / "from/both.opus", voice, voice)
    stereo(tmp_path / "from/left.opus", voice, np.zeros_like(voice))
    assert transcode([str(tmp_path / "from"), str(tmp_path / "to"), "--bitrate", "64000"]) == 0
    assert "2 of them mixed down" in capsys.readouterr().err
    both, left = (
        heard(tmp_path / "to" / name).astype(float) for name in ("both.opus", "left.opus")
    )
    assert OggOpus(tmp_path / "to/left.opus").info.channels == 1
    assert 1.8 < both.std() / left.std() < 2.2


def test_packets_that_are_trimmed_away_whole(transcode: Any, tmp_path: Path) -> None:
    mono(tmp_path / "from/a.opus", 49000, padding=46000)
    assert transcode([str(tmp_path / "from"), str(tmp_path / "to")]) == 0
    assert len(heard(tmp_path / "to/a.opus")) == 49000


def test_no_packet_is_kept_small_for_a_network(transcode: Any, tmp_path: Path) -> None:
    mono(tmp_path / "from/loud.opus", 48000, noise=True)
    transcode([str(tmp_path / "from"), str(tmp_path / "to"), "--bitrate", "256000"])
    reader = OpusReader()
    packets = list(reader.receive_untrusted((tmp_path / "to/loud.opus").read_bytes()))
    assert max(len(packet.data) for packet in packets) > 1500


def test_the_gain_stays(transcode: Any, tmp_path: Path) -> None:
    mono(tmp_path / "from/quiet.opus", 48000, gain=-1536)
    transcode([str(tmp_path / "from"), str(tmp_path / "to")])
    reader = OpusReader()
    list(reader.receive_untrusted((tmp_path / "to/quiet.opus").read_bytes()))
    assert reader.head.gain == -1536


def test_bad_files_are_named_and_skipped(
    transcode: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    mono(source / "good.opus", 48000)
    good = (source / "good.opus").read_bytes()
    (source / "cut.opus").write_bytes(good[:-1])
    (source / "flipped.opus").write_bytes(good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
    (source / "text.ogg").write_text("Once upon a time")
    write_file(source / "long.opus", [bytes([28 << 3 | 3, 48]) + bytes(48 * 1275)], 500)
    write_file(source / "silent.opus", [], -LOOKAHEAD)
    assert transcode([str(source), str(target)]) == 1
    report = capsys.readouterr().err
    for line in (
        "cut.opus: ends inside a page\n",
        "flipped.opus: page 2 is damaged: its checksum is wrong\n",
        "long.opus: a packet of 61202 bytes; 1 to 8192 are possible\n",
        "text.ogg: no Ogg page where one should begin\n",
        "2 transcoded (0 of them mixed down from stereo), 4 skipped\n",
    ):
        assert line in report
    assert {path.name for path in target.iterdir()} == {"good.opus", "silent.opus"}
    assert len(heard(target / "silent.opus")) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["from", "to"],  # nothing there
        ["from", "from/to"],
        ["from", "to", "--bitrate", "1"],
        ["from", "to", "--workers", "0"],
        ["from", "to", "--rate", "44100"],
    ],
)
def test_what_makes_no_sense_is_said(
    transcode: Any, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("from").mkdir()
    with pytest.raises(SystemExit) as left:
        transcode(arguments)
    assert left.value.code == 2


async def test_ctrl_c_leaves_whole_files_only(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    mono(source / "0.opus", 48000 * 30)
    for number in range(1, 40):
        (source / f"{number}.opus").symlink_to(source / "0.opus")
    command = [sys.executable, str(EXAMPLES / "transcode.py"), str(source), str(target)]
    command += ["--workers", "1"]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, command, check=False, stderr=subprocess.DEVNULL)
            )
            while not list(target.glob(".*.part")):  # noqa: ASYNC110  another process
                await trio.sleep(0.01)
            process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert len(list(target.iterdir())) < 40
    for path in target.iterdir():
        assert len(heard(path)) == 48000 * 30


def run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603  our own


def test_opus_tools_agree(transcode: Any, tmp_path: Path) -> None:
    """Their encoder made the source, and their player plays the result for as long."""
    source, target = tmp_path / "from/a.opus", tmp_path / "to/a.opus"
    source.parent.mkdir()
    opusenc, opusdec, opusinfo = (
        find(name, "opus-tools") for name in ("opusenc", "opusdec", "opusinfo")
    )
    run(opusenc, "--quiet", EXAMPLES.parent / "trio_gateway/speech/goforward.wav", source)
    assert transcode([str(source.parent), str(target.parent)]) == 0
    report = run(opusinfo, target).decode()
    assert "WARNING" not in report
    assert "Pre-skip: 312" in report
    lengths = [len(run(opusdec, "--quiet", path, "-")) for path in (source, target)]
    assert lengths[0] == lengths[1] > 80_000
