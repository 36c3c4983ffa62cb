"""aiomqtt's client behind a gate, so that it cannot take the program with it.

What aiomqtt puts on the event loop passes the gate, because it puts it there one turn late: paho
wants its socket watched, aiomqtt schedules that (`call_soon_threadsafe`), and when it happens the
socket may be closed (EBADF, which trio-asyncio raises out of `open_loop()`; seen whenever a broker
restarts while we publish), or its number may be somebody else's socket by now.

This leans on private names of aiomqtt (hence the pinned major version): `_client`, `_loop`,
`_connected`, `_disconnected`, `_client_connect`, `_on_disconnect`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import aiomqtt
from attrs import frozen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from paho.mqtt.client import Client as PahoClient

    from trio_gateway.mqtt.outbox import Outgoing
    from trio_gateway.settings import BrokerUrl

    Receive: TypeAlias = Callable[[str, bytes, bool], None]

__all__ = ["GatedClient", "Login", "Receive"]

# paho sends PINGREQ after this many silent seconds and gives up after as many more, so a broker
# that vanished without FIN is noticed within 30 s: the longest back-off, and far below the 120 s
# after which a device gives up its audio channel.
KEEPALIVE = 15

# What matters of paho's and aiomqtt's own log is raised too, and then logged by front.py.
_library_log = logging.getLogger("trio_gateway.mqtt.library")
_library_log.addHandler(logging.NullHandler())
_library_log.propagate = False


@frozen
class Login:
    """Where and as whom to connect.

    Attributes:
        url: The broker.
        identifier: Our MQTT client id. The same at each reconnect, so that the broker drops what
            is left of the last connection.
        tls: Given if and only if `url.tls`.
        timeout: Seconds for TCP, TLS and CONNACK together; for SUBACK; for a slow broker to take a
            batch.
    """

    url: BrokerUrl
    identifier: str
    tls: ssl.SSLContext | None
    timeout: float


class GatedClient(aiomqtt.Client):
    """aiomqtt's client for one session; then it is thrown away. All of it runs in asyncio.

    Args:
        login: See there.
        receive: Called with topic, payload and retain flag of each message. Must not raise.
    """

    def __init__(self, login: Login, receive: Receive) -> None:
        url = login.url
        super().__init__(
            url.address.host,
            url.address.port,
            username=url.username,
            password=None if url.password is None else url.password.reveal(),
            identifier=login.identifier,
            logger=_library_log,
            # Called like the class that aiomqtt's annotation asks for.
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", partial(_Inbox, receive)),
            timeout=login.timeout,
            keepalive=KEEPALIVE,
            tls_context=login.tls,
        )
        self._client.connect_timeout = login.timeout
        self._gate = _Gate(self._loop, self._client)
        self._loop = cast("asyncio.AbstractEventLoop", self._gate)
        self.pending_calls_threshold = 1 << 30  # a batch is no reason for a warning

    def is_alive(self) -> bool:
        """Whether the broker accepted us, and nothing ended that as far as we know."""
        return self._client.is_connected()

    async def publish_batch(self, batch: Sequence[Outgoing]) -> None:
        """Publish in order; mark what the kernel took; raise the first error when all are done."""
        results = await asyncio.gather(*map(self._publish_one, batch), return_exceptions=True)
        for error in filter(None, results):
            raise error

    async def _publish_one(self, message: Outgoing) -> None:
        message.handed = True  # now: `publish` gives it to paho before it first waits
        await self.publish(message.topic, message.payload)
        message.sent = True

    async def leave(self) -> None:
        """DISCONNECT if there is somebody to say it to; close the socket; end what was begun."""
        try:
            if self.is_alive():
                await self.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001  whatever the connection died of is in here
            _library_log.debug("while disconnecting: %r", error)
        finally:
            self._gate.closed = True
            self._client._reset_sockets()  # noqa: SLF001  paho's only way to close at once
            await self._gate.end_tasks()

    def _client_connect(self) -> None:
        """Connect, in a thread that may have been abandoned meanwhile."""
        super()._client_connect()
        if self._gate.closed:
            self._client._reset_sockets()  # noqa: SLF001

    def _on_disconnect(self, client: PahoClient, *args: Any) -> None:
        connected = self._connected
        if not connected.done():
            # aiomqtt would wait its whole timeout for a CONNACK that can no longer come.
            connected.set_exception(aiomqtt.MqttError("closed before it answered"))
        if not connected.cancelled():  # else the session is over already, and super() would raise
            super()._on_disconnect(client, *args)
        for future in (connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # counts as read: aiomqtt may drop it without looking


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """What aiomqtt takes for its queue: a message goes straight through and none ever waits."""

    def __init__(self, receive: Receive, maxsize: int) -> None:
        super().__init__(maxsize)
        self._receive = receive

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._receive(item.topic.value, item.payload, item.retain)


class _Gate:
    """Stands between aiomqtt and the loop with the part of a loop that aiomqtt uses.

    paho connects in a thread; everything but `call_soon_threadsafe` is called in Trio's. The thread
    may outlive the session: then `closed` keeps it away from the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, paho: PahoClient) -> None:
        self._loop = loop
        self._paho = paho
        self._readers: set[int] = set()
        self._writers: set[int] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        if not self.closed:
            self._loop.call_soon_threadsafe(callback, *args)

    def create_task(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        if self._is_live(fd):
            self._readers.add(fd)
            self._loop.add_reader(fd, callback)

    def remove_reader(self, fd: int) -> None:
        if fd in self._readers:
            self._readers.remove(fd)
            self._loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        if self._is_live(fd):
            self._writers.add(fd)
            self._loop.add_writer(fd, callback)

    def remove_writer(self, fd: int) -> None:
        if fd in self._writers:
            self._writers.remove(fd)
            self._loop.remove_writer(fd)

    async def end_tasks(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_live(self, fd: int) -> bool:
        # A session has one socket in its life, so the number cannot stand for an earlier one.
        sock = self._paho.socket()
        return not self.closed and sock is not None and sock.fileno() == fd
