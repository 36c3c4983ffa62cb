"""The sockets of the embedded endpoint: opened before anybody is served, closed after everybody."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_gateway.broker.certificate import Certificate
from trio_gateway.broker.connection import CLOSE_TIMEOUT
from trio_gateway.broker.descriptors import within_descriptors
from trio_gateway.broker.endpoint import Broker
from trio_gateway.broker.tls import TlsListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_gateway.broker.admission import Authenticate
    from trio_gateway.interfaces import Address, ControlSink
    from trio_gateway.settings import Address as ListenAddress
    from trio_gateway.settings import MqttSettings

__all__ = ["open_broker"]


@asynccontextmanager
async def open_broker(
    settings: MqttSettings, *, sink: ControlSink, authenticate: Authenticate
) -> AsyncIterator[Broker]:
    """Listen on `settings.listen` and `settings.tls_listen` and serve until the block is left.

    On leaving, no more connections are taken, and those there are get `CLOSE_TIMEOUT` seconds to
    read what is queued for them. When cancelled or left by an exception, they are closed at once.

    Args:
        settings: Section `mqtt`.
        sink: Is told of devices and of what they say.
        authenticate: Decides who is let in; called in the Trio thread for every CONNECT.

    Raises:
        OSError: An address cannot be listened on.
        SettingsError: The certificate or its key cannot be used.
    """
    certificate = _certificate(settings)
    async with AsyncExitStack() as sockets:
        plain = await _listen(settings.listen, sockets)
        tls = await _listen(settings.tls_listen, sockets)
        broker = Broker(
            within_descriptors(settings),
            sink=sink,
            authenticate=authenticate,
            address=_address(plain),
            tls_address=_address(tls),
        )
        listeners: list[trio.abc.Listener[Any]] = [*plain]
        if certificate is not None:
            listeners += [TlsListener(each, certificate) for each in tls]
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as intake:
                await intake.start(
                    partial(
                        trio.serve_listeners,
                        broker.serve_connection,
                        listeners,
                        handler_nursery=connections,
                    )
                )
                yield broker
                intake.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT
            broker.end_all()


def _certificate(settings: MqttSettings) -> Certificate | None:
    if settings.tls_listen is None or settings.tls_cert_file is None:  # the settings go together
        return None
    return Certificate(settings.tls_cert_file, settings.tls_key_file)


async def _listen(
    address: ListenAddress | None, sockets: AsyncExitStack
) -> list[trio.SocketListener]:
    if address is None:
        return []
    listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    return [await sockets.enter_async_context(each) for each in listeners]


def _address(listeners: list[trio.SocketListener]) -> Address | None:
    return listeners[0].socket.getsockname()[:2] if listeners else None
