"""A device as its firmware is: what it says, what it believes, what it drops. Without I/O.

Rule 1 (fw >= 2.4.0): a datagram with `sequence <= last`, or of another length than its header says,
is dropped. There is no reordering and no concealment.
Rule 2: audio is taken in the Speaking state only, which `tts start` opens and `tts stop` ends; what
is still in the speaker's queue then is never heard.
Rule 3: the device never subscribes, and a hello answer with one bad field is as good as none.

Simpler than a device: in auto and realtime mode a real one says `listen start` again as soon as it
has finished playing; this one stays idle until its user speaks again.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import define, field

from trio_gateway.core.cipher import KEY_BYTES, AudioCipher
from trio_gateway.core.control import DEFAULT_DOWNLINK, DEFAULT_UPLINK, parse_message_untrusted
from trio_gateway.core.packet import HEADER_BYTES, parse_datagram_untrusted
from trio_gateway.errors import BadMessage
from trio_gateway.simulator import tools
from trio_gateway.simulator.channel import Channel, parse_channel_untrusted
from trio_gateway.simulator.speaker import Speaker

if TYPE_CHECKING:
    from trio_gateway.core.control import AudioParams, Message

__all__ = ["Device", "DeviceCounters", "Mode", "Playback", "State"]

Mode: TypeAlias = Literal["auto", "manual", "realtime"]

_LENGTH: Final = struct.Struct(">H")  # at byte 2 of the header
_TIMESTAMP_AND_SEQUENCE: Final = struct.Struct(">II")  # at byte 8
_MAX_MISSING: Final = 1024
# Sequences remembered as missing, to tell late packets from repeated ones; a guess: a minute.
_MAX_GAP: Final = 50  # frames, 3 s: whoever leaves out more has lost the call anyway


class State(Enum):
    """What the firmware calls its device state, as far as it matters here."""

    IDLE = "idle"
    LISTENING = "listening"
    SPEAKING = "speaking"


@define(eq=False)
class Playback:
    """One reply, from `tts start` to `tts stop`.

    Attributes:
        audio: How it is coded.
        packets: What the speaker took: sequence and Opus packet.
        ended: Whether `tts stop` has come.
    """

    audio: AudioParams
    packets: list[tuple[int, bytes]] = field(factory=list, repr=False)
    ended: bool = False

    def sequence(self) -> list[bytes | None]:
        """Return the packets in order, None where one is missing; of a long gap, its beginning."""
        packets: list[bytes | None] = []
        expected = self.packets[0][0] if self.packets else 0
        for sequence, packet in self.packets:
            packets += [None] * min(sequence - expected, _MAX_GAP)
            packets.append(packet)
            expected = sequence + 1
        return packets


@define
class DeviceCounters:
    """Frames of one device by what became of them."""

    up: int = 0
    """Sent, before the simulated network."""
    down: int = 0
    """Taken by the speaker."""
    lost: int = 0
    """Sequences that never came, up to the last one that did."""
    late: int = 0
    """Came after their successors: dropped by rule 1."""
    repeated: int = 0
    """Came a second time: dropped by rule 1."""
    malformed: int = 0
    """Not a datagram of the protocol: dropped."""
    unexpected: int = 0
    """Came outside of the Speaking state: dropped by rule 2."""


class Device:
    """One device, from power-on to its goodbye.

    Args:
        client_id: GROUP@@@mac@@@uuid.

    Attributes:
        state: Idle, listening or speaking.
        channel: The open audio channel, or None.
        playback: The reply that is being or was last played.
        counters: What became of its frames.
        refusal: Why there is no channel, in words, when the gateway said so or its answer was bad.
        dismissed: Whether the gateway said goodbye since the last hello.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.state = State.IDLE
        self.channel: Channel | None = None
        self.playback: Playback | None = None
        self.counters = DeviceCounters()
        self.speaker = Speaker(DEFAULT_DOWNLINK.frame_ms / 1000)
        self.refusal = ""
        self.dismissed = False
        self._mode: Mode = "auto"
        self._cipher = AudioCipher(bytes(KEY_BYTES))
        self._header = bytearray(HEADER_BYTES)
        self._sent = 0
        self._received = 0
        self._missing: set[int] = set()

    @property
    def session_id(self) -> str:
        """Of the open channel; empty without one."""
        return self.channel.session_id if self.channel else ""

    # ------------------------------------------------------------------- what it says

    def hello(self) -> Message:
        """Ask for an audio channel; an open one is forgotten."""
        self._close()
        self.refusal = ""
        self.dismissed = False
        return {
            "type": "hello",
            "version": 3,
            "transport": "udp",
            "features": {"mcp": True},
            "audio_params": DEFAULT_UPLINK.to_message(),
        }

    def listen_start(self, mode: Mode) -> Message:
        """Open the microphone."""
        self.state = State.LISTENING
        self._mode = mode
        self.playback = None
        return self._message("listen", state="start", mode=mode)

    def listen_stop(self) -> Message:
        """Close it."""
        return self._message("listen", state="stop")

    def goodbye(self) -> Message:
        """Close the channel."""
        message = self._message("goodbye")
        self._close()
        return message

    def seal(self, opus: bytes) -> bytes:
        """Return the datagram for one packet of speech. Its timestamp is 0 (no server-side AEC)."""
        self._sent += 1
        self.counters.up += 1
        head = self._header
        _LENGTH.pack_into(head, 2, len(opus))
        _TIMESTAMP_AND_SEQUENCE.pack_into(head, 8, 0, self._sent)
        iv = bytes(head)
        return iv + self._cipher.apply(iv, opus)

    # ------------------------------------------------------------------- what it hears

    def receive_message_untrusted(self, payload: bytes, now: float) -> Message | None:
        """Take one message from the gateway.

        Returns:
            What the device answers at once, if it does.

        Raises:
            BadMessage: The firmware would log it and go on.
        """
        message = parse_message_untrusted(payload)
        kind = message.get("type")
        if kind == "hello":
            self._open_untrusted(message)
        elif kind == "goodbye" and message.get("session_id") == self.session_id:
            self.dismissed = True
            self._close()
        elif kind == "tts":
            self._tts(message.get("state"), now)
        elif kind == "alert":
            self.refusal = f"{message.get('status')}: {message.get('message')}"
        elif kind == "mcp":
            answer = tools.answer(message.get("payload"))
            return answer and {"session_id": self.session_id, "type": "mcp", "payload": answer}
        return None

    def receive_datagram_untrusted(self, data: bytes, now: float) -> bool:
        """Take one datagram; whether the speaker plays it.

        Raises:
            BadPacket: Rule 1, for its length or its type.
        """
        if self.channel is None:
            return False
        packet = parse_datagram_untrusted(data)
        if not self._in_sequence(packet.sequence):
            return False
        if self.state is not State.SPEAKING or self.playback is None:
            self.counters.unexpected += 1
            return False
        if not self.speaker.push(now):
            return False
        self.playback.packets.append(
            (packet.sequence, self._cipher.apply(packet.iv, packet.payload))
        )
        self.counters.down += 1
        return True

    # ------------------------------------------------------------------------- details

    def _message(self, kind: str, **fields: str) -> Message:
        return {"session_id": self.session_id, "type": kind, **fields}

    def _close(self) -> None:
        self.channel = None
        self.state = State.IDLE

    def _open_untrusted(self, message: Message) -> None:
        try:
            channel = parse_channel_untrusted(message)
        except BadMessage as error:
            self.refusal = f"hello answer: {error}"
            raise
        self.channel = channel
        self.speaker.frame_s = channel.audio.frame_ms / 1000
        self._cipher = AudioCipher(channel.key)
        self._header[:] = channel.nonce
        self._sent = self._received = 0
        self._missing.clear()

    def _in_sequence(self, sequence: int) -> bool:
        if sequence <= self._received:
            if sequence in self._missing:
                self._missing.discard(sequence)
                self.counters.late += 1
                self.counters.lost -= 1
            else:
                self.counters.repeated += 1
            return False
        gap = sequence - self._received - 1
        self.counters.lost += gap
        self._missing.update(range(sequence - min(gap, _MAX_MISSING), sequence))
        while len(self._missing) > _MAX_MISSING:
            self._missing.remove(min(self._missing))
        self._received = sequence
        return True

    def _tts(self, state: object, now: float) -> None:
        if state == "start" and self.channel is not None and self.state is not State.SPEAKING:
            self.state = State.SPEAKING
            self.speaker.start()
            self.playback = Playback(self.channel.audio)
        elif state == "stop" and self.state is State.SPEAKING and self.playback is not None:
            unheard = self.speaker.stop(now)
            if unheard:
                del self.playback.packets[-unheard:]
            self.playback.ended = True
            self.state = State.IDLE if self._mode == "manual" else State.LISTENING
