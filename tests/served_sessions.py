"""Sessions between a fake pool, a fake control front and a fake UDP plane."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, evolve, field
from fake_pool import FakePool
from fake_wires import HOME, FakeDevice, FakeFront, FakeSender

from trio_gateway.sessions import Sessions
from trio_gateway.settings import AudioSettings, SessionSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_gateway.core.pcm import SampleFormat
    from trio_gateway.interfaces import Address
    from trio_gateway.session import Session
    from trio_gateway.sessions import Handler

__all__ = ["FRAME", "GUARD", "IDLE", "TAIL", "Call", "FakeGateway", "idle", "serving"]

FRAME = 0.060
GUARD = 0.050
TAIL = 0.060
IDLE = 120.0
PUBLIC = ("gateway.example", 8884)


async def idle(session: Session) -> None:
    """A handler that does nothing."""
    await trio.sleep_forever()


@define(eq=False)
class Call:
    """One device's side of a session."""

    gateway: FakeGateway
    client_id: str
    answer: dict[str, Any]
    audio: FakeDevice

    @property
    def id(self) -> str:
        return str(self.answer["session_id"])

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message that names this session."""
        self.gateway.tell(self.client_id, kind, session_id=self.id, **fields)

    def listen(self, state: str, mode: str = "manual") -> None:
        self.tell("listen", state=state, mode=mode)

    def say(self, *values: int, addr: Address = HOME) -> None:
        for value in values:
            self.send(self.audio.say(value), addr)

    def send(self, data: bytes, addr: Address = HOME) -> None:
        receiver = self.gateway.sessions.route(self.audio.ssrc)
        assert receiver is not None, "no session has this ssrc"
        receiver.receive_datagram_untrusted(data, addr, trio.current_time())

    @property
    def heard(self) -> list[int]:
        return [frame.value for frame in self.audio.heard(self.gateway.sender)]

    @property
    def session(self) -> Session:
        (session,) = (each for each in self.gateway.sessions.live if each.id == self.id)
        return session


@define(eq=False)
class FakeGateway:
    """Sessions, and everything that they touch."""

    pool: FakePool = field(factory=FakePool)
    settings: Settings = field(factory=Settings)
    sample_format: SampleFormat = "int16"
    cores: float = math.inf
    front: FakeFront = field(factory=FakeFront)
    sender: FakeSender = field(factory=FakeSender)
    sessions: Sessions = field(init=False)

    def __attrs_post_init__(self) -> None:
        audio = AudioSettings(
            guard=GUARD, tail_wait=TAIL, voice_pause=0.5, sample_format=self.sample_format
        )
        self.settings = evolve(self.settings, audio=audio)
        self.sessions = Sessions(self.settings, self.pool.as_pool, cores=self.cores)
        self.sessions.attach(control=self.front, audio=self.sender, public=PUBLIC)

    def tell(self, client_id: str, kind: str, **fields: Any) -> None:
        self.sessions.deliver(client_id, {"type": kind, **fields})

    def call(self, client_id: str = "device", **hello: Any) -> Call:
        """Say hello; the answer must be the last thing said."""
        self.tell(client_id, "hello", **hello)
        _, to, answer = self.front.sent.pop()
        assert (to, answer["type"]) == (client_id, "hello")
        return Call(self, client_id, answer, FakeDevice.of(answer))


@asynccontextmanager
async def serving(
    handler: Handler = idle,
    *,
    pool: FakePool | None = None,
    sample_format: SampleFormat = "int16",
    cores: float = math.inf,
    **sessions: Any,
) -> AsyncIterator[FakeGateway]:
    """A gateway that serves `handler`; `sessions` are settings of that section."""
    gateway = FakeGateway(
        pool=pool or FakePool(),
        settings=Settings(sessions=SessionSettings(**sessions)),
        sample_format=sample_format,
        cores=cores,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.sessions.serve, handler)
        yield gateway
        nursery.cancel_scope.cancel()
    statistics = gateway.sessions.statistics()
    assert not statistics.unaccounted()
    assert statistics.up.waiting == statistics.up.decoding == statistics.up.readable == 0
    assert statistics.down.queued == 0
