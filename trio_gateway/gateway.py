"""The whole gateway: the one place where its parts are joined, and the order in which they go.

    async with open_gateway() as gateway:
        await gateway.serve(handler)

Opened from the inside out: worker pool, UDP, control plane, sampler and scaler. Closed in the other
order: intake ends first, then the calls, then the sockets, and the pool last, with nothing in it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
import trio
from attrs import asdict, evolve, frozen

from trio_gateway.backends import backend
from trio_gateway.broker import open_broker
from trio_gateway.core.identity import verify_untrusted
from trio_gateway.core.scaling import ScalingPolicy
from trio_gateway.errors import SettingsError
from trio_gateway.groups import sole_errors
from trio_gateway.handlers import Handlers
from trio_gateway.metrics.cpu import usable_cores
from trio_gateway.metrics.sampler import Sampler
from trio_gateway.scaler import Scaler
from trio_gateway.sessions import Sessions
from trio_gateway.settings import Address, Settings
from trio_gateway.udp import open_udp
from trio_gateway.workers.pool import open_worker_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from trio_gateway.session import Session
    from trio_gateway.sessions import Handler
    from trio_gateway.tally import SessionsStatistics
    from trio_gateway.udp import UdpPlane, UdpStatistics
    from trio_gateway.workers.pool import WorkerPool
    from trio_gateway.workers.statistics import PoolStatistics

__all__ = ["Addresses", "Gateway", "GatewayStatistics", "open_gateway"]

log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Addresses:
    """What was bound, with real port numbers.

    Attributes:
        mqtt: The embedded endpoint without TLS; None when it is off, or with an external broker.
        mqtt_tls: The same with TLS.
        udp: Audio.
        public_udp: Audio, as devices are told.
        http: URL of the HTTP endpoint; None when it is off.
    """

    mqtt: Address | None
    mqtt_tls: Address | None = None
    udp: Address
    public_udp: Address
    http: str | None = None

    def as_text(self) -> dict[str, str | None]:
        """Return them by name, ready for JSON."""
        return {
            name: None if value is None else str(value)
            for name, value in asdict(self, recurse=False).items()
        }


@frozen(kw_only=True)
class GatewayStatistics:
    """All parts' numbers at one moment."""

    pool: PoolStatistics
    sessions: SessionsStatistics
    control: Any
    udp: UdpStatistics

    def unaccounted(self) -> dict[str, int]:
        """Return what is missing of each sum that does not add up; {} if all do.

        Every datagram was refused or given to a session, every frame has a fate (core/fates.py), so
        anything here is a bug.
        """
        given = self.udp.received - sum(self.udp.refused.values())
        differences = {
            "udp.received": given - self.sessions.up.taken,
            "udp.sent": self.udp.sent - self.sessions.down.sent,
            "udp.send_dropped": self.udp.send_dropped - self.sessions.down.unsent,
        }
        wrong = {name: number for name, number in differences.items() if number}
        return wrong | self.sessions.unaccounted()


@asynccontextmanager
async def open_gateway(settings: Settings | None = None) -> AsyncIterator[Gateway]:
    """A gateway that listens, with its workers ready. Calls are taken while `serve` runs.

    Raises:
        OSError: An address cannot be bound.
        WorkerFailed: The codec workers cannot start.
        BrokerUnavailable: An external broker is configured that can never be used.
    """
    settings = settings or Settings()
    cores = usable_cores()
    with sole_errors():
        async with open_worker_pool(settings.pool, window=settings.metrics.window) as pool:
            sessions = Sessions(settings, pool, cores=cores)
            async with (
                open_udp(settings.udp, route=sessions.route, batch=pool.batch) as udp,
                _open_control(settings, sessions) as control,
                trio.open_nursery() as nursery,
            ):
                gateway = Gateway(settings, pool, sessions, udp, control, cores=cores)
                nursery.start_soon(gateway.sampler.run)
                nursery.start_soon(gateway.scaler.run)
                async with _open_http(settings.http_listen, gateway) as url:
                    gateway.addresses = evolve(gateway.addresses, http=url)
                    yield gateway
                nursery.cancel_scope.cancel()


def _open_control(settings: Settings, sessions: Sessions) -> AbstractAsyncContextManager[Any]:
    if settings.mqtt.url is not None:
        from trio_gateway.mqtt import open_external_broker  # noqa: PLC0415  an optional extra

        return open_external_broker(settings.mqtt, sink=sessions)
    key = None if settings.signature_key is None else settings.signature_key.reveal().encode()
    if key is None:
        log.warning(
            "no signature key is set: every device is let in",
            fix="--signature-key-file FILE, with the key that signs your devices' passwords",
        )

    def authenticate(client_id: str, username: str | None, password: bytes | None) -> None:
        if key is not None:
            verify_untrusted(key, client_id, username, password)

    return open_broker(settings.mqtt, sink=sessions, authenticate=authenticate)


@asynccontextmanager
async def _open_http(listen: Address | None, gateway: Gateway) -> AsyncIterator[str | None]:
    if listen is None:
        yield None
        return
    try:
        from trio_gateway.web.app import open_http  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise SettingsError(
            f"http_listen = {listen}: the HTTP endpoint is not installed ({error.name} is "
            f'missing); install the extra "http" of trio-gateway'
        ) from error

    def state() -> dict[str, Any]:
        return {"addresses": gateway.addresses.as_text(), **asdict(gateway.statistics())}

    async with open_http(listen, state=state, ready=gateway.not_ready) as url:
        yield url


class Gateway:
    """Made by `open_gateway`.

    Attributes:
        settings: In force.
        addresses: Bound.
        pool: The codec workers.
        control: The MQTT front, embedded or external.
        sampler: Its samples of the last minutes.
        scaler: Its events.
    """

    def __init__(
        self,
        settings: Settings,
        pool: WorkerPool,
        sessions: Sessions,
        udp: UdpPlane,
        control: Any,
        *,
        cores: float,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self._sessions = sessions
        self._udp = udp
        self._handlers = Handlers()
        self.control = control
        bound = Address(*udp.address)
        public = Address(
            settings.udp.public_host or bound.host, settings.udp.public_port or bound.port
        )
        mqtt = mqtt_tls = None
        if settings.mqtt.url is None:
            mqtt, mqtt_tls = control.address, control.tls_address
        self.addresses = Addresses(
            mqtt=mqtt and Address(*mqtt),
            mqtt_tls=mqtt_tls and Address(*mqtt_tls),
            udp=bound,
            public_udp=public,
        )
        sessions.attach(control=control, audio=udp, public=(public.host, public.port))
        self.sampler = Sampler(
            pool.statistics,
            sessions=sessions.statistics,
            interval=settings.metrics.interval,
            frames_per_worker=settings.scaling.frames_per_worker,
            cores=cores,
        )
        self.scaler = Scaler(
            ScalingPolicy(
                settings=settings.scaling,
                min_workers=settings.pool.min_workers,
                max_workers=settings.pool.max_workers,
                cores=cores,
                latency_window=settings.metrics.window,
            ),
            signals=self.sampler.signals,
            resize=pool.resize,
            workers=lambda: pool.target,
            tick=settings.metrics.interval,
        )

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The calls that are live."""
        return self._sessions.live

    async def serve(
        self,
        handler: Handler | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take calls until `drain` has ended the last one, or until cancelled.

        It returns when the last handler has. One that ignores its cancellation keeps it from that,
        and with it whoever waits to leave `open_gateway`: Trio cannot abandon a task. Its call is
        over all the same, and so are all others.

        Args:
            handler: Gets each session. One that returns ends its call; one that raises ends its
                call and nothing else. By default the backend that the settings name.
            task_status: Started when calls are taken.
        """
        handler = self._handlers.watched(handler or backend(self.settings.backend))
        await self._sessions.serve(handler, task_status=task_status)

    async def drain(self, grace: float | None = None) -> None:
        """Take no more calls, let the live ones end, and make `serve` return.

        Returns when every device has been sent its goodbye and every handler has returned. Those
        that have not, a moment later, are named in the log with where they wait.

        Args:
            grace: Seconds until the rest is ended; by default `settings.grace`.
        """
        await self._sessions.drain(self.settings.grace if grace is None else grace)
        await self._handlers.wait_gone()

    def not_ready(self) -> list[str]:
        """What keeps calls from being taken, in words; empty when nothing does."""
        missing = [] if self._sessions.serving else ["calls are not being taken"]
        if self.settings.mqtt.url is not None and not self.control.connected:
            missing.append("the external MQTT broker is not connected")
        return missing

    def statistics(self) -> GatewayStatistics:
        """The numbers of all parts at this moment."""
        return GatewayStatistics(
            pool=self.pool.statistics(),
            sessions=self._sessions.statistics(),
            control=self.control.statistics(),
            udp=self._udp.statistics(),
        )
