"""Devices that keep to the protocol, on networks that do not keep to anything.

A life: connect, hello, a few things a user does, and one of several ends. Then the same device
comes again. What happens is drawn from the seed, the device's number and the count of its lives.
"""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve
from moods import mood_of
from town import USERNAME, client_id, password

from trio_gateway.core.control import encode
from trio_gateway.errors import BadMessage
from trio_gateway.simulator.device import Device
from trio_gateway.simulator.handset import Handset, Meters
from trio_gateway.simulator.mqtt_client import ConnectionLost, MqttClient
from trio_gateway.simulator.network import Weather
from trio_gateway.simulator.plan import Plan
from trio_gateway.simulator.voice import voice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from town import Town

    from trio_gateway.core.control import Message

__all__ = ["live_on", "reset"]

_ANSWER: Final = 10.0  # seconds for the answer to a hello: protocol section 5, as in simulator/plan
_FULL: Final = "Error: All lines are busy"  # too many devices for the cores: no fault of either
_PAUSE: Final = (1.0, 1.5)  # seconds between lives: who logs in more often is refused, rightly
_HEARD: Final = 6  # packets of a word that must have got through before silence is a surprise
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing says RST and not FIN


async def live_on(town: Town, number: int) -> None:
    """Let device `number` live one life after the other."""
    count = 0
    while True:
        count += 1
        draw = Random(f"{town.seed}/{number}/{count}")  # noqa: S311  to be the same every time
        town.did["lives"] += 1
        try:
            await Life(town, number, draw).run()
        except ConnectionLost as error:
            town.surprises[f"device: {error}"] += 1
        except OSError as error:
            town.surprises[f"device cannot connect: {error}"] += 1
        await trio.sleep(draw.uniform(*_PAUSE))


def reset(stream: trio.SocketStream) -> None:
    """Have a connection end in the rudest way that TCP has."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Life:
    """From power on to whatever end."""

    def __init__(self, town: Town, number: int, draw: Random) -> None:
        self._town = town
        self._number = number
        self._draw = draw
        self._mood = mood_of(number)
        self._device = Device(client_id(number))
        self._mode = draw.choice(("manual", "manual", "auto", "realtime"))
        spoken = voice(number)
        self._words = evolve(spoken, packets=spoken.packets[: draw.randrange(6, 30)])
        plan = Plan(gateway=town.mqtt, mode=self._mode, weather=_weather(draw))  # type: ignore[arg-type]
        self._handset = Handset(
            self._device,
            number,
            self._words,
            plan,
            town,
            Meters(),
            on_end_of_speech=self._announce,
        )
        self._news = trio.Event()
        self._lost = ""

    async def run(self) -> None:
        """Live it.

        Raises:
            ConnectionLost: The gateway hung up.
            OSError: It could not be reached.
        """
        lost: ConnectionLost | None = None
        async with await self._town.connect() as stream:
            client = MqttClient(stream)
            who = self._device.client_id
            await client.connect(who, USERNAME, password(self._town.key, who))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, client)
                try:
                    await self._spend(client)
                    await self._end(client, stream)
                except ConnectionLost as error:
                    lost = error  # raised outside, or the nursery would put it into a group
                nursery.cancel_scope.cancel()
        if lost is not None:
            raise lost

    async def _spend(self, client: MqttClient) -> None:
        for _ in range(self._draw.randint(1, 2)):  # the second hello comes without a goodbye
            async with self._call(client) as answered:
                acts = self._draw.choices(
                    (self._talk, self._be_silent, self._fidget), (6, 2, 1), k=3
                )
                for act in acts[: self._draw.randint(0, 3)]:
                    if answered and self._device.channel is not None:
                        await act(client)

    @asynccontextmanager
    async def _call(self, client: MqttClient) -> AsyncIterator[bool]:
        """Hello, and a socket for what comes; nothing is said at the end."""
        device, handset, town = self._device, self._handset, self._town
        await self._say(client, device.hello())
        await self._until(lambda: device.channel is not None or device.dismissed, _ANSWER)
        if (channel := device.channel) is None:
            if device.refusal.startswith(_FULL):
                town.did["full"] += 1
            else:
                town.surprises[f"a hello was answered by {device.refusal or 'silence'!r}"] += 1
            yield False
            return
        town.did["calls"] += 1
        town.live[self._number] = int.from_bytes(channel.nonce[4:8], "big")
        handset.line = await town.open_line(channel.server, handset.receive_datagram)
        try:
            yield True
        finally:
            handset.stop_talking()
            handset.line.close()
            handset.line = None
            town.live.pop(self._number, None)

    async def _talk(self, client: MqttClient) -> None:
        """Say something; hear the answer to the end, or interrupt it, or do not wait for it."""
        device, handset, town = self._device, self._handset, self._town
        town.did["talks"] += 1
        passed = handset.up.statistics().passed
        await self._say(client, device.listen_start(self._mode))  # type: ignore[arg-type]
        talk = handset.start_talking()
        if self._draw.random() < 0.1:  # noqa: PLR2004  the user thinks better of it
            await trio.sleep(self._draw.uniform(0.0, 0.5))
            await self._say(client, device.listen_stop())
            return
        await self._until(lambda: talk.ended or device.channel is None, _ANSWER)
        if self._mode == "manual":
            await self._say(client, device.listen_stop())
        heard = handset.up.statistics().passed - passed >= _HEARD
        owed = heard and self._mood == "echo" and self._mode == "manual"
        answered = await self._until(
            lambda: device.playback is not None or device.channel is None, _ANSWER if owed else 1.0
        )
        if owed and not answered:
            town.surprises["a word was not echoed"] += 1
        town.did["answers"] += device.playback is not None
        await self._hear_out(client)

    async def _hear_out(self, client: MqttClient) -> None:
        device, draw = self._device, self._draw
        if draw.random() < 0.3:  # noqa: PLR2004  a guess at how impatient users are
            await trio.sleep(draw.uniform(0.0, 0.8))
            if device.channel is not None:
                self._town.did["aborts"] += 1
                message = {"session_id": device.session_id, "type": "abort"}
                await self._say(client, message)
        await self._until(lambda: device.playback is None or device.playback.ended, 5.0)

    async def _be_silent(self, _: MqttClient) -> None:
        await trio.sleep(self._draw.uniform(0.1, 2.0))

    async def _fidget(self, client: MqttClient) -> None:
        """Press the button more often than anybody can speak."""
        for _ in range(self._draw.randint(2, 5)):
            await self._say(client, self._device.listen_start("manual"))
            self._handset.start_talking()
            await trio.sleep(self._draw.uniform(0.0, 0.15))
            await self._say(client, self._device.listen_stop())

    async def _end(self, client: MqttClient, stream: trio.SocketStream) -> None:
        end = self._draw.choice(("goodbye", "goodbye", "disconnect", "hang up", "reset"))
        self._town.did[end] += 1
        if end == "goodbye":
            await self._say(client, self._device.goodbye())
        if end in ("goodbye", "disconnect"):
            await client.disconnect()
        if end == "reset":
            reset(stream)

    async def _say(self, client: MqttClient, message: Message) -> None:
        if message.get("session_id") != "":  # firmware says nothing without a channel
            await client.publish("device-server", encode(message))

    async def _listen(self, client: MqttClient) -> None:
        try:
            while True:
                payload = (await client.receive()).payload
                try:
                    answer = self._device.receive_message_untrusted(payload, trio.current_time())
                except BadMessage as error:
                    self._town.surprises[f"gateway said: {error}"] += 1
                    continue
                self._announce()
                if answer is not None:
                    await self._say(client, answer)
        except ConnectionLost as error:
            self._lost = str(error)
            self._announce()

    def _announce(self) -> None:
        self._news.set()

    async def _until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Wait for news until something is so, or too late, or the connection is lost."""
        with trio.move_on_after(seconds):
            while not reached():
                if self._lost:
                    raise ConnectionLost(self._lost)
                self._news = trio.Event()
                await self._news.wait()
        return reached()


def _weather(draw: Random) -> Weather:
    """One in three networks is fine."""
    if draw.random() < 1 / 3:
        return Weather(seed=draw.getrandbits(32))
    return Weather(
        loss=draw.choice((0.0, 0.02, 0.1, 0.2)),
        burst=draw.choice((0.0, 3.0)),
        duplicate=draw.choice((0.0, 0.05, 0.3)),
        reorder=draw.choice((0.0, 0.05, 0.2)),
        jitter=draw.choice((0.0, 0.05, 0.15)),
        seed=draw.getrandbits(32),
    )
