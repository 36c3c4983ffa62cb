"""What stands behind the gateway: handlers that ship with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_gateway.backends.echo import echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.session import Session

__all__ = ["backend"]

_BACKENDS = {"echo": echo}


def backend(name: str) -> Callable[[Session], Awaitable[None]]:
    """Return the handler that a setting names.

    Raises:
        KeyError: There is none; the settings know their names.
    """
    return _BACKENDS[name]
