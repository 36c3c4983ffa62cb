"""The HTTP endpoint, over real HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import trio
from attrs import evolve

from trio_gateway import Settings, open_gateway
from trio_gateway.settings import Address

ANY_PORT = Address("127.0.0.1", 0)


async def get(url: str) -> tuple[int, Any]:
    def fetch() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(url) as response:  # noqa: S310  our own loopback URL
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    return await trio.to_thread.run_sync(fetch)


async def test_health_readiness_and_state_follow_the_gateway() -> None:
    settings = Settings()
    settings = evolve(
        settings,
        http_listen=ANY_PORT,
        mqtt=evolve(settings.mqtt, listen=ANY_PORT),
        udp=evolve(settings.udp, listen=ANY_PORT),
    )
    with trio.fail_after(10):
        async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
            url = gateway.addresses.http
            assert url is not None
            assert await get(f"{url}/healthz") == (200, {"status": "ok"})
            not_yet = {"ready": False, "missing": ["calls are not being taken"]}
            assert await get(f"{url}/readyz") == (503, not_yet)
            await nursery.start(gateway.serve)
            assert await get(f"{url}/readyz") == (200, {"ready": True, "missing": []})
            status, state = await get(f"{url}/api/state")
            assert status == 200
            assert len(state["pool"]["workers"]) == settings.pool.min_workers
            assert state["sessions"]["active"] == 0
            nursery.cancel_scope.cancel()


async def test_without_the_setting_nothing_listens() -> None:
    settings = Settings()
    settings = evolve(
        settings,
        mqtt=evolve(settings.mqtt, listen=ANY_PORT),
        udp=evolve(settings.udp, listen=ANY_PORT),
    )
    async with open_gateway(settings) as gateway:
        assert gateway.addresses.http is None
