"""Handlers as people write them: they echo, leave, raise, dawdle, do not listen, talk too long.

A device's number says which of them its calls get, so that a device knows what to expect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from trio_gateway.backends.echo import echo
from trio_gateway.errors import ToolCallError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_gateway import Session
    from trio_gateway.sessions import Handler

__all__ = ["MOODS", "mood_of", "moody"]

_RATE: Final = 16_000
_TONE: Final = np.round(8000 * np.sin(np.arange(4 * _RATE) * (2 * np.pi * 440 / _RATE))).astype(
    np.int16
)


async def leave(session: Session) -> None:
    """Return in the middle of the first word."""
    async for _ in session.audio:
        return


async def stumble(session: Session) -> None:
    """Raise a little later, with a reply under way."""
    async for utterance in session.utterances():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.play, _TONE, _RATE)
            async for _ in utterance:
                await trio.sleep(0.1)
            raise RuntimeError("as it happens")


async def dawdle(session: Session) -> None:
    """Take four times as long for a frame as it lasts: the rest is dropped, and counted."""
    async for _ in session.audio:
        await trio.sleep(0.24)


async def ignore(session: Session) -> None:
    """Hear nothing, say something, and stay."""
    await session.play(_TONE[:_RATE], _RATE)
    await trio.sleep_forever()


async def lecture(session: Session) -> None:
    """Answer a word with four seconds, and use the device's tool meanwhile."""
    async for utterance in session.utterances():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_turn_up, session)
            await utterance.collect()
            await session.play(_TONE, _RATE)


async def _turn_up(session: Session) -> None:
    try:
        await session.call_tool("self.audio_speaker.set_volume", {"volume": 50}, timeout=2.0)
    except ToolCallError:
        await trio.lowlevel.checkpoint()  # the device has gone, or is busy


MOODS: Final[Mapping[str, Handler]] = {
    "echo": echo,
    "leave": leave,
    "stumble": stumble,
    "dawdle": dawdle,
    "ignore": ignore,
    "lecture": lecture,
}
_SHARES: Final = ("echo", "echo", "lecture", "echo", "stumble", "leave", "echo", "dawdle", "ignore")


def mood_of(number: int) -> str:
    """Return what kind of handler device `number` gets."""
    return _SHARES[number % len(_SHARES)]


async def moody(session: Session) -> None:
    """Handle a call as its device's number wants it."""
    mac = session.device.mac
    number = 0 if mac is None else int(mac.replace(":", ""), 16) & 0xFFFF
    await MOODS[mood_of(number)](session)
