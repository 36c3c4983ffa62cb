"""Invariant: the intake keeps its bounds, and whom it closes is the oldest of who holds most."""

from __future__ import annotations

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.broker.intake import Intake
from trio_gateway.broker.peer import Peer
from trio_gateway.settings import MqttSettings


@define(eq=False)
class Held:
    """A connection that can be told to go."""

    peer: Peer
    aborted: bool = field(default=False, init=False)

    def abort(self, _reason: str) -> None:
        """Remember it."""
        self.aborted = True


# An address comes, or the n-th of those who are here leaves.
STEPS = st.lists(st.sampled_from("abcd") | st.integers(0, 20), max_size=60)


@given(steps=STEPS, bounds=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_against_a_list(steps: list[str | int], bounds: tuple[int, int]) -> None:
    per_address, most = sorted(bounds)
    intake = Intake(MqttSettings(max_pending=most, max_pending_per_address=per_address))
    here: list[Held] = []  # oldest first
    for step in steps:
        if isinstance(step, int):
            for leaving in here[step : step + 1]:
                intake.discard(leaving)
                here.remove(leaving)
            continue
        comer = Held(Peer(step, step))
        intake.add(comer)
        here.append(comer)
        aborted = [each for each in here if each.aborted]
        counts = {each.peer.address: 0 for each in here}
        for each in here:
            counts[each.peer.address] += 1
        if counts[step] <= per_address and len(here) <= most:
            assert aborted == []
            continue
        (closed,) = aborted
        assert counts[closed.peer.address] == max(counts.values())
        assert closed is next(each for each in here if each.peer.address == closed.peer.address)
        assert closed is not comer
        here.remove(closed)
        assert len(intake) == len(here) <= most
