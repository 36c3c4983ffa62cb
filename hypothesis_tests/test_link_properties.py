"""Invariant: what a device said comes out in order and unchanged, or is named lost, or is counted.

Forgers who do not use the device's address change nothing at all. No two packets of a session share
keystream, the device's own aside.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.link import Address, AudioLink, LinkStatistics, UplinkFrame
from trio_gateway.core.packet import header, parse_datagram_untrusted
from trio_gateway.core.sealing import MAX_SEQUENCE, Sealer
from trio_gateway.errors import BadPacket, KeystreamExhausted

KEY = b"sixteen byte key"
CIPHER = AudioCipher(KEY)
SSRC = 0x5EED1234
FRAME = 0.060
HOME: Address = ("192.0.2.1", 40000)
BLOCK = 16


def opus(sequence: int) -> bytes:
    return b"\x58audio of frame %d" % sequence


def frame(sequence: int) -> UplinkFrame:
    return UplinkFrame(sequence, opus(sequence))


def datagram(sequence: int, payload: bytes | None = None) -> bytes:
    payload = opus(sequence) if payload is None else payload
    head = header(SSRC, payload_len=len(payload), sequence=sequence % (1 << 32))
    return head + CIPHER.apply(head, payload)


def receive(link: AudioLink, data: bytes, addr: Address, now: float) -> list[UplinkFrame]:
    try:
        return link.receive_datagram_untrusted(data, addr, now)
    except BadPacket:
        return []


def accounted(counts: LinkStatistics) -> int:
    fates = counts.delivered + counts.duplicate + counts.late + counts.unconfirmed
    return fates + counts.waiting + counts.held + sum(counts.bad.values())


# For each packet of the device: how much later than its turn it arrives, in frames, on each of its
# ways through the network. No way: lost. Two: doubled.
NETWORKS = st.lists(
    st.just([0.0]) | st.lists(st.floats(0, 3, allow_subnormal=False), max_size=2), max_size=60
)


@given(network=NETWORKS)
def test_a_terrible_network(network: list[list[float]]) -> None:
    link = AudioLink(KEY, SSRC, frame_s=FRAME)
    arrivals = sorted(
        (((sequence + delay) * FRAME), sequence)
        for sequence, delays in enumerate(network, start=1)
        for delay in delays
    )
    out: list[UplinkFrame] = []
    for now, sequence in arrivals:
        while (due := link.get_timer()) is not None and due <= now:
            out += link.handle_timer(due)
        before = link.statistics()
        ready = receive(link, datagram(sequence), HOME, now)
        if sequence == (out[-1].sequence if out else 0) + 1 and before.waiting == 0:
            assert ready[:1] == [frame(sequence)]  # in order: no delay
        out += ready
    out += link.flush()

    sequences = [each.sequence for each in out]
    assert sequences == sorted(set(sequences))
    assert all(each.payload in (None, opus(each.sequence)) for each in out)
    counts = link.statistics()
    assert counts.received == len(arrivals) == accounted(counts)
    assert counts.delivered == sum(each.payload is not None for each in out)
    assert counts.lost == len(out) - counts.delivered
    assert counts.delivered + counts.lost + counts.skipped == (sequences[-1] if sequences else 0)
    assert not counts.bad


@given(
    swaps=st.lists(st.booleans(), max_size=40),
    doubled=st.sets(st.integers(1, 40)),
)
def test_neighbours_swapped_and_copies_are_repaired(swaps: list[bool], doubled: set[int]) -> None:
    order = list(range(1, len(swaps) + 2))
    for i, swap in enumerate(swaps):
        if swap and order[i - 1 : i + 1] == [i, i + 1]:  # each takes part in one swap at most
            order[i - 1 : i + 1] = reversed(order[i - 1 : i + 1])
    link = AudioLink(KEY, SSRC, frame_s=FRAME)
    out: list[UplinkFrame] = []
    for turn, sequence in enumerate(order):
        for _ in range(2 if sequence in doubled else 1):
            # Just within the wait: the packet that was overtaken is one frame behind.
            out += receive(link, datagram(sequence), HOME, turn * FRAME * 0.99)
    assert [each.payload for each in out] == [opus(each) for each in sorted(order)]
    assert (link.statistics().lost, link.statistics().late) == (0, 0)


Content: TypeAlias = bytes | int | tuple[int, bytes]
Forgery: TypeAlias = tuple[Content, Address]
# Any bytes; or a perfect packet, some sequences off; or one with any audio. From any address but
# the device's.
ADDRESSES = st.tuples(st.sampled_from(["203.0.113.66", "192.0.2.1"]), st.integers(1, 4))
FORGED = st.tuples(
    st.binary(max_size=40)
    | st.integers(-70, 70)
    | st.integers(0, (1 << 32) - 1)
    | st.tuples(st.integers(-5, 5), st.binary(max_size=20)),
    ADDRESSES,
)


def sorted_by_time(
    forgeries: list[tuple[int, float, Forgery]],
) -> list[tuple[int, float, Forgery]]:
    return sorted(forgeries, key=lambda each: each[:2])


def forge(what: Content, near: int) -> bytes:
    if isinstance(what, bytes):
        return what
    if isinstance(what, int):
        return datagram((near + what) % (1 << 32), b"\x58forged")
    return datagram((near + what[0]) % (1 << 32), what[1])


@given(
    forgeries=st.lists(
        st.tuples(st.integers(1, 19), st.floats(0.001, 0.059), FORGED), max_size=30
    ).map(sorted_by_time)
)
def test_forgers_from_elsewhere_change_nothing_while_the_device_speaks(
    forgeries: list[tuple[int, float, Forgery]],
) -> None:
    link = AudioLink(KEY, SSRC, frame_s=FRAME)
    for sequence in range(1, 21):
        now = sequence * FRAME
        assert receive(link, datagram(sequence), HOME, now) == [frame(sequence)]
        for turn, later, (what, addr) in forgeries:
            if turn == sequence:
                assert receive(link, forge(what, sequence), addr, now + later) == []
                assert link.remote == HOME
    counts = link.statistics()
    assert (counts.moves, counts.delivered) == (0, 20)
    assert counts.received == accounted(counts)


@given(
    silence=st.lists(st.tuples(FORGED, st.floats(0.01, 10)), max_size=19),
    speech=st.lists(st.lists(FORGED, max_size=3), min_size=30, max_size=30),
)
def test_forgers_who_took_a_silent_call_lose_it_when_the_device_speaks(
    silence: list[tuple[Forgery, float]], speech: list[list[Forgery]]
) -> None:
    link = AudioLink(KEY, SSRC, frame_s=FRAME)
    now = 0.0
    for sequence in range(1, 21):
        now += FRAME
        receive(link, datagram(sequence), HOME, now)
    for (what, addr), pause in silence:
        now += pause
        link.handle_timer(now)
        receive(link, forge(what, 20), addr, now)
    now += 2.0
    out: list[UplinkFrame] = []
    for sequence, forgeries in enumerate(speech, start=21):
        now += FRAME
        out += link.handle_timer(now)
        out += receive(link, datagram(sequence), HOME, now)
        for part, (what, addr) in enumerate(forgeries, start=1):
            out += receive(link, forge(what, sequence), addr, now + part * FRAME / 5)
    assert link.remote == HOME
    assert out[-20:] == [frame(sequence) for sequence in range(31, 51)]
    assert link.statistics().received == accounted(link.statistics())


@define
class Scene:
    """A device that speaks, loses, pauses and roams, and somebody who forges what he likes."""

    link: AudioLink = field(factory=lambda: AudioLink(KEY, SSRC, frame_s=FRAME))
    now: float = 0.0
    said: int = 0
    addresses: list[Address] = field(factory=lambda: [HOME])
    out: list[UplinkFrame] = field(factory=list)

    def speak(self, frames: int) -> None:
        """Frames that arrive, at the pace of speech."""
        for _ in range(frames):
            self.wait(FRAME)
            self.said += 1
            self.bring(datagram(self.said), self.addresses[-1])

    def lose(self, frames: int) -> None:
        """Frames that do not arrive."""
        self.said += frames
        self.wait(frames * FRAME)

    def roam(self, pause: float) -> None:
        """Have another address from now on."""
        self.wait(pause)
        self.addresses.append(("198.51.100.7", 1000 + len(self.addresses)))

    def wait(self, seconds: float) -> None:
        """Let time pass, as the timers do."""
        end = self.now + seconds
        while (due := self.link.get_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.out += self.link.handle_timer(self.now)
        self.now = end

    def replay(self, who: int, back: int, frames: int, pause: float) -> None:
        """Bring again what the device has said, or bring it first: it may have been lost."""
        first = max(1, self.said - back)
        for sequence in range(first, min(first + frames, self.said + 1)):
            self.wait(pause)
            self.bring(datagram(sequence), self.forger(who))

    def forge(self, who: int, ahead: int, frames: int, pause: float) -> None:
        """Bring packets that look right in every way, and are not of the device."""
        for sequence in range(self.said + ahead, self.said + ahead + frames):
            self.wait(pause)
            self.bring(datagram(sequence, b"\x58forged"), self.forger(who))

    def forger(self, who: int) -> Address:
        """Any address that the device ever had, or one of two others."""
        everybody = [("203.0.113.66", 1), ("203.0.113.66", 2), *self.addresses]
        return everybody[who % len(everybody)]

    def bring(self, data: bytes, addr: Address) -> None:
        """Let a datagram arrive."""
        self.out += receive(self.link, data, addr, self.now)


PAUSE = st.sampled_from([0.0, 0.001, FRAME, 0.3, 2.5])
WHO = st.integers(0, 20)
ACTS = st.lists(
    st.tuples(st.just("speak"), st.integers(1, 40))
    | st.tuples(st.just("lose"), st.integers(1, 100))
    | st.tuples(st.just("wait"), st.floats(0.05, 30))
    | st.tuples(st.just("roam"), st.sampled_from([0.0, 0.3, 5.0]))
    | st.tuples(st.just("replay"), WHO, st.integers(0, 60), st.integers(1, 8), PAUSE)
    | st.tuples(st.just("forge"), WHO, st.integers(-20, 90), st.integers(1, 8), PAUSE),
    max_size=14,  # so that nobody speaks as long as a probation lasts in the device's place
)


@given(acts=ACTS)
def test_whatever_happened_a_device_that_speaks_is_heard(acts: list[tuple[Any, ...]]) -> None:
    scene = Scene()
    scene.speak(20)
    for name, *arguments in acts:
        getattr(scene, name)(*arguments)
    scene.wait(3.0)
    scene.speak(200)  # more than was forged with its address, sequence by sequence
    assert scene.out[-20:] == [frame(each) for each in range(scene.said - 19, scene.said + 1)]
    assert scene.link.remote == scene.addresses[-1]
    said = [each.payload for each in scene.out if each.payload == opus(each.sequence)]
    assert len(said) == len(set(said)), "nothing is heard twice"
    counts = scene.link.statistics()
    assert counts.received == accounted(counts)


@given(
    datagrams=st.lists(
        st.tuples(FORGED, st.floats(0, 0.2)) | st.tuples(FORGED, st.floats(0, 200)), max_size=60
    )
)
def test_any_datagrams_at_all(
    datagrams: list[tuple[Forgery, float]],
) -> None:
    link = AudioLink(KEY, SSRC)
    now, last = 0.0, 0
    for (what, addr), pause in datagrams:
        now += pause
        before = link.statistics().undone
        out = link.handle_timer(now) + receive(link, forge(what, last), addr, now)
        counts = link.statistics()
        for each in out:
            assert each.sequence > last or counts.undone > before
            last = each.sequence
        assert counts.received == accounted(counts)
        assert counts.waiting <= 64
        assert counts.held <= 5 * 50


def blocks(iv: bytes, length: int) -> range:
    """Return the counters that encrypt `length` bytes, not reduced modulo 2**128."""
    first = int.from_bytes(iv, "big")
    return range(first, first + math.ceil(length / BLOCK))


def overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


SEALED = st.lists(
    st.tuples(
        st.sampled_from([1, 15, 16, 17, 400, 65535]),
        st.floats(-1e3, 4e6, allow_nan=False) | st.sampled_from([0.0, 0.0004, 0.001, 0.06]),
    ),
    min_size=2,
    max_size=12,
)
EDGE = st.integers(0, 12) | st.integers((1 << 32) - 5000, (1 << 32) - 1)


@given(
    sealed=SEALED,
    first=st.sampled_from([0, 5, MAX_SEQUENCE - 6]),
    uplink=st.lists(
        st.tuples(st.integers(0, 0x7F), st.sampled_from([0, 1, 17, 400, 65535]), EDGE, EDGE),
        max_size=12,
    ),
)
def test_no_keystream_is_used_twice(
    sealed: list[tuple[int, float]], first: int, uplink: list[tuple[int, int, int, int]]
) -> None:
    sealer = Sealer(KEY, SSRC)
    sealer.seal(b"x", 0.0)
    sealer.sequence += first
    down: list[range] = []
    last = 0
    for length, now in sealed:
        try:
            packet = parse_datagram_untrusted(sealer.seal(bytes(length), now))
        except KeystreamExhausted:
            continue
        assert packet.timestamp_ms > last
        last = packet.timestamp_ms
        new = blocks(packet.iv, length)
        assert not any(overlap(new, old) for old in down)
        assert new.stop <= 1 << 128
        down.append(new)
    for flags, length, timestamp_ms, sequence in uplink:
        for ssrc in SSRC, 0xFFFFFFFF:  # also the one whose carry goes furthest
            iv = header(
                ssrc,
                flags=flags,
                payload_len=length,
                timestamp_ms=timestamp_ms,
                sequence=sequence,
            )
            assert not any(overlap(blocks(iv, length), old) for old in down)
