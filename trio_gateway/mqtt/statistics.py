"""What the way to an external broker knows about itself, as numbers that others may keep."""

from __future__ import annotations

from attrs import frozen

__all__ = ["ExternalBrokerStatistics"]


@frozen(kw_only=True)
class ExternalBrokerStatistics:
    """Counters since the front was opened, in messages unless said otherwise."""

    connected: bool
    connections: int
    """Times that the broker accepted us."""
    failures: int
    """Times that a connection was not made, or ended."""
    received: int
    """Read from the broker: delivered, refused or retained."""
    delivered: int
    refused: dict[str, int]
    """Not understood, by reason."""
    retained: int
    """Ignored: what a device once said is no event."""
    sent: int
    """Handed to the kernel."""
    queued: int
    """Waiting now."""
    dropped_full: int
    dropped_stale: int
    dropped_unaddressable: int
    """For a client id that no topic can carry."""
    asyncio_errors: int
    """Reports that asyncio had nobody to give to; 0 unless a library has a fault."""
