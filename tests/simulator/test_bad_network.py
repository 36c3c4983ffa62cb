from __future__ import annotations

from trio_gateway.simulator.network import BadNetwork, Weather

FRAME = 0.06
PACKETS = 5000


def fates(weather: Weather, device: int = 0) -> list[float | None]:
    network = BadNetwork(weather, device, "up", FRAME)
    return [network.admit(index * FRAME) for index in range(PACKETS)]


def test_the_seed_decides_all() -> None:
    weather = Weather(loss=0.1, reorder=0.1, jitter=0.05, seed=3)
    assert fates(weather) == fates(weather)
    assert fates(weather) != fates(weather, device=1)
    assert fates(weather) != fates(Weather(loss=0.1, reorder=0.1, jitter=0.05, seed=4))
    other_way = BadNetwork(weather, 0, "down", FRAME)
    assert fates(weather) != [other_way.admit(index * FRAME) for index in range(PACKETS)]


def test_the_same_in_every_process() -> None:
    network = BadNetwork(Weather(loss=0.3, seed=1), 7, "up", FRAME)
    lost = [index for index in range(20) if network.admit(0.0) is None]
    assert lost == [1, 12, 16, 19]


def test_packets_are_lost_as_often_as_asked() -> None:
    lost = fates(Weather(loss=0.1)).count(None)
    assert 0.08 * PACKETS < lost < 0.12 * PACKETS
    assert fates(Weather(loss=1.0)) == [None] * PACKETS
    assert None not in fates(Weather(reorder=1.0, jitter=1.0))


def test_more_jitter_does_not_lose_other_packets() -> None:
    still = fates(Weather(loss=0.1))
    windy = fates(Weather(loss=0.1, reorder=0.5, jitter=0.1))
    assert [due is None for due in still] == [due is None for due in windy]


def test_jitter_delays_up_to_its_limit() -> None:
    delays = [due - index * FRAME for index, due in enumerate(fates(Weather(jitter=0.02))) if due]
    assert min(delays) >= 0
    assert 0.019 < max(delays) <= 0.02


def test_a_reordered_packet_is_overtaken_by_its_successor_only() -> None:
    dues = fates(Weather(reorder=0.1))
    assert None not in dues
    arrivals = sorted(range(PACKETS), key=lambda index: dues[index] or 0)
    late = [i for i, due in enumerate(dues) if due and due > i * FRAME]
    assert 0.08 * PACKETS < len(late) < 0.12 * PACKETS
    place = {index: at for at, index in enumerate(arrivals)}
    for index in late:
        if index + 1 < PACKETS and index + 1 not in late:
            assert place[index] == place[index + 1] + 1


def test_what_may_have_come_too_late_is_counted() -> None:
    network = BadNetwork(Weather(loss=0.1, reorder=0.1, jitter=0.08), 0, "up", FRAME)
    dues = [network.admit(0.0) for _ in range(PACKETS)]
    statistics = network.statistics()
    assert statistics.lost == dues.count(None)
    assert statistics.passed == PACKETS - statistics.lost
    assert statistics.held == sum(due is not None and due >= FRAME for due in dues)


def test_fine_weather() -> None:
    assert Weather(seed=5).fine
    assert not Weather(jitter=0.001).fine
    assert fates(Weather()) == [index * FRAME for index in range(PACKETS)]
