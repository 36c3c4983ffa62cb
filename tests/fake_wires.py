"""The ways to a device and back, without a network: what is sent is kept, with its time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field, frozen
from fake_pool import packet, value_of

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.packet import header, parse_datagram_untrusted

if TYPE_CHECKING:
    from trio_gateway.interfaces import Address

__all__ = ["HOME", "FakeDevice", "FakeFront", "FakeSender", "Frame", "words"]

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


@define(eq=False)
class FakeSender:
    """A UDP plane: keeps (time, datagram, address)."""

    sent: list[tuple[float, bytes, Address]] = field(factory=list)
    full: bool = False

    def send(self, data: bytes, addr: Address) -> bool:
        if not self.full:
            self.sent.append((trio.current_time(), data, addr))
        return not self.full


@frozen
class Frame:
    """One frame as a device hears it."""

    time: float
    value: int
    sequence: int
    timestamp_ms: int


@define
class FakeDevice:
    """A device's audio, by the key and nonce that a hello answer told it."""

    key: bytes
    nonce: bytes
    sequence: int = 0

    @classmethod
    def of(cls, answer: dict[str, Any]) -> FakeDevice:
        """The device that got this hello answer."""
        return cls(bytes.fromhex(answer["udp"]["key"]), bytes.fromhex(answer["udp"]["nonce"]))

    @property
    def ssrc(self) -> int:
        return int.from_bytes(self.nonce[4:8], "big")

    def say(self, value: int) -> bytes:
        """The next datagram: a frame full of `value`."""
        return self.say_packet(packet(value))

    def say_packet(self, opus: bytes) -> bytes:
        self.sequence += 1
        head = header(self.ssrc, payload_len=len(opus), sequence=self.sequence)
        return head + AudioCipher(self.key).apply(head, opus)

    def lose(self, frames: int = 1) -> None:
        """Frames that never arrive."""
        self.sequence += frames

    def heard(self, sender: FakeSender) -> list[Frame]:
        """What was sent to it, all of it to HOME."""
        frames = []
        for time, data, addr in sender.sent:
            sealed = parse_datagram_untrusted(data)
            if sealed.ssrc == self.ssrc:
                assert addr == HOME
                value = value_of(AudioCipher(self.key).apply(sealed.iv, sealed.payload))
                frames.append(Frame(time, value, sealed.sequence, sealed.timestamp_ms))
        return frames


def words(messages: list[dict[str, Any]]) -> list[str]:
    """Messages as short words: "tts start", "goodbye"."""
    return [" ".join([m["type"], *([m["state"]] if "state" in m else [])]) for m in messages]
