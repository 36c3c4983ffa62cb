"""One device's life: connect, hello, talk and listen again and again, goodbye."""

from __future__ import annotations

import base64
import json
import math
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

import trio
from attrs import define, field

from trio_gateway.core.control import Message, encode
from trio_gateway.core.identity import sign
from trio_gateway.core.window import Window
from trio_gateway.errors import BadMessage, BadPacket, GatewayError
from trio_gateway.simulator.device import Device, Playback, State
from trio_gateway.simulator.mqtt_client import ConnectionLost, MqttClient
from trio_gateway.simulator.network import BadNetwork
from trio_gateway.simulator.plan import HELLO_TIMEOUT, REPLY_TIMEOUT
from trio_gateway.simulator.report import Spread
from trio_gateway.simulator.voice import FRAME_MS, Voice, voice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from trio.abc import Stream

    from trio_gateway.simulator.plan import Plan

__all__ = ["Call", "Caller", "DeviceFailed", "Line", "Meters", "Surroundings"]

_FRAME: Final = FRAME_MS / 1000
_GRID: Final = 0.005
# Seconds. Talks begin on this grid, so that one wake-up sends the frames of many devices.
_SETTLED: Final = 4  # frames: a gateway may send its lead (2) in a burst, which is no jitter
_KEPT_CALLS: Final = 16  # newest ones of a device, to be verified: 150 kB at 24 kbit/s
_FOREVER: Final = 1e9  # seconds: the meters' windows forget nothing


class DeviceFailed(GatewayError):  # noqa: N818  like ConnectionLost
    """This device cannot go on. The text says why."""


class Line(Protocol):
    """Where a device's datagrams go."""

    def send(self, datagram: bytes) -> None:
        """Send or lose it."""

    def close(self) -> None:
        """Stop receiving."""


class Surroundings(Protocol):
    """What a device shares with the others."""

    def call_at(self, deadline: float, callback: Callable[[], None]) -> None:
        """Call back at `deadline` (trio.current_time)."""

    def open_line(
        self, server: tuple[str, int], receive: Callable[[bytes], None]
    ) -> Awaitable[Line]:
        """Open a way for datagrams to and from `server`. Raises OSError."""

    async def next_turn(self) -> None:
        """Wait until the device may begin to talk."""


@define
class Meters:
    """What all devices measure together, seconds."""

    hello: Window = field(factory=lambda: Window(_FOREVER))
    response: Window = field(factory=lambda: Window(_FOREVER))
    round_trip: Window = field(factory=lambda: Window(_FOREVER))
    jitter: Spread = field(factory=Spread)
    lag: float = 0.0
    """How late a frame was sent, at most."""


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


@define(eq=False)
class _Talk:
    """Speech on its way up: frame `index` is due at `start + index * 0.06`, late or not."""

    start: float
    index: int = 0
    ended_at: float = math.nan


class Caller:
    """A device with its connections.

    Args:
        number: Names the device, and chooses what it says.
        plan: What to do.
        surroundings: Time and datagrams.
        meters: Where its measurements go.

    Attributes:
        device: What it is and knows.
        failure: Why it could not go on; empty otherwise.
        calls: The newest ones.
        call_count: How many there were in all.
        up: Its simulated network, there ...
        down: ... and back.
    """

    def __init__(self, number: int, plan: Plan, surroundings: Surroundings, meters: Meters) -> None:
        self.number = number
        self.device = Device(_client_id(number))
        self.failure = ""
        self.calls: list[Call] = []
        self.call_count = 0
        self.up = BadNetwork(plan.weather, number, "up", _FRAME)
        self.down = BadNetwork(plan.weather, number, "down", _FRAME)
        self._plan = plan
        self._surroundings = surroundings
        self._meters = meters
        self._voice = voice(number)
        self._random = Random(f"{plan.weather.seed}/{number}/pause")  # noqa: S311
        self._lost = ""  # why there is no connection any more
        self._news = trio.Event()
        self._line: Line | None = None
        self._talk: _Talk | None = None
        self._heard_at = math.nan
        self._in_a_row = 0

    async def run(self, end: float) -> None:
        """Live until `end` (trio.current_time), or until it cannot go on, which `failure` tells."""
        gateway = self._plan.gateway
        try:
            with _within(HELLO_TIMEOUT, f"no connection to {gateway}"):
                stream = await trio.open_tcp_stream(gateway.host, gateway.port)
            async with stream:
                await self.run_on(stream, end)
        except (DeviceFailed, ConnectionLost) as error:
            self.failure = str(error)
        except OSError as error:
            self.failure = f"no connection to {gateway}: {error}"

    async def run_on(self, stream: Stream, end: float) -> None:
        """Live on a connection that is there.

        Raises:
            DeviceFailed: The gateway did not do what the device needs.
            ConnectionLost: It hung up.
        """
        client = MqttClient(stream)
        with _within(HELLO_TIMEOUT, "no answer to CONNECT"):
            await client.connect(self.device.client_id, *self._credentials())
            if self._plan.topics == "own":
                await client.subscribe(f"devices/p2p/{self.device.client_id}")
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
        device = self.device
        asked_at = trio.current_time()
        await self._say(client, device.hello())
        await self._until(lambda: device.channel is not None, HELLO_TIMEOUT, "no answer to hello")
        self._meters.hello.record(trio.current_time() - asked_at, 0.0)
        assert device.channel is not None  # noqa: S101  what was waited for
        server = device.channel.server
        try:
            self._line = await self._surroundings.open_line(server, self._receive_datagram)
        except OSError as error:
            raise DeviceFailed(f"no way to the audio address {server[0]}: {error}") from error
        try:
            yield
        finally:
            self._line.close()
            self._line = None
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
        call = Call(self._voice)
        self.calls = [*self.calls[1 - _KEPT_CALLS :], call]
        self.call_count += 1
        damaged = self._damaged()
        length = len(self._voice.packets) * _FRAME
        await self._say(client, self.device.listen_start(self._plan.mode))
        talk = self._start_talking()
        try:
            await self._until(lambda: not math.isnan(talk.ended_at), math.inf, "")
            if self._plan.mode != "auto":
                await self._say(client, self.device.listen_stop())
            await self._until(self._is_answered, REPLY_TIMEOUT, "no reply to what was said")
            await self._until(self._is_replied, 2 * length + REPLY_TIMEOUT, "a reply without end")
        finally:
            self._talk = None
            call.playback = self.device.playback
            call.damaged = self._damaged() - damaged

    def _is_answered(self) -> bool:
        return self.device.playback is not None

    def _is_replied(self) -> bool:
        return self.device.playback is not None and self.device.playback.ended

    def _damaged(self) -> int:
        up, down = self.up.statistics(), self.down.statistics()
        return up.lost + up.held + down.lost + down.held

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
                self._news.set()
                if answer is not None:
                    await self._say(client, answer)
        except ConnectionLost as error:
            self._lost = str(error)
            self._news.set()

    async def _until(self, reached: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Wait for news until something is so.

        Raises:
            DeviceFailed: It is not so in time, or cannot be so any more.
        """
        with _within(seconds, complaint):
            while not reached():
                if self._lost:
                    raise DeviceFailed(self._lost)
                if self.device.dismissed:
                    why = self.device.refusal
                    raise DeviceFailed(f"goodbye from the gateway{f' ({why})' if why else ''}")
                self._news = trio.Event()
                await self._news.wait()

    # --------------------------------------------------------------------------- audio

    def _start_talking(self) -> _Talk:
        start = math.ceil(trio.current_time() / _GRID) * _GRID
        self._talk = talk = _Talk(start)
        self._surroundings.call_at(start, partial(self._speak, talk))
        return talk

    def _speak(self, talk: _Talk) -> None:
        """Send the frame that is due, and come again for the next."""
        now = trio.current_time()
        if not self._is_open(talk):
            self._end_of_speech(talk, now)
            return
        due = talk.start + talk.index * _FRAME
        self._meters.lag = max(self._meters.lag, now - due)
        self._carry(self.up, self.device.seal(self._voice.packet(talk.index)), self._transmit)
        talk.index += 1
        if talk.index == len(self._voice.packets):
            self._end_of_speech(talk, now)
        self._surroundings.call_at(due + _FRAME, partial(self._speak, talk))

    def _is_open(self, talk: _Talk) -> bool:
        """Whether the microphone still is."""
        if talk is not self._talk or self.device.channel is None:
            return False
        if talk.index >= len(self._voice.packets) and self._plan.mode != "auto":
            return False
        return self._plan.mode == "realtime" or self.device.state is not State.SPEAKING

    def _end_of_speech(self, talk: _Talk, now: float) -> None:
        if math.isnan(talk.ended_at):
            talk.ended_at = now
            self._news.set()

    def _carry(self, network: BadNetwork, data: bytes, arrive: Callable[[bytes], None]) -> None:
        if self._plan.weather.fine:
            arrive(data)
        elif (due := network.admit(trio.current_time())) is not None:
            self._surroundings.call_at(due, partial(arrive, data))

    def _transmit(self, datagram: bytes) -> None:
        if self._line is not None:
            self._line.send(datagram)

    def _receive_datagram(self, data: bytes) -> None:
        self._carry(self.down, data, self._hear)

    def _hear(self, data: bytes) -> None:
        device, now = self.device, trio.current_time()
        try:
            taken = device.receive_datagram_untrusted(data, now)
        except BadPacket:
            device.counters.malformed += 1
            return
        if taken and device.playback is not None:
            self._measure(device.playback, now)

    def _measure(self, playback: Playback, now: float) -> None:
        """Take the times of the frame that just came."""
        meters, packets, talk = self._meters, playback.packets, self._talk
        realtime = self._plan.mode == "realtime"
        if len(packets) == 1 or packets[-1][0] != packets[-2][0] + 1:
            self._in_a_row = 0
        else:
            self._in_a_row += 1
            if self._in_a_row >= _SETTLED:
                meters.jitter.add(now - self._heard_at - playback.audio.frame_ms / 1000)
        self._heard_at = now
        if talk is None:
            return
        if len(packets) == 1:
            meters.response.record(now - (talk.start if realtime else talk.ended_at), 0.0)
        if realtime and playback.audio.frame_ms == FRAME_MS:
            index = packets[-1][0] - packets[0][0]
            meters.round_trip.record(now - talk.start - index * _FRAME, 0.0)


@contextmanager
def _within(seconds: float, complaint: str) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise DeviceFailed(f"{complaint} within {seconds:g} s") from None


def _client_id(number: int) -> str:
    # 02: a locally administered address, which no manufacturer gives to a device (IEEE 802).
    mac = (0x02_00_00_00_00_00 | number).to_bytes(6, "big").hex("_")
    return f"GID_simulated@@@{mac}@@@00000000-0000-4000-8000-{number:012x}"
