"""How a connection is closed so that the other end gets the last bytes."""

from __future__ import annotations

from contextlib import suppress

import trio

__all__ = ["bottom_of", "linger"]

DISCARD_BYTES = 64 * 1024
"""Read at once. A guess."""


def bottom_of(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Return what is below TLS, or the stream itself."""
    while (below := getattr(stream, "transport_stream", None)) is not None:
        stream = below
    return stream


async def linger(stream: trio.abc.Stream) -> None:
    """Say that nothing more comes, and discard what comes until the peer has nothing more either.

    A socket that is closed with bytes unread sends a reset (RFC 2525, 2.17), and with that the peer
    loses what it has not read yet: its goodbye. Whoever was kept waiting has such bytes. Behind TLS
    they are not even decrypted.

    The caller has a deadline; a peer can make this last as long as it likes.
    """
    bottom = bottom_of(stream)
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await bottom.send_eof()
            while await bottom.receive_some(DISCARD_BYTES):
                pass
