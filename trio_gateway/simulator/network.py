"""A seeded bad network: it loses, reorders and delays datagrams, the same ones for the same seed.

Sans-IO: `admit` says when a packet is to arrive; who carries it there keeps it until then.
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
    """What the network does to each packet, independently, in each direction."""

    loss: float = 0.0
    """Probability, 0 to 1, that it never arrives."""

    reorder: float = 0.0
    """Probability, 0 to 1, that its successor overtakes it."""

    jitter: float = 0.0
    """Greatest random delay, seconds; uniform from 0."""

    seed: int = 0

    @property
    def fine(self) -> bool:
        """Whether packets pass untouched."""
        return not (self.loss or self.reorder or self.jitter)


@frozen
class NetworkStatistics:
    """What became of the packets so far."""

    passed: int
    lost: int
    held: int
    """Of those that passed: by a frame or more, so that they may have come too late."""


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
    _passed: int = field(init=False, default=0)
    _lost: int = field(init=False, default=0)
    _held: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # Seeding with a str is stable over processes and versions, unlike hash().
        self._random = Random(f"{self._weather.seed}/{self._device}/{self._direction}")  # noqa: S311

    def admit(self, now: float) -> float | None:
        """Take one packet: when it arrives, or None if it is lost."""
        # Three draws for every packet, whatever is asked for: so a little more jitter does not
        # choose other packets to lose.
        lost, reordered, late = (self._random.random() for _ in range(3))
        if lost < self._weather.loss:
            self._lost += 1
            return None
        self._passed += 1
        delay = late * self._weather.jitter
        if reordered < self._weather.reorder:
            delay += _OVERTAKEN_BY * self._frame_s
        self._held += delay >= self._frame_s
        return now + delay

    def statistics(self) -> NetworkStatistics:
        """The counts."""
        return NetworkStatistics(self._passed, self._lost, self._held)
