"""Invariant: a packet arrives never, once or twice, not before it was sent nor later than allowed.

Whatever else the network does, it loses the packets that it loses without that, and counts right.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_gateway.simulator.network import BadNetwork, Weather

FRAME = 0.06
SHARES = st.floats(0, 1)


@st.composite
def weathers(draw: st.DrawFn) -> Weather:
    loss, burst = draw(SHARES), draw(st.just(0.0) | st.floats(1, 20))
    assume(not burst or loss * (1 + burst) <= burst)
    return Weather(
        loss=loss,
        burst=burst,
        duplicate=draw(SHARES),
        reorder=draw(SHARES),
        jitter=draw(st.floats(0, 1)),
        seed=draw(st.integers(0, 1000)),
    )


@given(weather=weathers(), packets=st.integers(0, 60))
def test_what_arrives_when(weather: Weather, packets: int) -> None:
    network = BadNetwork(weather, 1, "up", FRAME)
    calm = BadNetwork(evolve(weather, duplicate=0, reorder=0, jitter=0), 1, "up", FRAME)
    arrivals = [network.admit(index * FRAME) for index in range(packets)]
    for index, dues in enumerate(arrivals):
        assert bool(dues) == bool(calm.admit(index * FRAME))
        assert len(dues) <= 1 + (weather.duplicate > 0)
        assert dues == sorted(dues)
        latest = weather.jitter + (1.5 * FRAME if weather.reorder else 0)
        assert all(0 <= due - index * FRAME <= latest + 1e-9 for due in dues)
        if weather.loss and weather.burst == 1 and index:
            assert dues or arrivals[index - 1], "two lost in a row"
    counts = network.statistics()
    assert (counts.lost, counts.passed) == (arrivals.count([]), packets - arrivals.count([]))
    assert counts.copied == sum(len(dues) == 2 for dues in arrivals)
