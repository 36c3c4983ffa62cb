"""Exception groups, where they say nothing that their only exception does not say better."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["sole_errors"]


@contextmanager
def sole_errors() -> Iterator[None]:
    """Raise what a group holds instead of the group, if that is a single exception.

    A gateway is five nurseries deep. That is our affair; an address in use, or what the body of
    the `async with` raised, should look to the caller as if there were none.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group, which would print it all the same
            del error, group, context
