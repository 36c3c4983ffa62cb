"""The embedded endpoint behind TLS, and clients of it."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from mqtt_peer import PASSWORD, RecordingSink, check_password

from trio_gateway.broker import Broker, open_broker
from trio_gateway.core.mqtt_packet import ConnAck, Connect, Parser, encode
from trio_gateway.settings import Address, MqttSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = [
    "ANYWHERE",
    "PATIENCE",
    "TlsClient",
    "connected",
    "endpoint",
    "eventually",
    "port_of",
    "refuse",
]

PATIENCE = 20.0
"""Seconds until a test counts as hung."""

ANYWHERE = Address("127.0.0.1", 0)


@asynccontextmanager
async def endpoint(
    files: tuple[Path, Path | None], **changes: Any
) -> AsyncIterator[tuple[Broker, RecordingSink]]:
    given = {"listen": None, "tls_listen": ANYWHERE, "connect_timeout": PATIENCE} | changes
    settings = MqttSettings(tls_cert_file=files[0], tls_key_file=files[1], **given)
    sink = RecordingSink()
    with trio.fail_after(PATIENCE):
        async with open_broker(settings, sink=sink, authenticate=check_password) as broker:
            yield broker, sink


def port_of(broker: Broker) -> int:
    assert broker.tls_address is not None
    return broker.tls_address[1]


async def eventually(broker: Broker, **numbers: Any) -> None:
    """Wait until the statistics say this."""

    def current() -> dict[str, Any]:
        return {name: getattr(broker.statistics(), name) for name in numbers}

    while current() != numbers:  # noqa: ASYNC110  the endpoint has nothing to wait on
        await trio.sleep(0.001)


class TlsClient:
    """A client that is connected, and the certificate that it was shown."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self._parser = Parser(10_000)

    @property
    def shown(self) -> int:
        """Serial number of the endpoint's certificate."""
        return int(self.stream.getpeercert()["serialNumber"], 16)

    async def ask(self, packet: Any) -> Any:
        await self.stream.send_all(encode(packet))
        while (answer := self._parser.next_packet_untrusted()) is None:
            data = await self.stream.receive_some()
            assert data, "the connection has ended"
            self._parser.receive_bytes(data)
        return answer


@asynccontextmanager
async def connected(
    broker: Broker, context: ssl.SSLContext, client_id: str = "device"
) -> AsyncIterator[TlsClient]:
    tcp = await trio.open_tcp_stream("127.0.0.1", port_of(broker))
    async with trio.SSLStream(
        tcp, context, server_hostname="127.0.0.1", https_compatible=True
    ) as stream:
        client = TlsClient(stream)
        connect = Connect(client_id, username="user", password=PASSWORD)
        assert await client.ask(connect) == ConnAck(0)
        yield client


async def refuse(broker: Broker, context: ssl.SSLContext) -> None:
    """Be a client that finds no reason to trust the endpoint, and says so (Trio's just leaves)."""

    def blocking() -> None:
        with socket.create_connection(("127.0.0.1", port_of(broker))) as tcp:
            context.wrap_socket(tcp, server_hostname="127.0.0.1")

    with pytest.raises(ssl.SSLCertVerificationError):
        await trio.to_thread.run_sync(blocking)
