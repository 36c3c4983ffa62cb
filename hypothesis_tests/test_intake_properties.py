"""Invariant: the intake keeps its bounds, never closes who came last, and closes by its rules."""

from __future__ import annotations

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.broker.intake import FLOOD_SHARE, Intake
from trio_gateway.broker.peer import Peer
from trio_gateway.broker.statistics import Counters
from trio_gateway.settings import MqttSettings


@define(eq=False)
class Held:
    """A connection that can be told to go."""

    peer: Peer
    aborted: bool = field(default=False, init=False)

    def abort(self, _reason: str) -> None:
        """Remember it."""
        self.aborted = True


ADDRESSES = "abcdefghijkl"
# An address comes, gets or loses a client ("A"), or the n-th of those who are here leaves.
STEPS = st.lists(st.sampled_from(ADDRESSES + ADDRESSES.upper()) | st.integers(0, 40), max_size=120)


def expected(here: list[Held], homes: set[str], most: int, per_address: int) -> list[Held]:
    """Return those of whom the oldest has to go, oldest first."""

    def of(address: str) -> list[Held]:
        return [each for each in here if each.peer.address == address]

    own = of(here[-1].peer.address)
    if len(own) > per_address:
        return own
    if len(here) <= most:
        return []
    outside = [each for each in here if each.peer.address not in homes]
    crowd = outside
    if len(outside) <= most // 2:
        crowd = [each for each in here if each.peer.address in homes]
    largest = max(len(of(each.peer.address)) for each in crowd)
    if largest > max(1, most // FLOOD_SHARE):
        return [each for each in crowd if len(of(each.peer.address)) == largest]
    return crowd


@given(steps=STEPS, bounds=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_against_a_list(steps: list[str | int], bounds: tuple[int, int]) -> None:
    per_address, most = sorted(bounds)
    counters = Counters()
    settings = MqttSettings(max_pending=most, max_pending_per_address=per_address)
    intake = Intake(settings, counters)
    here: list[Held] = []  # oldest first
    homes: set[str] = set()
    for step in steps:
        if isinstance(step, int):
            for leaving in here[step : step + 1]:
                intake.discard(leaving)
                here.remove(leaving)
            continue
        if step.isupper():
            address = step.lower()
            homes ^= {address}
            intake.regard(address, home=address in homes)
            # Those who change sides are the youngest there.
            here.sort(key=lambda each: each.peer.address == address)
            continue
        comer = Held(Peer(step, step))
        intake.add(comer)
        here.append(comer)
        crowd = expected(here, homes, most, per_address)
        aborted = [each for each in here if each.aborted]
        assert len(aborted) == bool(crowd)
        for closed in aborted:
            same = [each for each in here if each.peer.address == closed.peer.address]
            assert closed in crowd
            assert closed is same[0]
            assert closed is not comer
            if len(same) == 1:
                assert closed is crowd[0]
            here.remove(closed)
        assert len(intake) == len(here) <= most
