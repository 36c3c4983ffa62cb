"""One MQTT session with an external broker, step by step: Trio outside, asyncio inside.

Rule 1. Each visit to asyncio is one finite step. `asyncio.wait_for`, which aiomqtt is full of, can
swallow a cancellation before Python 3.12 (python/cpython#86296), and trio-asyncio cancels a step
once: with a loop inside it would never end. So loops, back-off and deadlines are Trio's, and there
is a checkpoint between two steps.
Rule 2. What asyncio has nobody to tell (the exception of a future that was never awaited) is
reported, and ends nothing. trio-asyncio's own handler raises it out of `open_loop()`.
Rule 3. aiomqtt is behind a gate: see client.py.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiomqtt
import trio
import trio_asyncio
from attrs import frozen

from trio_gateway.errors import BrokerLost
from trio_gateway.mqtt.client import GatedClient, Login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio_gateway.mqtt.client import Receive
    from trio_gateway.mqtt.outbox import Outgoing

__all__ = ["Login", "Session", "open_loop", "open_session"]

# Seconds to say DISCONNECT. Guess: a broker that lives takes it in a millisecond.
LEAVE_TIMEOUT = 0.15

# The refusals of MQTT 3.1.1 (table 3.1) that waiting does not cure, as paho 2 names them.
_REFUSALS = frozenset(
    {
        "Unsupported protocol version",
        "Client identifier not valid",
        "Bad user name or password",
        "Not authorized",
    }
)


@asynccontextmanager
async def open_loop(on_asyncio_error: Callable[[dict[str, Any]], None]) -> AsyncIterator[Any]:
    """Open an asyncio loop for `open_session`. The calling task's context becomes asyncio's too."""
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(lambda _loop, context: on_asyncio_error(context))  # rule 2
        loop.set_default_executor(_ConnectThread())
        yield loop


@asynccontextmanager
async def open_session(loop: Any, login: Login, receive: Receive) -> AsyncIterator[Session]:
    """Connect; on the way out say DISCONNECT (shielded, `LEAVE_TIMEOUT`) and leave no trace.

    Args:
        loop: From `open_loop`.
        login: See there.
        receive: Called with topic, payload and retain flag of each message, in order, in this
            thread but in asyncio's context. Must not raise.

    Raises:
        BrokerLost: No connection, or a refusal.
    """
    client = await loop.run_aio_coroutine(_create(login, receive))
    try:
        await _connect(loop, client, login)
        yield Session(loop, client)
    finally:
        with trio.move_on_after(LEAVE_TIMEOUT, shield=True):
            await loop.run_aio_coroutine(client.leave())


async def _create(login: Login, receive: Receive) -> GatedClient:
    return GatedClient(login, receive)  # in a coroutine because it asks for the running loop


async def _connect(loop: Any, client: GatedClient, login: Login) -> None:
    try:
        with trio.fail_after(login.timeout):
            await loop.run_aio_coroutine(client.__aenter__())
    except trio.TooSlowError:
        raise BrokerLost(f"no answer within {login.timeout:g} s") from None
    except aiomqtt.MqttCodeError as error:
        raise BrokerLost(f"refused: {error.rc}", refused=str(error.rc) in _REFUSALS) from None
    except (aiomqtt.MqttError, ValueError) as error:  # ValueError: a name that IDNA cannot encode
        raise BrokerLost(str(error)) from None


@frozen(eq=False)
class Session:
    """A connection that the broker accepted. Methods raise `BrokerLost` when it is gone."""

    _loop: Any
    _client: GatedClient

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as this side knows."""
        return self._client.is_alive()

    async def subscribe(self, filters: Sequence[str]) -> list[str]:
        """Subscribe at QoS 0, as devices publish; return the filters that were refused."""
        codes = await self._step(self._client.subscribe([(each, 0) for each in filters]))
        return [each for each, code in zip(filters, codes, strict=True) if code.is_failure]

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """Hand `batch` to the kernel, in order, at QoS 0, in one visit to asyncio.

        Measured: one visit for each message makes 2,200 messages/s, one for 64 of them 4,300 to
        6,500. What has gone out is marked, so that the caller knows what to keep if this raises.
        """
        await self._step(self._client.publish_batch(batch))

    async def wait_lost(self) -> None:
        """Raise when the connection is gone; never return."""
        await self._step(anext(self._client.messages))  # the inbox never holds a message

    async def _step(self, step: Any) -> Any:
        try:
            return await self._loop.run_aio_coroutine(step)
        except aiomqtt.MqttError as error:
            raise BrokerLost(f"connection lost: {error.__cause__ or error}") from None


class _ConnectThread(trio_asyncio.TrioExecutor):  # type: ignore[misc]  # it has no types
    """Where paho resolves names, connects and does the TLS handshake, blocking.

    Leaving must not wait for a resolver, so the thread is abandoned; one at a time, so that a
    resolver that hangs holds one thread and not one for each retry.
    """

    def __init__(self) -> None:
        super().__init__()
        self._one = trio.CapacityLimiter(1)

    async def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self._one
        )
