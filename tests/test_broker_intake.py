"""Whom the embedded endpoint lets go when it is crowded."""

from __future__ import annotations

import heapq

import pytest
from attrs import define, field

from trio_gateway.broker.intake import Intake
from trio_gateway.broker.peer import Peer
from trio_gateway.broker.statistics import Counters
from trio_gateway.settings import MqttSettings


@define(eq=False)
class FakeConnection:
    address: str
    ending: str | None = None
    peer: Peer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.peer = Peer(f"{self.address}:1", self.address)

    def abort(self, reason: str) -> None:
        self.ending = reason


def fill(intake: Intake, *addresses: str) -> list[FakeConnection]:
    made = [FakeConnection(address) for address in addresses]
    for each in made:
        intake.add(each)
    return made


def gone(connections: list[FakeConnection]) -> list[int]:
    return [at for at, each in enumerate(connections) if each.ending == "crowded_out"]


def intake_of(most: int, per_address: int) -> Intake:
    return Intake(MqttSettings(max_pending=most, max_pending_per_address=per_address), Counters())


def test_a_crowded_intake_closes_the_oldest_of_the_address_that_holds_most() -> None:
    intake = intake_of(4, 3)
    held = fill(intake, "device", "flood", "flood", "flood", "another")
    assert gone(held) == [1]
    held += fill(intake, "flood")  # both have as many as they may now, so it is its own again
    assert gone(held) == [1, 2]
    assert len(intake) == 4


def test_an_address_never_takes_from_another() -> None:
    intake = intake_of(100, 10)
    devices = fill(intake, *[f"device {number}" for number in range(90)])
    flood = fill(intake, *["flood"] * 1000)
    assert gone(devices) == []
    assert gone(flood) == list(range(990))


def test_of_many_addresses_with_one_each_the_oldest_goes() -> None:
    intake = intake_of(3, 3)
    assert gone(fill(intake, *"abcdef")) == [0, 1, 2]


def test_an_intake_forgets_who_has_left() -> None:
    intake = intake_of(2, 2)
    first, second = fill(intake, "a", "b")
    intake.discard(first)
    intake.discard(first)
    assert len(intake) == 1
    third = fill(intake, "a")
    assert gone([first, second, *third]) == []


def test_of_addresses_that_hold_less_than_a_flood_the_oldest_of_all_goes() -> None:
    intake = intake_of(16, 16)
    held = fill(intake, *"abcdefghijklmn", "nat", "nat", "new")
    assert gone(held) == [0]
    held += fill(intake, "nat")  # three of 16: more than an eighth
    assert gone(held) == [0, 14]


def test_who_has_a_client_where_it_comes_from_has_half_of_the_room() -> None:
    intake = intake_of(8, 8)
    held = fill(intake, "home", "home")
    intake.regard("home", home=True)
    held += fill(intake, *map(str, range(100)))
    assert gone(held) == [*range(2, 96)], "strangers had six of eight, and lost their own"
    held += fill(intake, *["home"] * 2)
    assert gone(held) == [*range(2, 98)]
    held += fill(intake, *["home"] * 3)
    assert gone(held) == [0, 1, *range(2, 98), 102], "now it is over its half itself"


def test_a_home_that_is_none_any_more_is_like_any_other() -> None:
    intake = intake_of(4, 4)
    held = fill(intake, "home")
    intake.regard("home", home=True)
    held += fill(intake, *"abc")
    intake.regard("home", home=False)
    held += fill(intake, "d")
    assert gone(held) == [1], "it came to the strangers last"
    assert len(intake) == 4


def test_connections_that_are_over_go_first() -> None:
    intake = intake_of(3, 3)
    counted = intake._counters
    held = fill(intake, "a", "b")
    ending = FakeConnection("c")
    intake.add(ending, over=True)
    held += fill(intake, "d")
    assert (gone(held), ending.ending) == ([], "crowded_out")
    intake.put_first(held[1])
    held += fill(intake, "e")
    assert gone(held) == [1]
    intake.put_first(held[1])  # it is gone: nothing happens
    assert counted.crowded_out == 2


@pytest.mark.parametrize("rate", [200, 1000, 2000])
@pytest.mark.parametrize("same", [True, False])
def test_200_devices_come_in_through_a_flood_from_everywhere(rate: int, same: bool) -> None:  # noqa: FBT001
    """Behind one NAT or not; over TLS it takes 150 ms from TCP to CONNECT."""
    intake = Intake(MqttSettings(), Counters())
    fill(intake, *map(str, range(1024)))
    waiting = [(0.01 * number, number) for number in range(200)]
    coming: list[tuple[float, int, FakeConnection]] = []
    attempts = done = 0
    for tick in range(5 * rate):
        now = tick / rate
        fill(intake, str(tick % 1024))
        while waiting and waiting[0][0] <= now:
            _, number = heapq.heappop(waiting)
            (connection,) = fill(intake, "school" if same else f"device {number}")
            heapq.heappush(coming, (now + 0.15, number, connection))
            attempts += 1
        while coming and coming[0][0] <= now:
            _, number, connection = heapq.heappop(coming)
            if connection.ending is None:
                intake.discard(connection)
                intake.regard(connection.peer.address, home=True)
                done += 1
            else:
                heapq.heappush(waiting, (now + 1, number))
    assert done == 200
    assert attempts <= 220
