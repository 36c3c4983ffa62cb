"""Audio links against devices that behave and networks that do not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from link_call import (
    AWAY,
    FRAME,
    HOME,
    KEY,
    OPUS_60_MS,
    SSRC,
    Call,
    datagram,
    heard,
    lost,
    opus,
)

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.link import BURST, PACE, AudioLink, UplinkFrame
from trio_gateway.core.packet import parse_datagram_untrusted
from trio_gateway.errors import BadPacket

VECTORS = Path(__file__).parents[1] / "vectors"


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
    call.link._window.highest = call.link._pin._highest = call.link._pin._ceiling = top - 3
    call.link._jitter._next = top - 2
    assert call.hear(top - 2, top - 1, top, top + 1) == heard(top - 2, top - 1, top, top + 1)


def test_a_long_gap_is_believed_with_the_second_packet() -> None:
    call = Call()
    call.hear(1)
    call.now += 98 * FRAME
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


def test_what_is_older_than_the_replay_window_is_late() -> None:
    call = Call()
    call.hear(*range(1, 101))
    assert call.hear(36, 37) == []
    counts = call.link.statistics()
    assert (counts.late, counts.duplicate) == (1, 1)
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


def test_after_a_stall_what_was_read_first_gives_up_nothing_that_lies_behind_it() -> None:
    """The gap's wait is over, but nobody has looked yet: the missing one may be in the socket."""
    call = Call()
    call.hear(1, 3)
    call.now += 0.5
    out = call.forge(4, HOME) + call.forge(2, HOME)
    assert out == heard(2, 3, 4)
    assert call.link.statistics().lost == 0


def test_nobody_speaks_faster_than_time_passes() -> None:
    """Whoever walks the sequence forward with the device's address does not use up a worker."""
    call = Call()
    call.hear(1)
    taken = 0
    for number in range(4000):
        call.now += 0.0025
        taken += len(call.forge(2 + taken, HOME)) if number else 0
    assert (BURST + 10) / FRAME < taken < (BURST + PACE * 10) / FRAME + 1
    assert set(call.link.statistics().bad) == {"too_fast"}
    assert call.balance()


def test_what_a_network_held_back_comes_at_once() -> None:
    call = Call()
    call.hear(*range(1, 100))
    call.now += 9.0
    out = [frame for sequence in range(100, 250) for frame in call.forge(sequence, HOME)]
    assert out == heard(*range(100, 250))


def test_when_the_device_was_heard() -> None:
    call = Call()
    assert call.link.heard_at == -math.inf
    call.hear(1)
    heard_at = call.link.heard_at
    assert heard_at == call.now
    call.now += 5
    call.forge(1, HOME)
    call.forge(2)
    call.forge(2, HOME, payload=b"")
    assert call.link.heard_at == heard_at


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
