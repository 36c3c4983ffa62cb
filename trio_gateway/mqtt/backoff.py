"""How long to wait before a broker is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

__all__ = ["Backoff"]


class Backoff:
    """Seconds between attempts: doubling up to a cap, half of each left to chance.

    That is "equal jitter" (Marc Brooker, "Exponential Backoff And Jitter", AWS, 2015): after a
    restart, the gateways of one broker must neither come back in the same instant nor at once.

    Args:
        minimum: Of the first wait, in seconds.
        maximum: Of any wait.
        jitter: The chance.
    """

    def __init__(self, minimum: float, maximum: float, jitter: Random) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._jitter = jitter
        self._next = minimum

    def failed(self, *, refused: bool) -> float:
        """Return the wait after a failure; the longest at once if waiting will not cure it."""
        wait = self._maximum if refused else self._next
        self._next = min(2 * wait, self._maximum)
        return wait * self._jitter.uniform(0.5, 1)

    def succeeded(self) -> None:
        """Begin again at the minimum."""
        self._next = self._minimum
