"""Who is at the other end of a stream, as far as the network says."""

from __future__ import annotations

from contextlib import suppress
from typing import Self

import trio
from attrs import frozen

from trio_gateway.broker.lingering import bottom_of
from trio_gateway.core.rate_limit import network_of

__all__ = ["Peer"]


@frozen
class Peer:
    """The other end of one stream.

    Attributes:
        name: "host:port", or "[host]:port" for IPv6, for the log.
        address: What limits per address go by: an IPv4 address, or an IPv6 network of 64 bits.
    """

    name: str
    address: str

    @classmethod
    def of(cls, stream: trio.abc.Stream) -> Self:
        """Ask the socket at the bottom of `stream`.

        What has no address, or none any more, is named by its kind, and all those count as one.
        """
        stream = bottom_of(stream)
        if isinstance(stream, trio.SocketStream):
            with suppress(OSError):  # gone already
                host, port = stream.socket.getpeername()[:2]
                shown = f"[{host}]" if ":" in host else host
                return cls(f"{shown}:{port}", network_of(host))
        kind = type(stream).__name__
        return cls(kind, kind)
