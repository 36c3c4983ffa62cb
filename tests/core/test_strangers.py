from __future__ import annotations

import pytest

from trio_gateway.core.strangers import Strangers
from trio_gateway.errors import BadPacket

SSRC = 7
HERE = ("192.0.2.1", 40000)
THERE = ("198.51.100.2", 50000)


def heard(strangers: Strangers, number: int, now: float, *, ssrc: int = SSRC) -> list[str]:
    """What became of so many datagrams from THERE, each of which is refused if it is heard."""
    fates = []
    for _ in range(number):
        try:
            strangers.admit_untrusted(ssrc, THERE, now)
        except BadPacket as bad:
            fates.append(bad.reason)
        else:
            strangers.note_refused(THERE, now)
            fates.append("heard")
    return fates


def test_a_session_hears_so_many_of_all_strangers_together() -> None:
    strangers = Strangers(per_session=4, per_address=1000)
    for index in range(4):
        strangers.admit_untrusted(SSRC, (f"198.51.100.{index}", 5), 10.0)
    with pytest.raises(BadPacket) as caught:
        strangers.admit_untrusted(SSRC, HERE, 10.2)
    assert caught.value.reason == "stranger_session"
    strangers.admit_untrusted(SSRC + 1, HERE, 10.2)  # another session has its own
    strangers.admit_untrusted(SSRC, HERE, 10.25)


def test_and_half_of_that_of_one_address_even_if_none_is_refused() -> None:
    strangers = Strangers(per_session=4, per_address=1000)
    fates = []
    for _ in range(1000):
        try:
            strangers.admit_untrusted(SSRC, THERE, 10.0)
        except BadPacket as bad:
            fates.append(bad.reason)
    assert fates == ["stranger_address"] * 998
    strangers.admit_untrusted(SSRC + 1, THERE, 10.0)  # another session hears it
    strangers.admit_untrusted(SSRC, HERE, 10.0)
    strangers.admit_untrusted(SSRC, HERE, 10.0)


def test_an_address_has_so_many_refused_in_all_sessions_together() -> None:
    strangers = Strangers(per_session=1000, per_address=4)
    assert heard(strangers, 2, 10.0) == ["heard"] * 2
    assert heard(strangers, 3, 10.0, ssrc=SSRC + 1) == [*["heard"] * 2, "stranger_address"]
    strangers.admit_untrusted(SSRC, HERE, 10.0)  # another address has its own
    assert heard(strangers, 2, 10.25) == ["heard", "stranger_address"]


def test_what_is_not_refused_does_not_count_against_an_address() -> None:
    strangers = Strangers(per_session=1, per_address=1)
    for ssrc in range(1000):
        strangers.admit_untrusted(ssrc, HERE, 10.0)


def test_who_is_not_heard_does_not_use_up_what_the_session_hears() -> None:
    strangers = Strangers(per_session=4, per_address=2)
    assert heard(strangers, 1000, 10.0) == ["heard"] * 2 + ["stranger_address"] * 998
    strangers.admit_untrusted(SSRC, HERE, 10.0)


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("198.51.100.2", "198.51.100.3", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:198.51.100.2", "198.51.100.2", True),
    ],
)
def test_a_subscriber_is_one_address(host: str, other: str, *, same: bool) -> None:
    strangers = Strangers(per_session=1000, per_address=1)
    strangers.note_refused((host, 1), 10.0)
    if same:
        with pytest.raises(BadPacket, match="stranger_address"):
            strangers.admit_untrusted(SSRC, (other, 2), 10.0)
    else:
        strangers.admit_untrusted(SSRC, (other, 2), 10.0)


def test_memory_is_bounded_whoever_comes() -> None:
    strangers = Strangers(per_session=1000, per_address=1000)
    for index in range(5000):
        address = (f"10.0.{index >> 8}.{index & 255}", 1)
        strangers.admit_untrusted(index, address, 10.0)
        strangers.note_refused(address, 10.0)
    limits = strangers._sessions, strangers._shares, strangers._addresses
    assert [len(each) for each in limits] == [4096] * 3
