"""Audio links against devices that behave, networks that do not, and forgers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.link import Address, AudioLink, UplinkFrame
from trio_gateway.core.packet import header, parse_datagram_untrusted
from trio_gateway.core.pinning import MAX_HELD, MOVE_INTERVAL
from trio_gateway.errors import BadPacket

VECTORS = Path(__file__).parents[1] / "vectors"
KEY = b"sixteen byte key"
SSRC = 0x5EED1234
FRAME = 0.060
HOME: Address = ("192.0.2.1", 40000)
AWAY: Address = ("198.51.100.2", 50000)
FORGER: Address = ("203.0.113.66", 6666)

OPUS_60_MS = 0x58
OPUS_20_MS = 0x48


def opus(sequence: int, toc: int = OPUS_60_MS) -> bytes:
    return bytes([toc]) + b"audio of frame %d" % sequence


def datagram(
    sequence: int, *, payload: bytes | None = None, ssrc: int = SSRC, timestamp_ms: int = 0
) -> bytes:
    payload = opus(sequence) if payload is None else payload
    head = header(
        ssrc, payload_len=len(payload), timestamp_ms=timestamp_ms, sequence=sequence % (1 << 32)
    )
    return head + AudioCipher(KEY).apply(head, payload)


def heard(*sequences: int) -> list[UplinkFrame]:
    return [UplinkFrame(sequence, opus(sequence)) for sequence in sequences]


def lost(*sequences: int) -> list[UplinkFrame]:
    return [UplinkFrame(sequence, None) for sequence in sequences]


@define
class Call:
    """A link, and a clock that goes on by one frame with every packet from the device."""

    link: AudioLink = field(factory=lambda: AudioLink(KEY, SSRC))
    now: float = 1000.0

    def hear(self, *sequences: int, addr: Address = HOME) -> list[UplinkFrame]:
        out = []
        for sequence in sequences:
            self.now += FRAME
            out += self.link.receive_datagram_untrusted(datagram(sequence), addr, self.now)
        return out

    def forge(self, sequence: int, addr: Address = FORGER, **kind: Any) -> list[UplinkFrame]:
        try:
            return self.link.receive_datagram_untrusted(
                datagram(sequence, **kind), addr, self.now + 0.001
            )
        except BadPacket:
            return []

    def balance(self) -> bool:
        counts = self.link.statistics()
        return counts.received == (
            counts.delivered
            + counts.duplicate
            + counts.late
            + counts.unconfirmed
            + counts.waiting
            + counts.held
            + sum(counts.bad.values())
        )


def test_the_golden_uplink() -> None:
    vectors = {v["name"]: v for v in json.loads((VECTORS / "datagrams.json").read_text())}
    first = vectors["uplink_first"]
    link = AudioLink(bytes.fromhex(first["key"]), first["fields"]["ssrc"])
    assert link.nonce.hex() == "010000005eed12340000000000000000"
    for name in "uplink_first", "uplink_second", "uplink_dtx", "uplink_echo_cancelling":
        vector = vectors[name]
        data = bytes.fromhex(vector["header"] + vector["ciphertext"])
        assert link.receive_datagram_untrusted(data, HOME, 0.0) == [
            UplinkFrame(
                vector["fields"]["sequence"],
                bytes.fromhex(vector["opus"]),
                vector["fields"]["timestamp_ms"],
            )
        ]
    assert link.remote == HOME


def test_in_order_packets_pass_without_delay() -> None:
    assert AudioLink(KEY, SSRC).remote is None
    call = Call()
    for sequence in range(1, 200):
        assert call.hear(sequence) == heard(sequence)
        assert call.link.get_timer() is None
    assert call.link.remote == HOME
    assert call.link.statistics().delivered == 199
    assert call.balance()


def test_loss_disorder_and_copies() -> None:
    call = Call()
    assert call.hear(1) == heard(1)
    assert call.hear(3) == []
    assert call.link.get_timer() == pytest.approx(call.now + FRAME)
    assert call.hear(2) == heard(2, 3)
    assert call.hear(2, 3, 1) == []
    assert call.hear(6) == []
    assert call.link.handle_timer(call.now + FRAME) == [*lost(4, 5), *heard(6)]
    assert call.hear(5) == []
    assert call.hear(8) == []
    assert call.link.flush() == [*lost(7), *heard(8)]
    counts = call.link.statistics()
    assert (counts.delivered, counts.lost, counts.duplicate, counts.late) == (5, 3, 3, 1)
    assert call.balance()


def test_a_gap_ends_with_the_next_packet_when_the_timer_was_not_handled() -> None:
    call = Call()
    call.hear(1)
    assert call.hear(3) == []
    assert call.hear(4) == [*lost(2), *heard(3, 4)]


def test_the_echo_cancelling_timestamp_is_passed_on() -> None:
    link = AudioLink(KEY, SSRC)
    (frame,) = link.receive_datagram_untrusted(datagram(1, timestamp_ms=61), HOME, 0.0)
    assert frame.timestamp_ms == 61


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "short"),
        (b"\x02" + datagram(1)[1:], "bad_type"),
        (datagram(1)[:-1], "bad_length"),
        (datagram(1) + b"\x00", "bad_length"),
        (datagram(1, ssrc=SSRC + 1), "wrong_ssrc"),
        (datagram(1, payload=b""), "not_opus"),
        (datagram(1, payload=bytes([OPUS_60_MS | 1]) + bytes(3)), "not_opus"),
        (datagram(0x7FFFFFFF), "implausible"),
    ],
)
def test_refused_by_reason_and_without_a_trace(data: bytes, reason: str) -> None:
    call = Call()
    for _ in range(2):
        with pytest.raises(BadPacket) as caught:
            call.link.receive_datagram_untrusted(data, HOME, call.now)
        assert caught.value.reason == reason
    assert call.link.statistics().bad == {reason: 2}
    assert call.link.remote is None
    assert call.hear(1) == heard(1)
    assert call.balance()


@pytest.mark.parametrize("sequence", [0, 0xFFFFFFFF])
def test_nothing_comes_before_sequence_1(sequence: int) -> None:
    call = Call()
    assert call.hear(sequence) == []
    assert call.link.remote is None
    assert call.hear(1, 2) == heard(1, 2)


def test_first_packets_lost() -> None:
    call = Call()
    assert call.hear(3) == []  # held: it might be anybody's
    assert call.hear(4) == [*lost(1, 2), *heard(3, 4)]
    assert call.link.remote == HOME
    assert call.link.statistics().moves == 0


def test_first_packets_swapped() -> None:
    call = Call()
    assert call.hear(2) == []
    assert call.forge(1, HOME) == heard(1, 2)


def test_sequences_go_on_over_the_wrap() -> None:
    call = Call()
    call.hear(1)
    top = 1 << 32
    call.link._window.highest = top - 3
    call.link._jitter._next = top - 2
    assert call.hear(top - 2, top - 1, top, top + 1) == heard(top - 2, top - 1, top, top + 1)


def test_a_long_gap_is_believed_with_the_second_packet() -> None:
    call = Call()
    call.hear(1)
    assert call.hear(100) == []
    assert call.hear(101) == [*lost(*range(90, 100)), *heard(100, 101)]
    counts = call.link.statistics()
    assert (counts.lost, counts.skipped, counts.unconfirmed) == (10, 88, 0)
    assert call.balance()


def test_after_a_long_silence_a_long_jump_is_plausible() -> None:
    call = Call()
    call.hear(1)
    assert call.forge(6000, HOME) == []
    assert call.link.statistics().bad == {"implausible": 1}
    call.now += 6000 * FRAME
    assert call.hear(6000, 6001)[-2:] == heard(6000, 6001)


@pytest.mark.parametrize(("reorder_wait", "reach"), [(0.0, 3), (FRAME, 4), (0.2, 6)])
def test_a_gap_of_a_few_is_believed_at_once(reorder_wait: float, reach: int) -> None:
    for ahead, believed in (reach, True), (reach + 1, False):
        call = Call(AudioLink(KEY, SSRC, reorder_wait=reorder_wait))
        call.hear(1)
        call.hear(1 + ahead)
        assert (call.link.statistics().held == 0) == believed


def test_what_is_older_than_the_replay_window_is_late_even_inside_a_gap() -> None:
    call = Call(AudioLink(KEY, SSRC, reorder_wait=0.5))
    call.hear(1, 200, 201)
    assert call.hear(100, 100, 199) == []
    counts = call.link.statistics()
    assert (counts.late, counts.waiting) == (2, 3)
    assert call.balance()


def test_a_packet_that_overtook_many_is_not_lost() -> None:
    call = Call(AudioLink(KEY, SSRC, reorder_wait=0.2))
    call.hear(1)
    reach = call.link._pin.reach
    assert call.forge(2 + reach, HOME) == []
    assert call.forge(2, HOME) == heard(2)
    assert call.link.statistics().waiting == 1
    out = [frame for sequence in range(3, 2 + reach) for frame in call.forge(sequence, HOME)]
    assert out == heard(*range(3, 3 + reach))
    assert call.balance()


class TestForgedPackets:
    """One of them neither redirects the call nor silences it; they are valid in every other way."""

    @pytest.mark.parametrize("addr", [FORGER, HOME], ids=["from elsewhere", "with our address"])
    @pytest.mark.parametrize("ahead", [6, 50, 1900, 2100, 1 << 20, 0x7FFFFFFF, 0xFFFFFFF0])
    def test_a_far_sequence_changes_nothing(self, ahead: int, addr: Address) -> None:
        call = Call()
        call.hear(*range(1, 16))
        assert call.forge(15 + ahead, addr) == []
        assert call.hear(*range(16, 40)) == heard(*range(16, 40))
        assert call.link.remote == HOME
        assert call.balance()

    def test_sequence_ffffffff_at_any_time(self) -> None:
        call = Call()
        for sequence in range(1, 20):
            assert call.forge(0xFFFFFFFF) == []
            assert call.forge(0xFFFFFFFF, HOME) == []
            assert call.hear(sequence) == heard(sequence)
        assert call.link.remote == HOME
        assert call.balance()

    @pytest.mark.parametrize("ahead", [1, 2, 3, 4])
    def test_a_near_sequence_from_elsewhere_changes_nothing(self, ahead: int) -> None:
        call = Call()
        for sequence in range(1, 20):
            assert call.hear(sequence) == heard(sequence)
            assert call.forge(sequence + ahead) == []
        assert call.link.remote == HOME
        assert call.balance()

    @pytest.mark.parametrize("ahead", [1, 2, 3, 4, 5])
    def test_a_near_sequence_with_our_address_costs_those_few(self, ahead: int) -> None:
        call = Call()
        call.hear(1)
        out = call.forge(1 + ahead, HOME, payload=opus(666))
        for sequence in range(2, 20):
            out += call.hear(sequence)
            out += call.link.handle_timer(call.now)
        good = [frame for frame in out if frame.payload == opus(frame.sequence)]
        assert len(good) >= 18 - ahead
        assert good[-(18 - ahead) :] == heard(*range(2 + ahead, 20))

    def test_many_from_elsewhere_do_not_take_a_call_that_goes_on(self) -> None:
        call = Call()
        call.hear(1)
        for sequence in range(2, 40):
            for ahead in range(5):
                assert call.forge(sequence + ahead) == []
            assert call.hear(sequence) == heard(sequence)
        assert call.link.statistics().moves == 0
        assert call.balance()

    @pytest.mark.parametrize("sequence", [1, 2, 3, 11, 500])
    def test_before_the_device_has_spoken(self, sequence: int) -> None:
        call = Call()
        call.forge(sequence, payload=opus(666))
        out = call.hear(*range(1, 20))
        good = [frame for frame in out if frame.payload == opus(frame.sequence)]
        assert good[-18:] == heard(*range(2, 20))
        assert call.link.remote == HOME
        assert call.balance()

    def test_the_first_packet_with_another_duration_does_not_set_the_rule(self) -> None:
        call = Call()
        call.forge(1, payload=opus(1, OPUS_20_MS))
        assert call.hear(1, 2, 3, 4) == heard(2, 3, 4)
        assert call.link.remote == HOME

    def test_a_replay_from_elsewhere_does_not_take_the_downlink(self) -> None:
        call = Call()
        call.hear(*range(1, 100))
        call.now += 1.0
        for sequence in range(1, 100):
            assert call.forge(sequence) == []
        assert call.link.remote == HOME
        counts = call.link.statistics()
        assert (counts.duplicate, counts.late) == (64, 35)

    def test_a_replay_into_a_gap_does_not_take_the_downlink(self) -> None:
        call = Call(AudioLink(KEY, SSRC, reorder_wait=0.5))
        call.hear(*range(1, 11), 14)
        call.now += 0.2
        for sequence in 11, 12, 13:
            assert call.forge(sequence) == []
        assert call.link.remote == HOME

    def test_what_was_held_before_a_pause_is_not_taken_for_overtaking(self) -> None:
        call = Call()
        call.hear(*range(1, 16))
        call.forge(20, HOME, payload=opus(666))
        call.now += 1.0
        assert call.hear(*range(16, 40)) == heard(*range(16, 40))
        assert call.link.statistics().unconfirmed == 1

    def test_held_packets_are_bounded(self) -> None:
        call = Call()
        call.hear(1)
        for sequence in range(2, 500):
            call.forge(sequence)
        assert call.link.statistics().held == MAX_HELD
        for port in range(500):
            call.forge(2 + port, ("203.0.113.1", port))
        assert call.link.statistics().held == 1
        assert call.balance()


class TestMoves:
    """A device that really has a new address takes its call with it."""

    def test_nothing_is_lost(self) -> None:
        call = Call()
        assert call.hear(1, 2, 3) == heard(1, 2, 3)
        assert call.hear(4, addr=AWAY) == []
        assert call.link.remote == HOME
        assert call.hear(5, addr=AWAY) == heard(4, 5)
        assert call.link.remote == AWAY
        assert call.hear(6, addr=AWAY) == heard(6)
        assert call.link.statistics().moves == 1
        assert call.balance()

    def test_a_loss_on_the_way(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        # 4 has had its wait while 5 was held.
        assert call.hear(5, 7, addr=AWAY) == [*lost(4), *heard(5)]
        assert call.link.handle_timer(call.now + FRAME) == [*lost(6), *heard(7)]
        assert call.link.remote == AWAY

    def test_not_while_the_old_address_is_heard(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.forge(4, AWAY) == []
        assert call.forge(5, AWAY) == []
        assert call.link.remote == HOME
        call.now += FRAME
        assert call.hear(6, addr=AWAY) == heard(4, 5, 6)

    def test_copies_and_stragglers_do_not_count_as_a_second(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.hear(5, 5, 4, 5, addr=AWAY) == []
        assert call.link.remote == HOME
        assert call.link.statistics().unconfirmed == 3
        call.hear(6, addr=AWAY)
        assert call.link.remote == AWAY
        assert call.balance()

    def test_two_that_do_not_continue_each_other(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        assert call.hear(4, 400, 5, 800, addr=AWAY) == []
        assert call.link.remote == HOME
        assert call.balance()

    def test_the_duration_has_to_fit(self) -> None:
        call = Call()
        call.hear(1, 2, 3)
        call.now += 1.0
        for sequence in 4, 5, 6:
            call.forge(sequence, AWAY, payload=opus(sequence, OPUS_20_MS))
        assert call.link.remote == HOME
        assert call.link.statistics().bad == {"implausible": 3}

    def test_a_device_that_announced_another_duration_can_move(self) -> None:
        call = Call()
        for sequence in range(1, 6):
            addr = HOME if sequence < 4 else AWAY
            call.now += FRAME
            call.forge(sequence, addr, payload=opus(sequence, OPUS_20_MS))
        assert call.link.remote == AWAY

    def test_moves_are_rate_limited(self) -> None:
        call = Call()
        call.hear(1)
        call.hear(2, 3, addr=AWAY)
        third: Address = ("192.0.2.3", 3)
        steps = int(MOVE_INTERVAL / FRAME)
        call.hear(*range(4, 4 + steps), addr=third)
        assert call.link.remote == AWAY
        call.hear(*range(4 + steps, 8 + steps), addr=third)
        assert call.link.remote == third
        assert call.link.statistics().moves == 2
        assert call.balance()

    def test_the_way_back_is_free_once(self) -> None:
        call = Call()
        call.hear(1, 2)
        call.hear(3, 4, addr=FORGER)  # two lucky forgeries while the device was silent
        assert call.link.remote == FORGER
        assert call.hear(5, 6) == heard(5, 6)
        assert call.link.remote == HOME
        call.hear(7, 8, addr=FORGER)
        assert call.link.remote == HOME


def test_downlink() -> None:
    link = AudioLink(KEY, SSRC)
    for sequence in 1, 2:
        packet = parse_datagram_untrusted(link.seal(opus(9), 5.0))
        assert packet.sequence == packet.timestamp_ms == sequence
        assert packet.flags == 0x80
        assert packet.ssrc == SSRC
        assert AudioCipher(KEY).apply(packet.iv, packet.payload) == opus(9)
    assert link.statistics().sealed == 2


def test_the_key_is_in_no_repr() -> None:
    call = Call()
    call.hear(1, 3, addr=AWAY)
    text = repr(call.link)
    assert "sixteen" not in text
    assert KEY.hex() not in text
