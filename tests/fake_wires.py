"""The ways to a device and back, without a network: what is sent is kept, with its time."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field, frozen
from fake_pool import packet, value_of

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.packet import header, parse_datagram_untrusted

if TYPE_CHECKING:
    from trio_gateway.interfaces import Address

__all__ = ["HOME", "FakeFront", "FakeSender", "Frame", "Voice", "words"]

HOME: Address = ("192.0.2.1", 40000)


@define(eq=False)
class FakeFront:
    """A control front: keeps (time, client id, message)."""

    sent: list[tuple[float, str, dict[str, Any]]] = field(factory=list)
    reachable: bool = True

    def send(self, client_id: str, payload: bytes) -> bool:
        if self.reachable:
            self.sent.append((trio.current_time(), client_id, json.loads(payload)))
        return self.reachable

    def take(self) -> list[dict[str, Any]]:
        """The messages since the last call."""
        messages = [message for _, _, message in self.sent]
        del self.sent[:]
        return messages


@frozen
class Frame:
    """One frame to a device."""

    time: float
    value: int
    to: Address
    sequence: int
    timestamp_ms: int
    flags: int


@define(eq=False)
class FakeSender:
    """A UDP plane: keeps the frames."""

    key: bytes
    frames: list[Frame] = field(factory=list)
    full: bool = False

    def send(self, data: bytes, addr: Address) -> bool:
        if not self.full:
            sealed = parse_datagram_untrusted(data)
            value = value_of(AudioCipher(self.key).apply(sealed.iv, sealed.payload))
            self.frames.append(
                Frame(
                    trio.current_time(),
                    value,
                    addr,
                    sealed.sequence,
                    sealed.timestamp_ms,
                    sealed.flags,
                )
            )
        return not self.full

    @property
    def values(self) -> list[int]:
        return [frame.value for frame in self.frames]


@define
class Voice:
    """A device's microphone: makes the datagrams of a session."""

    key: bytes
    nonce: bytes
    sequence: int = 0

    def say(self, value: int) -> bytes:
        """The next datagram: a frame full of `value`."""
        return self.say_packet(packet(value))

    def say_packet(self, opus: bytes) -> bytes:
        self.sequence += 1
        (ssrc,) = struct.unpack_from(">I", self.nonce, 4)
        head = header(ssrc, payload_len=len(opus), sequence=self.sequence)
        return head + AudioCipher(self.key).apply(head, opus)

    def lose(self, frames: int = 1) -> None:
        """Frames that never arrive."""
        self.sequence += frames


def words(messages: list[dict[str, Any]]) -> list[str]:
    """Messages as short words: "tts start", "goodbye"."""
    return [" ".join([m["type"], *([m["state"]] if "state" in m else [])]) for m in messages]
