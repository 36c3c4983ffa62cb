"""Ways in for audio: datagrams, and the session they reach."""

from __future__ import annotations

from contextlib import nullcontext
from socket import AF_INET, SOCK_DGRAM, socket
from typing import TYPE_CHECKING

import trio
from fake_pool import FakePool
from fuzzing import Feed, Take, Target, nothing_breaks, record, refusable
from link_call import AWAY, FORGER, HOME, KEY, SSRC, Call, datagram, opus
from served_sessions import serving

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.control import AudioParams
from trio_gateway.core.link import AudioLink
from trio_gateway.core.opus_packet import duration_untrusted
from trio_gateway.core.packet import header, parse_datagram_untrusted, ssrc_untrusted
from trio_gateway.errors import BadPacket
from trio_gateway.settings import AudioSettings, UdpSettings
from trio_gateway.udp import UdpPlane
from trio_gateway.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AUDIO_TARGETS"]

ADDRESSES = (HOME, HOME, AWAY, FORGER)
MAX_WAITING = 64  # packets behind a gap or held: more than all bounds of a link together


# Datagrams, step by step and all together


def open_datagram() -> Feed:
    """Parse; what was parsed says what it was made of."""

    def feed(data: bytes) -> None:
        with refusable(BadPacket):
            ssrc_untrusted(data)
        with refusable(BadPacket):
            duration_untrusted(data)
        packet = parse_datagram_untrusted(data)
        assert packet.iv + packet.payload == data

    return feed


def datagram_seeds() -> Iterator[bytes]:
    """Datagrams and Opus packets of each code."""
    yield datagram(1)
    yield header(SSRC)
    for toc in range(0x58, 0x5C):
        yield bytes([toc, 0x02, 3, 4, 5, 6])
    yield bytes([0x5B, 0xC2, 0x01, 0x01, 0xFF, 0x00, 0x00])


class Pen:
    """Writes a device's datagrams as an input says; knows the key, so that all steps are reached.

    Each takes 1 byte: 0 a block as it is; 1 a block sealed, so many sequences on (1 byte); 2 a
    block sealed with any sequence (4 bytes) and timestamp (4 bytes).
    """

    def __init__(self, key: bytes, ssrc: int) -> None:
        self._cipher = AudioCipher(key)
        self._ssrc = ssrc
        self._sequence = 0

    def next(self, kind: int, take: Take) -> bytes:
        """Return the next datagram."""
        if kind == 0:
            return take.block()
        timestamp_ms = 0
        if kind == 1:
            self._sequence = max(0, self._sequence + take.signed())
            sequence = self._sequence
        else:
            sequence, timestamp_ms = take.number(4), take.number(4)
        payload = take.block()
        head = header(
            self._ssrc,
            payload_len=len(payload),
            timestamp_ms=timestamp_ms,
            sequence=sequence % (1 << 32),
        )
        return head + self._cipher.apply(head, payload)


def call_seeds() -> Iterator[bytes]:
    """A device that talks, loses packets, moves, and is forged."""
    talk = [record(1, 0, 6, 1, opus(number)) for number in range(20)]
    yield b"".join(talk)
    yield b"".join([*talk[:5], record(1, 0, 6, 3, opus(9)), *talk])
    away = [record(1, 2, 60, 1, opus(9)), record(1, 2, 6, 1, opus(9)), record(1, 0, 6, 1, opus(9))]
    yield b"".join(talk[:5] + away * 3)
    yield b"".join([*talk[:5], record(0, 3, 6, datagram(7)), record(3, 0, 60), *talk])
    jump = record(2, 0, 6) + bytes([0, 0, 4, 0]) + bytes(4) + record(opus(1))
    yield b"".join([*talk[:5], jump, record(3, 0, 60), jump, record(4, 0, 0), *talk])
    back = [record(1, 0, 120, -4, opus(6)), *[record(1, 0, 6, 1, opus(7))] * 9]
    yield b"".join([*talk[:5], record(1, 2, 60, 4, opus(9)), record(1, 2, 6, 1, opus(9)), *back])
    old = record(2, 3, 6) + bytes([0xFF] * 4) + bytes(4) + record(b"")
    yield b"".join([*talk[:5], old, *talk, record(5, 0, 0), record(6, 0, 0)])


def open_link() -> Feed:
    """One link that hears everything; what it received is accounted for at any time."""
    call, pen = Call(AudioLink(KEY, SSRC)), Pen(KEY, SSRC)

    def feed(data: bytes) -> None:
        take = Take(data)
        while take.more:
            kind, address = take.number() % 5, ADDRESSES[take.number() % 4]
            call.now += take.number() / 100
            with refusable(BadPacket):
                if kind == 3:
                    call.link.handle_timer(call.now)
                elif kind == 4:
                    call.link.flush()
                else:
                    sent = pen.next(kind, take)
                    call.link.receive_datagram_untrusted(sent, address, call.now)
        counts = call.link.statistics()
        assert call.balance()
        assert counts.waiting + counts.held <= MAX_WAITING

    return feed


def open_uplink() -> Feed:
    """One session's way up, that nobody reads."""
    link, pen = AudioLink(KEY, SSRC), Pen(KEY, SSRC)
    pool = FakePool(holds=True)
    uplink = Uplink(link, pool.as_pool, AudioParams(), AudioSettings(), backlog=1.0)
    now = 1000.0

    def feed(data: bytes) -> None:
        nonlocal now
        take = Take(data)
        while take.more:
            kind, address = take.number() % 7, ADDRESSES[take.number() % 4]
            now += take.number() / 100
            if kind == 3:
                uplink.handle_timer(now)
            elif kind == 4:
                uplink.begin_talk("manual", now)
            elif kind == 5:
                uplink.end_talk(now)
            elif kind == 6:
                pool.finish(address[1] % 8)
            else:
                with refusable(BadPacket):
                    uplink.receive_datagram_untrusted(pen.next(kind, take), address, now)

    return feed


def open_plane() -> Feed:
    """From the socket's end through a session with everything that belongs to it."""
    return lambda data: trio.run(_call_through_plane, data)


async def _call_through_plane(data: bytes) -> None:
    take = Take(data)
    with nothing_breaks(), socket(AF_INET, SOCK_DGRAM) as sock:
        async with serving() as gateway:
            call = gateway.call()
            call.listen("start")
            plane = UdpPlane(sock, gateway.sessions.route, nullcontext, UdpSettings())
            pen = Pen(bytes.fromhex(call.answer["udp"]["key"]), call.audio.ssrc)
            now = trio.current_time()
            while take.more:
                kind, address = take.number() % 3, ADDRESSES[take.number() % 4]
                now += take.number() / 100
                with refusable(BadPacket):
                    plane._receive_untrusted(pen.next(kind, take), address, now)  # noqa: SLF001  what its reader calls
            assert gateway.sessions.live


AUDIO_TARGETS = (
    Target(
        name="datagram",
        open=open_datagram,
        refusal=BadPacket,
        covers=(
            "core.packet:parse_datagram_untrusted",
            "core.packet:ssrc_untrusted",
            "core.opus_packet:duration_untrusted",
        ),
        seeds=datagram_seeds,
    ),
    Target(
        name="link",
        open=open_link,
        refusal=BadPacket,
        covers=(
            "core.link:AudioLink.receive_datagram_untrusted",
            "core.link:AudioLink._receive_untrusted",
            "core.pinning:SourcePin.check_jump_untrusted",
            "core.pinning:SourcePin.admit_untrusted",
            "core.pinning:SourcePin.admit_return_untrusted",
            "core.pinning:SourcePin._hold_untrusted",
            "core.pinning:SourcePin._check_duration_untrusted",
        ),
        seeds=call_seeds,
    ),
    Target(
        name="uplink",
        open=open_uplink,
        refusal=BadPacket,
        covers=("uplink:Uplink.receive_datagram_untrusted",),
        seeds=call_seeds,
    ),
    Target(
        name="plane",
        open=open_plane,
        refusal=BadPacket,
        covers=(
            "udp:UdpPlane._receive_untrusted",
            "core.strangers:Strangers.admit_untrusted",
            "live:LiveSession.receive_datagram_untrusted",
            "session:Session.receive_datagram_untrusted",
        ),
        seeds=call_seeds,
    ),
)
