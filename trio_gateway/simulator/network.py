"""A seeded bad network: it loses, repeats, reorders and delays datagrams, the same for each seed.

Sans-IO: `admit` says when a packet is to arrive; who carries it there keeps it until then.

Loss comes one packet at a time, or in bursts, after Gilbert ("Capacity of a burst-noise channel",
Bell System Technical Journal 39, 1960) with nothing lost in the good state and all in the bad one:

    good -> bad with probability loss / (burst * (1 - loss)), bad -> good with 1 / burst

so that a stay in the bad state is `burst` packets long and a share `loss` of all packets falls into
it, both on average.
"""

from __future__ import annotations

from random import Random
from typing import Final, Literal

from attrs import define, field, frozen

__all__ = ["BadNetwork", "NetworkStatistics", "Weather"]

_OVERTAKEN_BY: Final = 1.5
# Frames that a reordered packet is held back: the next one passes it, the one after that does not.
# It comes half a frame after its successor, which a receiver that waits for 60 ms can repair.


@frozen(kw_only=True)
class Weather:
    """What the network does to each packet, in each direction.

    Raises:
        ValueError: The bursts are too short for so much loss.
    """

    loss: float = 0.0
    """Probability, 0 to 1, that it never arrives."""

    burst: float = 0.0
    """Mean length of a run of lost packets, 1 or more; 0: each is lost or not by itself, which
    makes runs of 1 / (1 - loss)."""

    duplicate: float = 0.0
    """Probability, 0 to 1, that it arrives twice. The copy has a delay of its own."""

    reorder: float = 0.0
    """Probability, 0 to 1, that its successor overtakes it; a copy it has is not held back."""

    jitter: float = 0.0
    """Greatest random delay, seconds; uniform from 0."""

    seed: int = 0

    def __attrs_post_init__(self) -> None:
        # Two bursts have a packet between them that arrives.
        if self.burst and (self.burst < 1 or self.loss * (1 + self.burst) > self.burst):
            raise ValueError(
                f"bursts of {self.burst:g} packets cannot make a loss of {self.loss:g}"
            )

    @property
    def fine(self) -> bool:
        """Whether packets pass untouched."""
        return not (self.loss or self.duplicate or self.reorder or self.jitter)


@frozen
class NetworkStatistics:
    """What became of the packets so far."""

    passed: int
    lost: int
    held: int
    """Of those that passed: by a frame or more, so that they may have come too late."""
    copied: int
    """Of those that passed: arrived twice."""


@define
class BadNetwork:
    """One direction of one device's path.

    Args:
        weather: What it does.
        device: Number of the device; with the direction and the seed it names the path.
        direction: Of the packets, seen from the device.
        frame_s: Time between two packets, seconds.
    """

    _weather: Weather
    _device: int
    _direction: Literal["up", "down"]
    _frame_s: float
    _random: Random = field(init=False, repr=False)
    _copies: Random = field(init=False, repr=False)
    _losing: bool | None = field(init=False, default=None)  # None: before the first packet
    _passed: int = field(init=False, default=0)
    _lost: int = field(init=False, default=0)
    _held: int = field(init=False, default=0)
    _copied: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # Seeding with a str is stable over processes and versions, unlike hash().
        path = f"{self._weather.seed}/{self._device}/{self._direction}"
        self._random = Random(path)  # noqa: S311
        self._copies = Random(f"{path}/copies")  # noqa: S311

    def admit(self, now: float) -> list[float]:
        """Take one packet: when it arrives, and again if it does so twice; empty if it is lost."""
        weather = self._weather
        # The same draws for every packet, whatever is asked for: so a little more jitter does not
        # choose other packets to lose.
        lost, reordered, late = (self._random.random() for _ in range(3))
        doubled, copy_late = (self._copies.random() for _ in range(2))
        self._losing = lost < self._probability_of_loss()
        if self._losing:
            self._lost += 1
            return []
        self._passed += 1
        delays = [late * weather.jitter + (reordered < weather.reorder) * self._hold_s]
        if doubled < weather.duplicate:
            self._copied += 1
            delays.append(copy_late * weather.jitter)
        self._held += min(delays) >= self._frame_s
        return sorted(now + delay for delay in delays)

    def statistics(self) -> NetworkStatistics:
        """The counts."""
        return NetworkStatistics(self._passed, self._lost, self._held, self._copied)

    @property
    def _hold_s(self) -> float:
        return _OVERTAKEN_BY * self._frame_s

    def _probability_of_loss(self) -> float:
        loss, burst = self._weather.loss, self._weather.burst
        if not burst or self._losing is None:
            return loss
        return 1 - 1 / burst if self._losing else loss / (burst * (1 - loss))
