"""Plays back what was said: when the speaker stops, or at once in realtime mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_gateway.session import Session

__all__ = ["echo"]


async def echo(session: Session) -> None:
    """Handle a session by repeating it."""
    async for utterance in session.utterances():
        if utterance.mode == "realtime":
            while not await session.play(utterance):  # interrupted: go on with what is said now
                pass
        else:
            speech = await utterance.collect()
            if len(speech):
                await session.play(speech)
