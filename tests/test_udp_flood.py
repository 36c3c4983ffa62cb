"""Calls while strangers, and who knows a device's address, send whatever they like."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from attrs import define, field
from link_call import AWAY, FORGER, FRAME, HOME, KEY, SSRC, datagram, heard

from trio_gateway.core.link import AudioLink, UplinkFrame
from trio_gateway.core.packet import header
from trio_gateway.errors import BadPacket
from trio_gateway.settings import Address, UdpSettings
from trio_gateway.udp import UdpPlane, open_udp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.interfaces import Address as Remote
    from trio_gateway.interfaces import DatagramReceiver

SETTINGS = UdpSettings(
    listen=Address("127.0.0.1", 0), strangers_per_session=20, refused_per_address=10
)
CALLS = 50
FRAMES = 20


@define(eq=False)
class Line:
    """A session that is nothing but its link."""

    link: AudioLink
    heard: list[UplinkFrame] = field(factory=list)

    def knows(self, addr: Remote) -> bool:
        return self.link.knows(addr)

    def receive_datagram_untrusted(self, data: bytes, addr: Remote, now: float) -> None:
        self.heard += self.link.receive_datagram_untrusted(data, addr, now)


@define(eq=False)
class Lines:
    """As many of them as are asked for, ssrc after ssrc."""

    number: int
    by_ssrc: dict[int, Line] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.by_ssrc = {
            ssrc: Line(AudioLink(KEY, ssrc)) for ssrc in range(SSRC, SSRC + self.number)
        }

    def route(self, ssrc: int) -> DatagramReceiver | None:
        return self.by_ssrc.get(ssrc)


@define(eq=False)
class Plane:
    """A plane that is handed its datagrams, with their time."""

    udp: UdpPlane
    lines: Lines
    now: float = 1000.0

    def take(self, data: bytes, addr: Remote) -> str:
        """What became of it."""
        try:
            self.udp._receive_untrusted(data, addr, self.now)
        except BadPacket as bad:
            return bad.reason
        return "taken"

    def say(self, *sequences: int, addr: Remote = HOME, ssrc: int = SSRC) -> None:
        """One frame after the other."""
        for sequence in sequences:
            self.now += FRAME
            assert self.take(datagram(sequence, ssrc=ssrc), addr) == "taken"

    @property
    def line(self) -> Line:
        return self.lines.by_ssrc[SSRC]


@pytest.fixture
def plane() -> Iterator[Plane]:
    lines = Lines(CALLS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Plane(UdpPlane(sock, lines.route, nullcontext, SETTINGS), lines)


def torn(sequence: int, ssrc: int = SSRC) -> bytes:
    """Of a length that its header does not announce."""
    return datagram(sequence, ssrc=ssrc) + b"x"


def noise(random: Random, sequence: int) -> bytes:
    """What somebody sends who has seen the ssrc and does not know the key."""
    return header(SSRC, payload_len=120, sequence=sequence) + random.randbytes(120)


def test_a_flood_from_elsewhere_is_refused_unheard_and_moves_nothing(plane: Plane) -> None:
    plane.say(*range(1, 31))
    plane.now += 1.0  # the device listens: without limits, about 200 guesses move its session
    random = Random(4)
    fates = [plane.take(noise(random, 31 + index), FORGER) for index in range(2000)]
    assert plane.line.link.statistics().received <= 30 + SETTINGS.strangers_per_session
    assert fates.count("stranger_address") + fates.count("stranger_session") >= 1980
    assert plane.line.link.remote == HOME
    plane.say(*range(31, 61))
    assert plane.line.heard == heard(*range(1, 61))


def test_a_flood_from_many_addresses_is_refused_too(plane: Plane) -> None:
    plane.say(1)
    fates = [plane.take(torn(2), (f"203.0.113.{index}", index)) for index in range(250)]
    assert fates == ["bad_length"] * 20 + ["stranger_session"] * 230


def test_who_forges_the_device_s_own_address_does_not_lock_it_out(plane: Plane) -> None:
    for sequence in range(1, 101):
        plane.say(sequence)
        forged = [torn(sequence), datagram(sequence), datagram(sequence + (1 << 20))]
        fates = [plane.take(data, HOME) for data in forged for _ in range(10)]
        assert fates == ["bad_length"] * 10 + ["taken"] * 10 + ["implausible"] * 10
    assert plane.line.heard == heard(*range(1, 101))


def test_nor_does_it_count_against_who_shares_that_address(plane: Plane) -> None:
    plane.say(1)
    plane.say(1, addr=AWAY, ssrc=SSRC + 1)
    for _ in range(1000):
        plane.take(torn(2), HOME)
    plane.now += 1.0
    plane.say(2, 3, addr=HOME, ssrc=SSRC + 1)  # moves
    assert plane.lines.by_ssrc[SSRC + 1].link.remote == HOME


def test_before_a_session_has_an_address_everybody_is_heard(plane: Plane) -> None:
    for _ in range(1000):
        assert plane.take(torn(1), FORGER) == "bad_length"
    plane.say(1)
    assert plane.line.link.remote == HOME


def test_all_devices_behind_one_address_may_move_at_once(plane: Plane) -> None:
    for ssrc in plane.lines.by_ssrc:
        plane.take(datagram(1, ssrc=ssrc), (HOME[0], ssrc & 0xFFFF))
    plane.now += 1.0
    for sequence in (2, 3):
        for ssrc in plane.lines.by_ssrc:
            assert plane.take(datagram(sequence, ssrc=ssrc), (AWAY[0], ssrc & 0xFFFF)) == "taken"
    assert {line.link.remote for line in plane.lines.by_ssrc.values()} == {
        (AWAY[0], ssrc & 0xFFFF) for ssrc in plane.lines.by_ssrc
    }


def test_one_flooder_does_not_keep_a_device_from_moving(plane: Plane) -> None:
    plane.say(1)
    plane.now += 1.0
    for sequence in range(2, 10):
        plane.now += FRAME
        for _ in range(1000):
            plane.take(torn(sequence), FORGER)
        assert plane.take(datagram(sequence), AWAY) == "taken"
    assert plane.line.link.remote == AWAY


@pytest.fixture
def plane_as_set() -> Iterator[Plane]:
    """With the settings as they come."""
    lines = Lines(1)
    settings = UdpSettings(listen=Address("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Plane(UdpPlane(sock, lines.route, nullcontext, settings), lines)


@pytest.mark.parametrize("what", ["old", "last", "held", "torn"])
def test_a_datagram_that_one_host_repeats_does_not_keep_a_device_from_moving(
    plane_as_set: Plane, what: str
) -> None:
    """A thousand times a second: one that was captured, or one that is never refused."""
    plane = plane_as_set
    plane.say(*range(1, 101))
    repeated = {
        "old": datagram(1),
        "last": datagram(100),
        "held": datagram(100 + 20),  # waits for another to confirm it, and so does each copy
        "torn": torn(101),
    }[what]
    fates = []
    for step in range(10_000):
        plane.now += 0.001
        plane.take(repeated, FORGER)
        if step % 60 == 59:
            fates.append(plane.take(datagram(101 + step // 60), AWAY))
    assert fates.count("taken") >= len(fates) - 10
    assert plane.line.link.remote == AWAY
    said = [frame.sequence for frame in plane.line.heard if frame.payload is not None]
    assert set(range(111, 101 + len(fates))) <= set(said)


async def test_fifty_calls_lose_nothing_to_real_floods() -> None:
    lines = Lines(CALLS)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(CALLS + 1)]
    *devices, flooder = sockets
    with trio.fail_after(20):
        async with open_udp(SETTINGS, route=lines.route, batch=nullcontext) as plane:
            for sequence in range(1, FRAMES + 1):
                sent = 0
                for device, ssrc in zip(devices, lines.by_ssrc, strict=True):
                    garbage = [b"", b"\x02" + bytes(135), datagram(1, ssrc=1), torn(sequence, ssrc)]
                    good = datagram(sequence, ssrc=ssrc)
                    for data in [*garbage[:3], good, torn(sequence, ssrc)]:
                        device.sendto(data, plane.address)
                    for data in garbage * 3:
                        flooder.sendto(data, plane.address)
                    sent += 5 + 3 * len(garbage)
                while plane.statistics().received < sent * sequence:  # noqa: ASYNC110  real sockets
                    await trio.sleep(0.001)
            statistics = plane.statistics()
            addresses = [device.getsockname()[1] for device in devices]
    for sock in sockets:
        sock.close()
    rounds = CALLS * FRAMES
    refused = statistics.refused
    assert (refused["short"], refused["bad_type"], refused["unknown_ssrc"]) == (4 * rounds,) * 3
    # The devices' own torn ones are all heard; of the flooder's the first of each session are.
    limited = refused.get("stranger_session", 0) + refused["stranger_address"]
    assert refused["bad_length"] + limited == 4 * rounds
    assert limited > 2 * rounds
    assert statistics.kernel_dropped in (0, None)
    for line, port in zip(lines.by_ssrc.values(), addresses, strict=True):
        assert [frame.sequence for frame in line.heard] == list(range(1, FRAMES + 1))
        assert line.link.remote is not None
        assert (line.link.remote[1], line.link.statistics().moves) == (port, 0)
