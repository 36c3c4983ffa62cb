"""Calls reserve what they need, and a device for which too little is left is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import trio
from fake_pool import FakePool
from fake_wires import words
from served_sessions import Call, FakeGateway, serving

from trio_gateway.backends.echo import echo
from trio_gateway.core.admission import FRAME_S, Costs

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_gateway.session import Session

DECODE, ENCODE = 0.6e-3, 6e-3 - FRAME_S
CALL = 0.1  # cores, for a device that does not speak while it listens: encoding is dearer


class DearPool(FakePool):
    """Its frames cost what they say."""

    def _stream(self, rate: int, application: str = "") -> object:  # type: ignore[override]
        stream = super()._stream(rate, application)
        stream.cost = ENCODE if application else DECODE
        return stream


def full(gateway: FakeGateway, client_id: str, **hello: object) -> bool:
    """Whether a hello is refused for want of capacity, in the words that a device understands."""
    gateway.front.take()
    gateway.tell(client_id, "hello", **hello)
    answers = gateway.front.take()
    if answers[-1]["type"] == "hello":
        return False
    assert words(answers) == ["alert", "goodbye"]
    assert "busy" in answers[0]["message"]
    return True


async def test_the_device_over_the_limit_is_told_and_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    """Two cores, of which 80 % may be reserved: sixteen calls of 0.1 cores."""
    heard: list[list[int]] = []

    async def talk(call: Call) -> None:
        call.listen("start")
        for value in range(9000, 9020):
            call.say(value)
            await trio.sleep(0.06)
        call.listen("stop")
        await trio.sleep(3)
        heard.append(call.heard)

    async with serving(echo, pool=DearPool(), cores=2.0) as gateway, trio.open_nursery() as nursery:
        for number in range(15):
            nursery.start_soon(talk, gateway.call(f"device {number}"))
        await trio.sleep(2)  # now their frames have been measured
        assert not full(gateway, "the sixteenth")
        assert full(gateway, "the seventeenth")
        assert full(gateway, "the eighteenth")
        statistics = gateway.sessions.statistics()
        assert statistics.refused == {"no_capacity": 2}
        np.testing.assert_allclose(statistics.reserved_cores, 16 * CALL)
    # The resampler hears silence before the first frame.
    assert [each[1:] for each in heard] == [list(range(9001, 9020))] * 15


async def test_before_anything_is_measured_a_call_costs_what_is_usual(
    autojump_clock: MockClock,
) -> None:
    async with serving(cores=1.0) as gateway:
        taken = 0
        while not full(gateway, f"device {taken}"):
            taken += 1
        assert 50 < taken < 150
        assert gateway.sessions.statistics().reserved_cores <= 0.8


async def test_a_call_that_ends_makes_room(autojump_clock: MockClock) -> None:
    async with serving(pool=DearPool(), cores=2.0) as gateway:
        calls = [gateway.call(f"device {number}") for number in range(16)]
        await trio.sleep(2)
        assert full(gateway, "another")
        calls[3].tell("goodbye")
        assert not full(gateway, "another")
        assert full(gateway, "yet another")
        for call in gateway.sessions.live:
            call.close()
        assert gateway.sessions.statistics().reserved_cores == 0


async def test_a_second_hello_of_the_same_device_needs_no_more_room(
    autojump_clock: MockClock,
) -> None:
    async with serving(pool=DearPool(), cores=2.0) as gateway:
        for number in range(16):
            gateway.call(f"device {number}")
        await trio.sleep(2)
        assert full(gateway, "another")
        assert not full(gateway, "device 5")


async def test_who_speaks_while_listening_reserves_more(autojump_clock: MockClock) -> None:
    async with serving(pool=DearPool(), cores=2.0) as gateway:
        gateway.call("measured")
        await trio.sleep(2)
        before = gateway.sessions.statistics().reserved_cores
        gateway.call("with echo cancellation", features={"aec": True})
        both = gateway.sessions.statistics().reserved_cores - before
        np.testing.assert_allclose(both, CALL + (DECODE + FRAME_S) / 0.06)


async def test_a_device_that_turns_out_to_speak_while_listening(autojump_clock: MockClock) -> None:
    async with serving(pool=DearPool(), cores=2.0) as gateway:
        call = gateway.call()
        call.listen("start", "realtime")
        await trio.sleep(2)
        full(gateway, "another")  # reservations are measured when somebody asks
        one, another = (_price(each) for each in gateway.sessions.live)
        np.testing.assert_allclose(one - another, (DECODE + FRAME_S) / 0.06)


def _price(session: Session) -> float:
    decode_s, encode_s = session.costs
    assert decode_s is not None
    assert encode_s is not None
    return session.price(Costs(decode_s, encode_s)).cores


async def test_none_means_as_many_as_max_sessions(autojump_clock: MockClock) -> None:
    async with serving(pool=DearPool(), cores=0.1, max_reserved=None) as gateway:
        for number in range(40):
            assert not full(gateway, f"device {number}")
