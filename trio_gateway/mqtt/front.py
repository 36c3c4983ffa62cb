"""What the gateway sees of an external MQTT broker.

    up      aiomqtt -> parse -> sink.deliver       one direct call
    down    send -> outbox -> batches -> aiomqtt   one task, in order

Nothing waits on the way up. `deliver` never blocks, so a queue before it would only be a bound to
overflow and a reason to drop; without one, no hello or goodbye is lost here, memory stays flat, and
a gateway that is too busy reads its socket more slowly: TCP tells the broker.

Live calls need no broker: their audio goes on over UDP while this connects again.
"""

from __future__ import annotations

import secrets
import warnings
from collections import Counter
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import structlog
import trio
from attrs import evolve

from trio_gateway.errors import BadMessage, BrokerLost, BrokerUnavailable
from trio_gateway.mqtt.backoff import Backoff
from trio_gateway.mqtt.outbox import Outbox
from trio_gateway.mqtt.routes import Routes, down_topic
from trio_gateway.mqtt.statistics import ExternalBrokerStatistics
from trio_gateway.mqtt.tls import tls_context
from trio_gateway.settings.files import is_open_to_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from trio_gateway.interfaces import ControlSink
    from trio_gateway.mqtt.session import Login, Session
    from trio_gateway.settings import BrokerUrl, MqttSettings

    Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Session]]

__all__ = ["ExternalBroker", "open_external_broker"]

log = structlog.get_logger(__name__)

# Measured: 64 messages in one visit to asyncio go out 2 to 3 times as fast as one by one.
BATCH = 64

# Seconds to hand over what is queued when the front is closed: the goodbyes of a shutdown, 4,300 a
# second and more (measured). With LEAVE_TIMEOUT, and what handlers get before (handlers.PATIENCE),
# it fits into the last second of the grace period.
FLUSH_TIMEOUT = 0.35


@asynccontextmanager
async def open_external_broker(
    settings: MqttSettings, *, sink: ControlSink, jitter: Random | None = None
) -> AsyncIterator[ExternalBroker]:
    """Use the broker at `settings.url` until the context is left.

    Returns at once, with the broker up or not: `wait_connected` waits. On leaving, what is queued
    gets `FLUSH_TIMEOUT` to go out, and the broker a DISCONNECT.

    Args:
        settings: See there. `listen` and the limits on clients are the embedded endpoint's.
        sink: Gets the messages. What it raises is logged and counted, and ends nothing.
        jitter: Spreads the reconnections of many gateways.

    Raises:
        BrokerUnavailable: aiomqtt or trio-asyncio is missing, or a TLS file cannot be used.
    """
    if settings.url is None:
        raise BrokerUnavailable("mqtt.url is not set: there is no external broker to use")
    url = evolve(settings.url, password=settings.password or settings.url.password)
    _check_extra()
    if url.tls:
        tls_context(settings)  # what cannot be used now is a mistake; later it may be a renewal
        key_file = settings.broker_key_file or settings.broker_cert_file
        if key_file is not None and is_open_to_all(key_file):
            log.warning(
                "everybody on this machine can read the TLS key",
                key_file=str(key_file),
                fix="chmod o-r",
            )
    jitter = Random() if jitter is None else jitter  # noqa: S311  no secret
    backoff = Backoff(settings.reconnect_min, settings.reconnect_max, jitter)
    front = ExternalBroker(settings, sink, backoff)
    async with trio.open_nursery() as nursery:
        # In a task of its own because of its context: the caller's must not find asyncio running.
        nursery.start_soon(front._run, url)  # noqa: SLF001
        try:
            yield front
        finally:
            nursery.cancel_scope.cancel()


def _check_extra() -> None:
    try:
        with warnings.catch_warnings():
            # Importing trio-asyncio uses child watchers: deprecated, of no concern to who runs us.
            warnings.simplefilter("ignore", DeprecationWarning)
            from trio_gateway.mqtt import session  # noqa: F401, PLC0415  only now: see __init__.py
    except (ImportError, AttributeError) as error:  # trio-asyncio 0.16 on 3.14: AttributeError
        raise BrokerUnavailable(
            "an external MQTT broker needs aiomqtt and trio-asyncio: "
            'install the extra "external" of trio-gateway '
            f"(trio-asyncio 0.16 does not work on Python 3.14): {error}"
        ) from error


class ExternalBroker:
    """The way to the devices of an external broker. Got from `open_external_broker`."""

    def __init__(self, settings: MqttSettings, sink: ControlSink, backoff: Backoff) -> None:
        self._settings = settings
        self._sink = sink
        self._backoff = backoff
        self._routes = Routes.of(settings)
        self._outbox = Outbox(settings.away_bytes, settings.away_age)
        self._up = trio.Event()
        # `deliver` starts sessions, and they must not find themselves in asyncio's context.
        self._context = copy_context()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        """Whether messages reach the broker now: it accepted us and our subscriptions."""
        return self._up.is_set()

    async def wait_connected(self) -> None:
        """Return when `connected` is true."""
        await self._up.wait()

    def send(self, client_id: str, payload: bytes) -> bool:
        """Queue `payload` for a device, also while the broker is away. False: dropped, counted."""
        topic = down_topic(client_id, self._settings.reply_to)
        if topic is None:
            self._counts["unaddressable"] += 1
            return False
        if not self._outbox.put(topic, payload, trio.current_time()):
            self._counts["full"] += 1
            return False
        return True

    def statistics(self) -> ExternalBrokerStatistics:
        """Return the counters."""
        counts = self._counts
        return ExternalBrokerStatistics(
            connected=self.connected,
            connections=counts["connections"],
            failures=counts["failures"],
            received=counts["received"],
            delivered=counts["delivered"],
            refused=dict(self._refused),
            retained=counts["retained"],
            sent=counts["sent"],
            queued=len(self._outbox),
            dropped_full=counts["full"],
            dropped_stale=self._outbox.stale,
            dropped_unaddressable=counts["unaddressable"],
            asyncio_errors=counts["asyncio_errors"],
        )

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001  aiomqtt's flag
        self._counts["received"] += 1
        if retained:
            # At each reconnection it would open a session for a device that is long gone.
            self._counts["retained"] += 1
            return
        try:
            client_id, message = self._routes.parse_untrusted(topic, payload)
        except BadMessage as error:
            self._refused[error.reason] += 1
            log.debug("message refused", topic=topic, reason=str(error))
            return
        self._counts["delivered"] += 1
        try:
            self._context.run(self._sink.deliver, client_id, message)
        except Exception:
            log.exception("a message was delivered and made an error", client_id=client_id)

    async def _run(self, url: BrokerUrl) -> None:
        from trio_gateway.mqtt import session as mqtt  # noqa: PLC0415  see __init__.py

        login = mqtt.Login(
            # 21 of the 23 characters that every broker must take (MQTT 3.1.1, 3.1.3.1).
            identifier=f"trio-gateway-{secrets.token_hex(4)}",
            url=url,
            tls=None,
            timeout=self._settings.connect_timeout,
        )
        where = f"mqtt{'s' if url.tls else ''}://{url.address}"
        async with mqtt.open_loop(self._on_asyncio_error) as loop:
            connect = partial(self._connect, loop, login)
            while True:
                delay = await self._serve(connect, log.bind(broker=where))
                await trio.sleep(delay)

    @asynccontextmanager
    async def _connect(self, loop: Any, login: Login) -> AsyncIterator[Session]:
        from trio_gateway.mqtt import session as mqtt  # noqa: PLC0415  see __init__.py

        if login.url.tls:
            # Files are read at each connection, for certificates are renewed; in a thread, for the
            # system's authorities take 10 to 20 ms.
            try:
                tls = await trio.to_thread.run_sync(tls_context, self._settings)
            except BrokerUnavailable as error:
                raise BrokerLost(str(error)) from None
            login = evolve(login, tls=tls)
        async with mqtt.open_session(loop, login, self._receive) as session:
            yield session

    async def _serve(self, connect: Connect, log: Any) -> float:
        """Connect and serve until that ends; return the seconds to wait before the next attempt."""
        delay = 0.0
        try:
            async with connect() as session, trio.open_nursery() as nursery:
                nursery.start_soon(session.wait_lost)
                for topic in await session.subscribe(self._routes.filters):
                    log.error("the broker refuses a subscription: check its ACL", filter=topic)
                log.info("connected to the broker", queued=len(self._outbox))
                await self._talk(session)
        except* BrokerLost as group:
            error = _first(group)
            self._counts["failures"] += 1
            delay = self._backoff.failed(refused=error.refused)
            # Bad credentials are somebody's mistake; a broker that is away is weather.
            say = log.error if error.refused else log.warning
            say("no connection to the broker", reason=str(error), retry_in=round(delay, 1))
        return delay

    async def _talk(self, session: Session) -> None:
        """Publish what comes until cancelled; then what is left, while the connection stands."""
        self._counts["connections"] += 1
        self._backoff.succeeded()
        self._up.set()
        try:
            while True:
                await self._outbox.wait()
                await self._publish(session)
        except trio.Cancelled:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                while session.alive and self._outbox:
                    await self._publish(session)
            raise
        finally:
            self._up = trio.Event()

    async def _publish(self, session: Session) -> None:
        batch = self._outbox.take(BATCH, trio.current_time())
        try:
            await session.publish(batch)
        finally:
            self._counts["sent"] += sum(message.sent for message in batch)
            # While the connection stands, what the library was handed goes out, before DISCONNECT;
            # with the connection it is gone, and waits for the next one.
            alive = session.alive
            self._outbox.put_back([x for x in batch if not (x.handed if alive else x.sent)])

    def _on_asyncio_error(self, context: dict[str, Any]) -> None:
        self._counts["asyncio_errors"] += 1
        log.error("asyncio", message=context.get("message"), exc_info=context.get("exception"))


def _first(group: BaseExceptionGroup[BrokerLost]) -> BrokerLost:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return cast("BrokerLost", error)
