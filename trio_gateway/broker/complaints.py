"""Log lines that a stranger can cause, in a number that he cannot choose.

2,000 refused connections a second would be 2,000 lines: an attack on the disk, and on the event
loop, for writing a line takes longer than refusing a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Complaints"]

INTERVAL = 1.0
"""Seconds between two lines of a kind. A guess: what a person can still read."""


@define
class Complaints:
    """At most one line in `INTERVAL` for each event and reason; no peer can invent either.

    The first is written at once. The ones that are not written are counted in the next that is, as
    `suppressed`; the statistics have counted them all.
    """

    _kinds: dict[tuple[str, str], _Kind] = field(factory=dict)

    def say(self, write: Callable[..., Any], event: str, reason: str, **details: object) -> None:
        """Call `write(event, reason=reason, **details)`, or do not.

        Args:
            write: A method of a logger.
            event: What has happened.
            reason: Why. An event with another reason is another kind.
            details: What differs between events of a kind.
        """
        now = trio.current_time()
        kind = self._kinds.setdefault((event, reason), _Kind())
        if now < kind.silent_until:
            kind.suppressed += 1
            return
        if kind.suppressed:
            details["suppressed"] = kind.suppressed
        kind.suppressed = 0
        kind.silent_until = now + INTERVAL
        write(event, reason=reason, **details)


@define
class _Kind:
    silent_until: float = 0.0
    suppressed: int = 0
