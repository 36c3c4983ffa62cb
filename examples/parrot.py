"""A parrot in a dozen lines: every device hears what it said, a little faster."""

from __future__ import annotations

import trio

from trio_gateway import Session, open_gateway


async def parrot(session: Session) -> None:
    async for utterance in session.utterances():
        speech = await utterance.collect()
        await session.play(speech, rate=session.audio.rate * 5 // 4)


async def main() -> None:
    async with open_gateway() as gateway:
        print(f"MQTT {gateway.addresses.mqtt}, UDP {gateway.addresses.udp}; Ctrl-C ends")
        await gateway.serve(parrot)


if __name__ == "__main__":
    trio.run(main)
