"""What became of everything in all calls, those that are over included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from trio_gateway.core.fates import DownlinkStatistics, UplinkStatistics
from trio_gateway.session import SessionStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_gateway.session import Session

__all__ = ["SessionsStatistics", "Tally"]


@frozen(kw_only=True)
class SessionsStatistics:
    """All sessions, those that are over included; counters never go back."""

    active: int
    """Sessions open now."""
    leaving: int
    """Sessions that are over and whose handlers have not left."""
    opened: int
    """Hellos that got one."""
    refused: dict[str, int]
    """Hellos that got no session, by reason."""
    closed: dict[str, int]
    """Sessions that ended, by reason."""
    stale: int
    """Messages that named a session that is over."""
    up: UplinkStatistics
    """What became of all that devices said."""
    down: DownlinkStatistics
    """What became of all that was played to them."""
    messages_dropped: int
    """Messages that no handler read in time."""
    reserved_cores: float
    """What the calls that are open now reserve: see core/admission.py."""

    @property
    def frames_up(self) -> int:
        """Frames decoded, lost ones not counted."""
        return self.up.decoded

    @property
    def frames_down(self) -> int:
        """Frames sent."""
        return self.down.sent

    @property
    def lost(self) -> int:
        """Uplink frames that never came."""
        return self.up.lost + self.up.skipped

    @property
    def dropped(self) -> int:
        """Frames given up on our side, either way, other than by an abort."""
        return self.up.dropped + self.up.unread + self.down.dropped + self.down.unsent

    def unaccounted(self) -> dict[str, int]:
        """Return what is missing of each sum that does not add up (core/fates.py); {} if all do."""
        return {f"up.{name}": number for name, number in self.up.unaccounted().items()} | {
            f"down.{name}": number for name, number in self.down.unaccounted().items()
        }


class Tally:
    """Remembers the counts of sessions that are over, and asks the others for theirs.

    A session is over when its handler has left: until then it may read what was said.
    """

    def __init__(self) -> None:
        self._current: set[Session] = set()
        self._past = _sum_of(())

    def __len__(self) -> int:
        """Sessions that are not settled."""
        return len(self._current)

    def begin(self, session: Session) -> None:
        """Count `session` from now on."""
        self._current.add(session)

    def settle(self, session: Session) -> None:
        """Nothing more becomes of what is in `session`."""
        session.settle()
        self._current.remove(session)
        self._past = _sum_of([self._past, session.statistics()])

    def total(self) -> SessionStatistics:
        """Of all sessions."""
        return _sum_of([self._past, *(session.statistics() for session in self._current)])


def _sum_of(parts: Iterable[SessionStatistics]) -> SessionStatistics:
    parts = tuple(parts)
    return SessionStatistics(
        up=UplinkStatistics.sum_of(part.up for part in parts),
        down=DownlinkStatistics.sum_of(part.down for part in parts),
        messages_dropped=sum(part.messages_dropped for part in parts),
    )
