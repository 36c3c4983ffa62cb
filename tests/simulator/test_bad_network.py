from __future__ import annotations

from itertools import groupby

import pytest

from trio_gateway.simulator.network import BadNetwork, Weather

FRAME = 0.06
PACKETS = 5000


def fates(weather: Weather, device: int = 0) -> list[list[float]]:
    network = BadNetwork(weather, device, "up", FRAME)
    return [network.admit(index * FRAME) for index in range(PACKETS)]


def lost(weather: Weather) -> list[bool]:
    return [not arrivals for arrivals in fates(weather)]


def test_the_seed_decides_all() -> None:
    weather = Weather(loss=0.1, duplicate=0.1, reorder=0.1, jitter=0.05, seed=3)
    assert fates(weather) == fates(weather)
    assert fates(weather) != fates(weather, device=1)
    other = Weather(loss=0.1, duplicate=0.1, reorder=0.1, jitter=0.05, seed=4)
    assert fates(weather) != fates(other)
    other_way = BadNetwork(weather, 0, "down", FRAME)
    assert fates(weather) != [other_way.admit(index * FRAME) for index in range(PACKETS)]


def test_the_same_in_every_process() -> None:
    weather = Weather(loss=0.3, seed=1)
    network = BadNetwork(weather, 7, "up", FRAME)
    assert [index for index in range(20) if not network.admit(0.0)] == [1, 12, 16, 19]


def test_packets_are_lost_as_often_as_asked() -> None:
    assert 0.08 * PACKETS < sum(lost(Weather(loss=0.1))) < 0.12 * PACKETS
    assert all(lost(Weather(loss=1.0)))
    assert not any(lost(Weather(reorder=1.0, jitter=1.0, duplicate=1.0)))


@pytest.mark.parametrize("burst", [1.0, 3.0, 10.0])
def test_bursts_are_as_long_and_as_many_as_asked(burst: float) -> None:
    losses = lost(Weather(loss=0.2, burst=burst, seed=2))
    assert 0.16 * PACKETS < sum(losses) < 0.24 * PACKETS
    runs = [len(list(run)) for is_lost, run in groupby(losses) if is_lost]
    assert 0.8 * burst < sum(runs) / len(runs) < 1.2 * burst
    assert burst > 1 or set(runs) == {1}


@pytest.mark.parametrize(("loss", "burst"), [(0.51, 1), (0.8, 3), (1.0, 100), (0.1, 0.5)])
def test_bursts_too_short_for_the_loss_are_refused(loss: float, burst: float) -> None:
    with pytest.raises(ValueError, match="cannot make a loss"):
        Weather(loss=loss, burst=burst)


def test_the_longest_loss_that_bursts_can_make() -> None:
    assert sum(lost(Weather(loss=0.5, burst=1))) == PACKETS / 2  # every other one
    assert 0.7 * PACKETS < sum(lost(Weather(loss=0.75, burst=3))) < 0.8 * PACKETS


def test_other_trouble_does_not_lose_other_packets() -> None:
    for burst in (0.0, 3.0):
        still = lost(Weather(loss=0.1, burst=burst))
        windy = Weather(loss=0.1, burst=burst, duplicate=0.5, reorder=0.5, jitter=0.1)
        assert still == lost(windy)


def test_jitter_delays_up_to_its_limit() -> None:
    arrivals = fates(Weather(jitter=0.02))
    delays = [due - index * FRAME for index, [due] in enumerate(arrivals)]
    assert min(delays) >= 0
    assert 0.019 < max(delays) <= 0.02


def test_copies_have_a_delay_of_their_own() -> None:
    arrivals = fates(Weather(duplicate=0.1, jitter=0.02))
    copied = {index: dues for index, dues in enumerate(arrivals) if len(dues) == 2}
    assert 0.08 * PACKETS < len(copied) < 0.12 * PACKETS
    assert all(len(dues) == 1 for index, dues in enumerate(arrivals) if index not in copied)
    for index, (first, second) in copied.items():
        assert index * FRAME <= first < second <= index * FRAME + 0.02


def test_a_reordered_packet_is_overtaken_by_its_successor_only() -> None:
    dues = [due for [due] in fates(Weather(reorder=0.1))]
    arrivals = sorted(range(PACKETS), key=lambda index: dues[index])
    late = [i for i, due in enumerate(dues) if due > i * FRAME]
    assert 0.08 * PACKETS < len(late) < 0.12 * PACKETS
    place = {index: at for at, index in enumerate(arrivals)}
    for index in late:
        if index + 1 < PACKETS and index + 1 not in late:
            assert place[index] == place[index + 1] + 1


def test_what_became_of_the_packets_is_counted() -> None:
    weather = Weather(loss=0.1, duplicate=0.2, reorder=0.1, jitter=0.08)
    network = BadNetwork(weather, 0, "up", FRAME)
    arrivals = [network.admit(0.0) for _ in range(PACKETS)]
    statistics = network.statistics()
    assert statistics.lost == arrivals.count([])
    assert statistics.passed == PACKETS - statistics.lost
    assert statistics.copied == sum(len(dues) == 2 for dues in arrivals)
    assert statistics.held == sum(dues != [] and min(dues) >= FRAME for dues in arrivals)
    assert min(statistics.lost, statistics.copied, statistics.held) > 0


def test_fine_weather() -> None:
    assert Weather(seed=5, burst=3).fine
    for trouble in Weather(jitter=0.001), Weather(loss=0.1), Weather(duplicate=0.1):
        assert not trouble.fine
    assert fates(Weather()) == [[index * FRAME] for index in range(PACKETS)]
