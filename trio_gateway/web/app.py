"""What a running gateway says of itself over HTTP: is it alive, is it ready, how does it do.

    GET /healthz     200 as long as the event loop runs
    GET /readyz      200 when calls are taken, else 503; the body says why
    GET /api/state   all statistics as JSON

Reading is all there is, and on loopback only: the settings see to that.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_gateway.settings import Address

__all__ = ["make_app", "open_http"]

CLOSE_TIMEOUT = 1.0  # seconds for requests under way when the endpoint closes; a guess


def make_app(*, state: Callable[[], dict[str, Any]], ready: Callable[[], list[str]]) -> QuartTrio:
    """Make the ASGI application.

    Args:
        state: Returns what `/api/state` shows; JSON types only.
        ready: Returns what is not ready, in words; empty when all is.
    """
    app = QuartTrio(__name__)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> tuple[dict[str, Any], int]:
        missing = ready()
        return {"ready": not missing, "missing": missing}, 503 if missing else 200

    @app.get("/api/state")
    async def show_state() -> dict[str, Any]:
        return state()

    return app


@asynccontextmanager
async def open_http(
    listen: Address, *, state: Callable[[], dict[str, Any]], ready: Callable[[], list[str]]
) -> AsyncIterator[str]:
    """Serve until the context is left; yields the URL that was bound.

    Raises:
        OSError: The address cannot be bound.
    """
    config = Config()
    config.bind = [str(listen)]
    config.accesslog = None
    config.loglevel = "WARNING"
    config.graceful_timeout = CLOSE_TIMEOUT
    closing = trio.Event()
    app = make_app(state=state, ready=ready)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(app, config, shutdown_trigger=closing.wait, task_status=task_status)

        (url,) = await nursery.start(run)
        yield url
        closing.set()
