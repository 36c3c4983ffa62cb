"""The settings of the audio plane: datagrams, codec, pacing."""
# ruff: noqa: RUF009  # setting() makes an attrs field, not a shared value

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import frozen

from trio_gateway.settings.rules import (
    Choice,
    Instance,
    Number,
    Optional,
    Text,
    Whole,
    require,
    setting,
)
from trio_gateway.settings.values import ADDRESS_WORDS, Address

__all__ = ["AudioSettings", "UdpSettings"]

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz; RFC 6716 section 2
OPUS_FRAMES = (
    10,
    20,
    40,
    60,
    80,
    100,
    120,
)  # ms; a packet holds at most 120 (RFC 6716 section 2.1.4)


@frozen
class UdpSettings:
    """The audio plane."""

    SECTION: ClassVar[str] = "udp"

    listen: Address = setting(
        Address("127.0.0.1", 8884),
        Instance(Address, ADDRESS_WORDS),
        unit="",
        help="Where audio datagrams arrive, and leave from.",
        why="Loopback until somebody decides otherwise; 8884 is the port of the gateways in use.",
    )
    public_host: str | None = setting(
        None,
        Optional(Text("a host name or IP address", lambda text: not set(text) & set(" /@[]"))),
        unit="",
        help="Host that devices are told to send audio to. none = the host of `listen`.",
        why="none: right whenever `listen` names one interface and there is no NAT.",
    )
    public_port: int | None = setting(
        None,
        Optional(Whole(1, 65535)),
        unit="",
        help="Port that devices are told. none = the port that was bound.",
        why="none: right without port forwarding.",
    )
    receive_buffer_bytes: int = setting(
        2 * 1024 * 1024,
        Whole(4096, 1 << 30),
        unit="bytes",
        help="SO_RCVBUF that is asked for. Linux grants at most net.core.rmem_max; a warning tells "
        "when that is less.",
        why="1,000 sessions are 16,700 datagrams/s; 100 ms of them at about 1,280 bytes of kernel "
        "memory each are 2 MiB.",
    )
    batch: int = setting(
        64,
        Whole(1, 4096),
        unit="datagrams",
        help="Read at one wake-up before other tasks get a turn.",
        why="1.9 us for each was measured, so reading 64 takes 0.1 ms.",
    )
    strangers_per_session: float = setting(
        20.0,
        Number(1, 100_000),
        unit="datagrams/s",
        help="What a session hears from elsewhere than its device's address, and at once. Half of "
        "that from one address.",
        why="A device that has moved needs two. Measured: of random datagrams with a live ssrc, "
        "about 200 move a session whose device is silent; at 20,000/s that takes 10 ms.",
    )
    refused_per_address: float = setting(
        20.0,
        Number(1, 100_000),
        unit="datagrams/s",
        help="What one address (IPv6: /64) may have refused, and at once, until it is not heard "
        "any more by sessions whose device is elsewhere.",
        why="A guess. Devices that move have none refused, however many are behind one NAT.",
    )

    def __attrs_post_init__(self) -> None:
        require(
            self,
            "every interface is no address to send to: name the host for devices (--public-host)",
            "listen",
            "public_host",
            holds=not self.listen.is_wildcard or self.public_host is not None,
        )


@frozen
class AudioSettings:
    """Codec, pacing, loss, and when somebody has stopped speaking."""

    SECTION: ClassVar[str] = "audio"

    uplink_rate: int = setting(
        16000,
        Choice(*OPUS_RATES),
        unit="Hz",
        help="Rate of the PCM that sessions hear, whatever the device sends.",
        why="Devices record at 16 kHz; more would add nothing.",
    )
    sample_format: Literal["int16", "float32"] = setting(
        "int16",
        Choice("int16", "float32"),
        unit="",
        help="What sessions hear: int16, or float32 in [-1, 1), each sample / 32768. Either can be "
        "played.",
        why="int16 is what libopus gives. Speech models mostly want float32: 1 us a frame, exact "
        "both ways.",
    )
    downlink_rate: int = setting(
        24000,
        Choice(*OPUS_RATES),
        unit="Hz",
        help="Rate that devices are told and sent.",
        why="The firmware's default.",
    )
    downlink_frame_ms: int = setting(
        60,
        Choice(*OPUS_FRAMES),
        unit="ms",
        help="Frame length that devices are told and sent.",
        why="The firmware's default.",
    )
    application: Literal["audio", "voip"] = setting(
        "audio",
        Choice("audio", "voip"),
        unit="",
        help="What the Opus encoder is told to expect. voip filters out what lies below speech and "
        "prefers the coder for speech: below a `complexity` of 7 even for music.",
        why="Measured (docs/audio.md), PESQ of speech at complexity 7: audio 4.42, voip 4.30, at "
        "the same cost.",
    )
    complexity: int = setting(
        7,
        Whole(0, 10),
        unit="",
        help="Effort of the Opus encoder. Below 7 it does not analyse the signal: `application` "
        "alone chooses the coder, for audio at 24 kbit/s the one made for music.",
        why="Measured (docs/audio.md), PESQ of speech and CPU for 60 ms: 3.93 and 90 us at 5, 4.42 "
        "and 370 us at 7, 4.45 and 430 us at 10.",
    )
    bitrate: int | None = setting(
        24000,
        Optional(Whole(6000, 510_000)),
        unit="bit/s",
        help="Of the audio sent to devices. none = libopus chooses.",
        why="RFC 6716 2.1.1: 16 to 20 kbit/s for wideband, 28 to 40 for fullband speech; 24 kHz "
        "lies between.",
    )
    lead_frames: int = setting(
        2,
        Whole(0, 4),
        unit="frames",
        help="How far ahead of play-out frames are sent.",
        why="Bursts of 5 crash small boards (xiaozhi-esp32-server issue 3349).",
    )
    guard: float = setting(
        0.060,
        Number(0, 2),
        unit="s",
        help="Between `tts start` and the first frame, and between the last one's play-out and "
        "`tts stop`: the device drops audio outside of them.",
        why="Guess: one frame.",
    )
    reorder_wait: float = setting(
        0.060,
        Number(0, 2),
        unit="s",
        help="How long a missing uplink frame is waited for before it is concealed.",
        why="Measured (docs/audio.md): it repairs jitter up to its own length and one frame, here "
        "120 ms; each gap delays one frame by so much.",
    )
    max_gap_frames: int = setting(
        10,
        Whole(0, 100),
        unit="frames",
        help="Largest gap that is concealed frame by frame; what a longer one holds is skipped.",
        why="Guess: 600 ms. Concealment has faded to silence long before.",
    )
    tail_wait: float = setting(
        0.060,
        Number(0, 2),
        unit="s",
        help="After `listen stop`, how long last frames may still arrive; and how long first ones "
        "wait for their `listen start`.",
        why="Guess: one frame. Control and audio take different paths.",
    )
    voice_threshold_dbfs: float = setting(
        -45.0,
        Number(-96, 0),
        unit="dBFS",
        help="A frame whose RMS is above this counts as voice (echo backend, auto mode).",
        why="Guess: above a quiet room's noise, below soft speech. -96 is 16-bit silence.",
    )
    voice_pause: float = setting(
        0.8,
        Number(0, 10, closed=False),
        unit="s",
        help="Silence after voice that ends an utterance (echo backend, auto mode).",
        why="Guess: pauses within a sentence are mostly shorter than half a second.",
    )
