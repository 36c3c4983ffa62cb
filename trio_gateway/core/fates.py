"""What became of every datagram and every frame, in counts that add up.

    received       = refused + duplicate + late + unconfirmed + cut_off + waiting + arrived
    arrived + lost = decoded + recovered + concealed + failed + dropped + decoding
    decoded + recovered + concealed + failed = read + unread + readable
    framed         = sent + unsent + failed + dropped + flushed + queued

What stands last on the right is what is on its way now; all else is final. `unaccounted` says where
the counts do not add up: a frame was lost without a reason, which is a bug.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Self

from attrs import field, fields_dict, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["DownlinkStatistics", "UplinkStatistics"]


@frozen(kw_only=True)
class UplinkStatistics:
    """From a device to the handler.

    Attributes:
        received: Datagrams with the session's ssrc.
        refused: Of them those that are malformed or implausible, by reason.
        duplicate: Datagrams with a sequence that had been here.
        late: Datagrams whose place in the stream had passed.
        unconfirmed: Datagrams that were held and given up: see pinning.py.
        cut_off: Datagrams that still waited when the session ended.
        waiting: Datagrams that wait now: behind a gap, or for another to confirm them.
        arrived: Frames that left in order with their payload.
        lost: Frames that never came, named as lost.
        skipped: Missing frames of long gaps that were not named; nothing became of them.
        decoded: Frames that arrived and were decoded.
        recovered: Lost frames of which the next packet carried a copy (in-band FEC). Of a packet
            of several Opus frames, such as 3 x 20 ms, it is one of the last, and libopus conceals
            the others.
        concealed: Lost frames that libopus filled in.
        failed: Frames that libopus refused; they are read as silence.
        dropped: Frames given up before they were decoded.
        decoding: Frames that wait for a worker, or are with one, now.
        read: Frames that the handler has taken.
        unread: Frames given up after that: it did not take them in time, or they came after
            `listen stop`, or the session ended.
        readable: Frames that it can take now.
    """

    received: int = 0
    refused: Mapping[str, int] = field(factory=dict)
    duplicate: int = 0
    late: int = 0
    unconfirmed: int = 0
    cut_off: int = 0
    waiting: int = 0
    arrived: int = 0
    lost: int = 0
    skipped: int = 0
    decoded: int = 0
    recovered: int = 0
    concealed: int = 0
    failed: int = 0
    dropped: int = 0
    decoding: int = 0
    read: int = 0
    unread: int = 0
    readable: int = 0

    @property
    def taken(self) -> int:
        """Datagrams that were not refused."""
        return self.received - sum(self.refused.values())

    def unaccounted(self) -> dict[str, int]:
        """Return what is missing of each sum that does not add up; {} if all do."""
        heard = self.decoded + self.recovered + self.concealed + self.failed
        over = self.duplicate + self.late + self.unconfirmed + self.cut_off
        return _differing(
            datagrams=self.taken - over - self.waiting - self.arrived,
            frames=self.arrived + self.lost - heard - self.dropped - self.decoding,
            heard=heard - self.read - self.unread - self.readable,
        )

    @classmethod
    def sum_of(cls, parts: Iterable[UplinkStatistics]) -> Self:
        """Add up, field by field."""
        parts = tuple(parts)
        refused: Counter[str] = Counter()
        for part in parts:
            refused.update(part.refused)
        names = (name for name in fields_dict(cls) if name != "refused")
        sums = {name: sum(getattr(part, name) for part in parts) for name in names}
        return cls(refused=dict(refused), **sums)


@frozen(kw_only=True)
class DownlinkStatistics:
    """From the handler to a device.

    Attributes:
        framed: Frames that were cut from what is played.
        sent: Frames that left.
        unsent: Frames that the socket did not take.
        failed: Frames that libopus refused, or that cost two workers their lives.
        dropped: Frames that the pool gave up.
        flushed: Frames that an abort or the session's end overtook.
        queued: Frames that are being encoded, or wait for their time, now.
    """

    framed: int = 0
    sent: int = 0
    unsent: int = 0
    failed: int = 0
    dropped: int = 0
    flushed: int = 0
    queued: int = 0

    def unaccounted(self) -> dict[str, int]:
        """Return what is missing if the sum does not add up; {} if it does."""
        gone = self.sent + self.unsent + self.failed + self.dropped + self.flushed
        return _differing(framed=self.framed - gone - self.queued)

    @classmethod
    def sum_of(cls, parts: Iterable[DownlinkStatistics]) -> Self:
        """Add up, field by field."""
        parts = tuple(parts)
        return cls(
            **{name: sum(getattr(part, name) for part in parts) for name in fields_dict(cls)}
        )


def _differing(**differences: int) -> dict[str, int]:
    return {name: difference for name, difference in differences.items() if difference}
