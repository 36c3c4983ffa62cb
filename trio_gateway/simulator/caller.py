"""One device's life: connect, hello, talk and listen again and again, goodbye."""

from __future__ import annotations

import base64
import json
import math
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from trio_gateway.core.control import Message, encode
from trio_gateway.core.identity import sign
from trio_gateway.errors import BadMessage, GatewayError
from trio_gateway.simulator.device import Device, Playback
from trio_gateway.simulator.handset import Handset
from trio_gateway.simulator.mqtt_client import ConnectionLost, MqttClient
from trio_gateway.simulator.plan import HELLO_TIMEOUT, REPLY_TIMEOUT
from trio_gateway.simulator.voice import FRAME_MS, Voice, voice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.abc import Stream

    from trio_gateway.simulator.handset import Meters, Surroundings
    from trio_gateway.simulator.plan import Plan

__all__ = ["Call", "Caller", "DeviceFailed"]

_KEPT_CALLS: Final = 16  # newest ones of a device, to be verified: 150 kB at 24 kbit/s


class DeviceFailed(GatewayError):  # noqa: N818  like ConnectionLost
    """This device cannot go on. The text says why."""


@define(eq=False)
class Call:
    """One talk and its reply.

    Attributes:
        voice: What was said.
        playback: What was heard, None if nothing.
        damaged: Frames that the simulated network dropped or held up meanwhile, both ways.
        similarity: Of the two, once judged; 0 until then.
    """

    voice: Voice
    playback: Playback | None = None
    damaged: int = 0
    similarity: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether the reply came to its end."""
        return self.playback is not None and self.playback.ended


class Caller:
    """A device with its connections.

    Args:
        number: Names the device, and chooses what it says.
        plan: What to do.
        surroundings: Time and datagrams.
        meters: Where its measurements go.

    Attributes:
        device: What it is and knows.
        handset: Its audio.
        failure: Why it could not go on; empty otherwise.
        calls: The newest ones.
        call_count: How many there were in all.
    """

    def __init__(self, number: int, plan: Plan, surroundings: Surroundings, meters: Meters) -> None:
        self.number = number
        self.device = Device(_client_id(number))
        self.failure = ""
        self.calls: list[Call] = []
        self.call_count = 0
        self._plan = plan
        self._surroundings = surroundings
        self._meters = meters
        self._voice = voice(number)
        self._random = Random(f"{plan.weather.seed}/{number}/pause")  # noqa: S311
        self._lost = ""  # why there is no connection any more
        self._news = trio.Event()
        self.handset = Handset(
            self.device,
            number,
            self._voice,
            plan,
            surroundings,
            meters,
            on_end_of_speech=self._announce,
        )

    async def run(self, end: float) -> None:
        """Live until `end` (trio.current_time), or until it cannot go on, which `failure` tells."""
        gateway = self._plan.gateway
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                stream = await trio.open_tcp_stream(gateway.host, gateway.port)
            async with stream:
                await self.run_on(stream, end)
        except (DeviceFailed, ConnectionLost) as error:
            self.failure = str(error)
        except trio.TooSlowError:
            self.failure = f"no connection to {gateway} within {HELLO_TIMEOUT:g} s"
        except OSError as error:
            self.failure = f"no connection to {gateway}: {error}"

    async def run_on(self, stream: Stream, end: float) -> None:
        """Live on a connection that is there.

        Raises:
            DeviceFailed: The gateway did not do what the device needs.
            ConnectionLost: It hung up.
        """
        client = MqttClient(stream)
        try:
            with trio.fail_after(HELLO_TIMEOUT):
                await client.connect(self.device.client_id, *self._credentials())
                if self._plan.topics == "own":
                    await client.subscribe(f"devices/p2p/{self.device.client_id}")
        except trio.TooSlowError:
            raise DeviceFailed(f"no answer to CONNECT within {HELLO_TIMEOUT:g} s") from None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive_messages, client)
            try:
                async with self._channel(client):
                    await self._converse(client, end)
                await client.disconnect()
            except (DeviceFailed, ConnectionLost) as error:
                failure = error  # raised outside: a nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # -------------------------------------------------------------------- conversation

    @asynccontextmanager
    async def _channel(self, client: MqttClient) -> AsyncIterator[None]:
        """Hello, the audio channel, goodbye."""
        device, handset = self.device, self.handset
        asked_at = trio.current_time()
        await self._say(client, device.hello())
        await self._until(lambda: device.channel is not None, HELLO_TIMEOUT, "no answer to hello")
        self._meters.hello.record(trio.current_time() - asked_at, 0.0)
        assert device.channel is not None  # noqa: S101  what was waited for
        server = device.channel.server
        try:
            handset.line = await self._surroundings.open_line(server, handset.receive_datagram)
        except OSError as error:
            raise DeviceFailed(f"no way to the audio address {server[0]}: {error}") from error
        try:
            yield
        finally:
            handset.line.close()
            handset.line = None
        await self._say(client, device.goodbye())

    async def _converse(self, client: MqttClient, end: float) -> None:
        longest = 0.0
        while not self.call_count or trio.current_time() + longest < end:
            await self._surroundings.next_turn()
            began = trio.current_time()
            await self._make_call(client)
            longest = max(longest, trio.current_time() - began)
            await trio.sleep(self._plan.pause * self._random.uniform(0.5, 1.5))

    async def _make_call(self, client: MqttClient) -> None:
        device, handset = self.device, self.handset
        call = Call(self._voice)
        self.calls = [*self.calls[1 - _KEPT_CALLS :], call]
        self.call_count += 1
        damaged = handset.damaged
        await self._say(client, device.listen_start(self._plan.mode))
        talk = handset.start_talking()
        try:
            await self._until(lambda: talk.ended, math.inf, "")
            if self._plan.mode != "auto":
                await self._say(client, device.listen_stop())
            await self._until(
                lambda: device.playback is not None, REPLY_TIMEOUT, "no reply to what was said"
            )
            twice = 2 * len(self._voice.packets) * FRAME_MS / 1000
            await self._until(
                lambda: device.playback is not None and device.playback.ended,
                twice + REPLY_TIMEOUT,
                "a reply without end",
            )
        finally:
            handset.stop_talking()
            call.playback = device.playback
            call.damaged = handset.damaged - damaged

    # ------------------------------------------------------------------------- control

    def _credentials(self) -> tuple[str, str | None]:
        username = base64.b64encode(json.dumps({"ip": "127.0.0.1"}).encode()).decode()
        key = self._plan.key
        if key is None:
            return username, None
        return username, sign(key.reveal().encode(), self.device.client_id, username)

    async def _say(self, client: MqttClient, message: Message) -> None:
        topic = "device-server"
        if self._plan.topics == "own":
            kind = "hello" if message["type"] == "hello" else "data"
            topic = f"devices/{self.device.client_id}/{kind}"
        await client.publish(topic, encode(message))

    async def _receive_messages(self, client: MqttClient) -> None:
        try:
            while True:
                message = await client.receive()
                try:
                    answer = self.device.receive_message_untrusted(
                        message.payload, trio.current_time()
                    )
                except BadMessage:
                    continue  # if it mattered, the device waits in vain, and that is told
                self._announce()
                if answer is not None:
                    await self._say(client, answer)
        except ConnectionLost as error:
            self._lost = str(error)
            self._announce()

    def _announce(self) -> None:
        self._news.set()

    async def _until(self, reached: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Wait for news until something is so.

        Raises:
            DeviceFailed: It is not so in time, or cannot be so any more.
        """
        try:
            with trio.fail_after(seconds):
                while not reached():
                    if self._lost:
                        raise DeviceFailed(self._lost)
                    if self.device.dismissed:
                        raise DeviceFailed(f"goodbye from the gateway{self._as_it_said()}")
                    self._news = trio.Event()
                    await self._news.wait()
        except trio.TooSlowError:
            failure = f"{complaint} within {seconds:g} s{self._as_it_said()}"
            raise DeviceFailed(failure) from None

    def _as_it_said(self) -> str:
        return f" ({self.device.refusal})" if self.device.refusal else ""


def _client_id(number: int) -> str:
    # 02: a locally administered address, which no manufacturer gives to a device (IEEE 802).
    mac = (0x02_00_00_00_00_00 | number).to_bytes(6, "big").hex("_")
    return f"GID_simulated@@@{mac}@@@00000000-0000-4000-8000-{number:012x}"
