from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from trio_gateway.mqtt.outbox import Outbox, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable


def payloads(messages: Iterable[Outgoing]) -> list[bytes]:
    return [message.payload for message in messages]


async def test_first_in_first_out_in_batches() -> None:
    outbox = Outbox(10_000, max_age=8)
    for payload in (b"1", b"2", b"3"):
        assert outbox.put("t", payload, now=0)
    assert payloads(outbox.take(2, now=1)) == [b"1", b"2"]
    assert payloads(outbox.take(2, now=1)) == [b"3"]
    assert outbox.take(2, now=1) == []
    assert outbox.bytes == 0


async def test_what_has_no_room_is_refused_and_what_was_there_stays() -> None:
    outbox = Outbox(1000, max_age=8)
    assert outbox.put("t", b"a" * 600, now=0)
    assert not outbox.put("t", b"b" * 600, now=0)
    assert payloads(outbox.take(9, now=0)) == [b"a" * 600]


async def test_what_is_stale_makes_room_and_is_not_sent() -> None:
    outbox = Outbox(1000, max_age=8)
    assert outbox.put("t", b"a" * 600, now=0)
    assert outbox.put("t", b"b" * 600, now=8.5)
    assert outbox.stale == 1
    assert payloads(outbox.take(9, now=16.4)) == [b"b" * 600]
    assert outbox.put("t", b"c", now=20)
    assert outbox.take(9, now=30) == []
    assert outbox.stale == 2


async def test_what_comes_back_is_first_again() -> None:
    outbox = Outbox(1000, max_age=8)
    for payload in (b"1", b"2"):
        outbox.put("t", payload, now=0)
    batch = outbox.take(2, now=0)
    outbox.put("t", b"3", now=0)
    outbox.put_back(batch)
    assert payloads(outbox.take(3, now=0)) == [b"1", b"2", b"3"]
    assert outbox.bytes == 0


async def test_wait() -> None:
    outbox = Outbox(1000, max_age=8)
    got: list[bytes] = []

    async def reader() -> None:
        while True:
            await outbox.wait()
            got.extend(payloads(outbox.take(9, now=0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        for payload in (b"1", b"2"):
            await wait_all_tasks_blocked()
            outbox.put("t", payload, now=0)
            outbox.put("t", payload, now=0)
        await wait_all_tasks_blocked()
        assert got == [b"1", b"1", b"2", b"2"]
        outbox.put_back([Outgoing("t", b"3", 0)])
        await wait_all_tasks_blocked()
        assert got[4:] == [b"3"]
        nursery.cancel_scope.cancel()
