"""JSON-RPC with one device: whose answer is whose, and what is no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from trio_gateway.errors import SessionClosed, ToolCallError
from trio_gateway.mcp import MAX_ID, McpClient

if TYPE_CHECKING:
    from trio.testing import MockClock


@define
class Peer:
    """A client, what it has sent, and how its requests ended."""

    client: McpClient = field(init=False)
    sent: list[dict[str, Any]] = field(factory=list)
    ended: dict[str, object] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.client = McpClient(self.sent.append)

    async def ask(self, method: str, seconds: float = 5.0) -> None:
        try:
            self.ended[method] = await self.client.request(method, {}, timeout=seconds)
        except (ToolCallError, SessionClosed) as error:
            self.ended[method] = repr(error)

    def answer(self, number: object, **content: object) -> bool:
        return self.client.receive_untrusted({"jsonrpc": "2.0", "id": number, **content})


async def test_answers_find_their_requests_in_any_order(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        for method in ("a", "b", "c"):
            nursery.start_soon(peer.ask, method)
            await wait_all_tasks_blocked()
        numbers = {request["method"]: request["id"] for request in peer.sent}
        assert len(set(numbers.values())) == 3
        for method in ("c", "a", "b"):
            assert peer.answer(numbers[method], result=method.upper())
    assert peer.ended == {"a": "A", "b": "B", "c": "C"}


async def test_a_device_may_write_its_numbers_as_floats(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.ask, "a")
        await wait_all_tasks_blocked()
        number = peer.sent[0]["id"]
        assert not peer.answer(number + 0.5, result="not yours")
        assert peer.answer(float(number), result="yours")
    assert peer.ended == {"a": "yours"}


async def test_what_answers_nothing_is_left_to_others(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.ask, "a", 1.0)
        await wait_all_tasks_blocked()
        number = peer.sent[0]["id"]
        for foreign in (number + 1, str(number), None, True, [number], float("inf"), float("nan")):
            assert not peer.answer(foreign, result="x")
        # A request of the device's own, with a number that is by chance ours.
        assert not peer.answer(number, method="notifications/x")
        payloads: list[object] = [None, 7, "text", [], {}]
        for payload in payloads:
            assert not peer.client.receive_untrusted(payload)
    assert "no answer within 1 s" in str(peer.ended["a"])
    assert not peer.answer(number, result="too late")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"message": "no such tool"}, "no such tool"),  # the firmware's: without a code
        ({"code": -32601, "message": "x"}, "x"),
        ({"code": -32601}, "-32601"),
        ("plain", "plain"),
        (False, "False"),
    ],
)
async def test_an_error_of_the_device(autojump_clock: MockClock, error: object, text: str) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.ask, "a")
        await wait_all_tasks_blocked()
        assert peer.answer(peer.sent[0]["id"], error=error)
    assert str(peer.ended["a"]).startswith("ToolCallError")
    assert text in str(peer.ended["a"])


async def test_a_request_that_is_given_up_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    peer = Peer()
    with trio.move_on_after(1):
        await peer.client.request("a", {}, timeout=10)
    assert peer.client._waiting == {}
    assert not peer.answer(peer.sent[0]["id"], result=1)


@pytest.mark.parametrize("what", ["answer", "close"])
async def test_what_comes_when_the_request_has_just_been_given_up(
    autojump_clock: MockClock, what: str
) -> None:
    """The task is cancelled and has not run yet."""
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.ask, "a")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        if what == "answer":
            assert not peer.answer(peer.sent[0]["id"], result="too late")
        else:
            peer.client.close()
    assert peer.ended == {}


async def test_an_answer_comes_first_and_then_the_cancellation(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.ask, "a")
        await wait_all_tasks_blocked()
        assert peer.answer(peer.sent[0]["id"], result="in time")
        nursery.cancel_scope.cancel()
        peer.client.close()
    assert peer.ended == {"a": "in time"}


async def test_the_end_of_the_session_ends_all_requests(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        for method in ("a", "b"):
            nursery.start_soon(peer.ask, method)
        await wait_all_tasks_blocked()
        peer.client.close()
        peer.client.close()
    assert all("SessionClosed" in str(end) for end in peer.ended.values())
    with pytest.raises(SessionClosed):
        await peer.client.request("c", {}, timeout=1)
    assert len(peer.sent) == 2


async def test_a_request_that_cannot_be_sent_raises_and_waits_for_nothing(
    autojump_clock: MockClock,
) -> None:
    def closed(_: object) -> None:
        raise SessionClosed("the session has ended")

    client = McpClient(closed)
    with pytest.raises(SessionClosed):
        await client.request("a", {}, timeout=1)
    assert client._waiting == {}


async def test_numbers_fit_a_signed_int_of_32_bits(autojump_clock: MockClock) -> None:
    peer = Peer()
    peer.client._next_id = MAX_ID
    for _ in range(2):
        await peer.ask("a", 0.1)
    assert [request["id"] for request in peer.sent] == [MAX_ID, 1]


@pytest.mark.parametrize("seconds", [-1.0, 0.0, float("nan")])
async def test_no_time_for_an_answer_is_too_late_and_nothing_more(
    autojump_clock: MockClock, seconds: float
) -> None:
    peer = Peer()
    await peer.ask("a", seconds)
    assert "no answer" in str(peer.ended["a"])
    assert peer.sent == []
    await trio.sleep(1)
    peer.client.close()  # used to wake a task that did not wait, which ends the whole program
    await trio.sleep(1)
