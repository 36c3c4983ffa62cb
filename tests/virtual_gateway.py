"""A whole gateway on the virtual clock: the real gateway.py between fakes that note their end."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field
from fake_pool import FakePool
from fake_wires import FakeFront, FakeSender
from readings import a_pool
from served_sessions import FakeGateway, idle

from trio_gateway import gateway as gateway_module
from trio_gateway import open_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from trio_gateway import Gateway
    from trio_gateway.sessions import Handler
    from trio_gateway.workers.statistics import PoolStatistics

__all__ = ["VirtualGateway", "open_virtual_gateway"]

CORES = math.inf  # no call is refused for want of them, whatever machine this is


@define(eq=False)
class _Pool(FakePool):
    """Also what the sampler and the scaler use of a pool."""

    kind: str = "thread"
    target: int = 2

    async def resize(self, workers: int) -> None:
        self.target = workers

    def statistics(self) -> PoolStatistics:
        return a_pool(target=self.target)


@define(eq=False)
class _Front(FakeFront):
    address: tuple[str, int] = ("127.0.0.1", 1883)
    tls_address: None = None

    def statistics(self) -> str:
        return "none"


@define(eq=False)
class _Sender(FakeSender):
    address: tuple[str, int] = ("127.0.0.1", 8884)

    def statistics(self) -> str:
        return "none"


@define(eq=False)
class VirtualGateway(FakeGateway):
    """Devices are reached as in `served_sessions`, and the gateway itself is here too."""

    gateway: Gateway = field(init=False)
    closed: list[tuple[float, str]] = field(factory=list)
    nursery: trio.Nursery = field(init=False)

    @asynccontextmanager
    async def open_part(self, name: str, part: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield part
        await trio.lowlevel.checkpoint()
        self.closed.append((trio.current_time(), name))


@asynccontextmanager
async def open_virtual_gateway(
    monkeypatch: pytest.MonkeyPatch, handler: Handler = idle
) -> AsyncIterator[VirtualGateway]:
    """It serves `handler`; when the block is left, all of it is cancelled."""
    pool, front, sender = _Pool(), _Front(), _Sender()
    this = VirtualGateway(pool=pool, front=front, sender=sender)
    parts = {"open_worker_pool": pool, "open_udp": sender, "open_broker": front}
    for name, part in parts.items():
        monkeypatch.setattr(gateway_module, name, partial(this.open_part, name[5:], part))
    monkeypatch.setattr(gateway_module, "usable_cores", lambda: CORES)
    async with trio.open_nursery() as this.nursery:
        async with (
            open_gateway(this.settings) as this.gateway,
            trio.open_nursery() as serving,
        ):
            this.sessions = this.gateway._sessions
            await serving.start(this.gateway.serve, handler)
            yield this
            serving.cancel_scope.cancel()
        this.nursery.cancel_scope.cancel()
