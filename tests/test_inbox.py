from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_gateway.inbox import Inbox

NINE = {"n": 123}  # bytes, as {"n":123}


async def read_all(inbox: Inbox) -> list[object]:
    inbox.close()
    messages: list[object] = []
    while len(inbox):
        messages.append(await inbox.get())
    with pytest.raises(trio.EndOfChannel):
        await inbox.get()
    return messages


async def test_messages_come_out_in_order() -> None:
    inbox = Inbox(10, 1000)
    for number in range(5):
        inbox.put({"n": number})
    assert await read_all(inbox) == [{"n": number} for number in range(5)]
    assert inbox.dropped == 0


async def test_the_newest_are_kept_by_number() -> None:
    inbox = Inbox(3, 1000)
    for number in range(10):
        inbox.put({"n": number})
    assert (len(inbox), inbox.dropped) == (3, 7)
    assert await read_all(inbox) == [{"n": 7}, {"n": 8}, {"n": 9}]


async def test_the_newest_are_kept_by_bytes() -> None:
    inbox = Inbox(100, 27)
    for _ in range(5):
        inbox.put(NINE)
    assert (len(inbox), inbox.dropped) == (3, 2)
    await inbox.get()
    inbox.put(NINE)
    assert (len(inbox), inbox.dropped) == (3, 2)


async def test_a_message_that_is_larger_than_all_is_kept_alone() -> None:
    inbox = Inbox(100, 27)
    inbox.put(NINE)
    large = {"text": "x" * 100}
    inbox.put(large)
    assert (len(inbox), inbox.dropped) == (1, 1)
    inbox.put(NINE)
    assert await read_all(inbox) == [NINE]


async def test_who_waits_is_woken_by_a_message_and_by_the_end() -> None:
    inbox = Inbox(10, 1000)
    got: list[object] = []

    async def wait() -> None:
        try:
            got.append(await inbox.get())
        except trio.EndOfChannel:
            got.append("end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        inbox.put(NINE)
        await wait_all_tasks_blocked()
        assert got == [NINE]
        inbox.close()
    assert got == [NINE, "end"]
