"""The audio of one device: speech on its way up, replies on their way down, and their times."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio
from attrs import define, field

from trio_gateway.core.window import Window
from trio_gateway.errors import BadPacket
from trio_gateway.simulator.device import State
from trio_gateway.simulator.network import BadNetwork
from trio_gateway.simulator.report import Spread
from trio_gateway.simulator.voice import FRAME_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_gateway.simulator.device import Device, Playback
    from trio_gateway.simulator.plan import Plan
    from trio_gateway.simulator.voice import Voice

__all__ = ["Handset", "Line", "Meters", "Surroundings", "Talk"]

_FRAME: Final = FRAME_MS / 1000
_GRID: Final = 0.005
# Seconds. Frames leave on this grid, so that one wake-up sends the frames of many devices.
_SETTLED: Final = 4  # frames: a gateway may send its lead (2) in a burst, which is no jitter
_FOREVER: Final = 1e9  # seconds: the meters' windows forget nothing


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
class Talk:
    """Speech on its way up.

    Attributes:
        start: When the first frame is due; frame `index` is due at `start + index * 0.06`.
        index: Of the next frame.
        ended_at: When the last word had been sent; nan until then.
    """

    start: float
    index: int = 0
    ended_at: float = math.nan

    @property
    def ended(self) -> bool:
        """Whether the last word has been sent."""
        return not math.isnan(self.ended_at)


class Handset:
    """Microphone, speaker and the way to the gateway.

    Args:
        device: Seals and opens the datagrams.
        number: Of the device; draws its network's weather.
        voice: What it says.
        plan: Mode and weather.
        surroundings: Time and datagrams.
        meters: Where the times go.
        on_end_of_speech: Called when the last word has been sent.

    Attributes:
        up: The simulated network, there ...
        down: ... and back.
        line: The open line, or None.
    """

    def __init__(
        self,
        device: Device,
        number: int,
        voice: Voice,
        plan: Plan,
        surroundings: Surroundings,
        meters: Meters,
        *,
        on_end_of_speech: Callable[[], None],
    ) -> None:
        self.up = BadNetwork(plan.weather, number, "up", _FRAME)
        self.down = BadNetwork(plan.weather, number, "down", _FRAME)
        self.line: Line | None = None
        self._device = device
        self._voice = voice
        self._fine = plan.weather.fine
        self._mode = plan.mode
        self._surroundings = surroundings
        self._meters = meters
        self._on_end_of_speech = on_end_of_speech
        self._talk: Talk | None = None
        self._heard_at = math.nan
        self._in_a_row = 0

    @property
    def damaged(self) -> int:
        """Frames that the simulated network dropped or held up, both ways."""
        up, down = self.up.statistics(), self.down.statistics()
        return up.lost + up.held + down.lost + down.held

    def start_talking(self) -> Talk:
        """Begin to say the clip: to its end, or on in silence where the mode is auto."""
        # The first frame can leave when it has been recorded, not with `listen start` itself.
        start = math.ceil((trio.current_time() + _FRAME) / _GRID) * _GRID
        self._talk = talk = Talk(start)
        self._surroundings.call_at(start, partial(self._speak, talk))
        return talk

    def stop_talking(self) -> None:
        """Close the microphone."""
        self._talk = None

    def receive_datagram(self, data: bytes) -> None:
        """Take what came over the line, after what the simulated network does to it."""
        self._carry(self.down, data, self._hear)

    def _speak(self, talk: Talk) -> None:
        """Send the frame that is due, and come again for the next."""
        now = trio.current_time()
        if not self._is_open(talk):
            self._end_of_speech(talk, now)
            return
        due = talk.start + talk.index * _FRAME
        self._meters.lag = max(self._meters.lag, now - due)
        self._carry(self.up, self._device.seal(self._voice.packet(talk.index)), self._transmit)
        talk.index += 1
        if talk.index == len(self._voice.packets):
            self._end_of_speech(talk, now)
        self._surroundings.call_at(due + _FRAME, partial(self._speak, talk))

    def _is_open(self, talk: Talk) -> bool:
        """Whether the microphone still is."""
        if talk is not self._talk or self._device.channel is None:
            return False
        if talk.index >= len(self._voice.packets) and self._mode != "auto":
            return False
        return self._mode == "realtime" or self._device.state is not State.SPEAKING

    def _end_of_speech(self, talk: Talk, now: float) -> None:
        if not talk.ended:
            talk.ended_at = now
            self._on_end_of_speech()

    def _carry(self, network: BadNetwork, data: bytes, arrive: Callable[[bytes], None]) -> None:
        if self._fine:
            arrive(data)
            return
        for due in network.admit(trio.current_time()):
            self._surroundings.call_at(due, partial(arrive, data))

    def _transmit(self, datagram: bytes) -> None:
        if self.line is not None:
            self.line.send(datagram)

    def _hear(self, data: bytes) -> None:
        device, now = self._device, trio.current_time()
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
        realtime = self._mode == "realtime"
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
