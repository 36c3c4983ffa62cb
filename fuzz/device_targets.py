"""Ways in between a device and a gateway: tool calls, and what the simulated device hears."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from fuzzing import WORDS, Feed, Take, Target, record, refusable
from json_targets import scalar, vector
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_gateway.core.control import encode
from trio_gateway.errors import BadMessage, BadPacket, SessionClosed, ToolCallError
from trio_gateway.mcp import McpClient
from trio_gateway.simulator.device import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEVICE_TARGETS"]


def open_tool_call() -> Feed:
    """A device that answers two calls with anything; each call ends as it may."""
    sent: list[Any] = []
    client = McpClient(sent.append)

    async def call() -> None:
        with suppress(ToolCallError, SessionClosed):
            await client.request("tools/call", {}, timeout=1)

    async def converse(data: bytes) -> None:
        sent.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            take = Take(data)
            while take.more:
                payload = take.object(4) if take.number() else take.value()
                if isinstance(payload, dict) and "id" in payload and sent:
                    payload["id"] = _near(payload["id"], sent[0]["id"])
                client.receive_untrusted(payload)

    return lambda data: trio.run(converse, data, clock=MockClock(autojump_threshold=0))


def _near(number: object, first: int) -> object:
    """Small numbers are counted from the first call that waits, or no answer would ever match."""
    return first + number if isinstance(number, int | float) and abs(number) < 3 else number


def tool_call_seeds() -> Iterator[bytes]:
    """Answers, and what looks like some."""
    number, result, error = (WORDS.index(name) for name in ("id", "result", "error"))
    answer = bytes([1, number, *scalar(0), result, 4, 0])
    yield answer + bytes(4)
    yield bytes([1, number, *scalar(7.0), error, 5, 1, WORDS.index("message"), 1, 0])
    yield bytes([1, number, *scalar(1), error, 1, WORDS.index("\ud800")]) + answer
    yield bytes([1, number, *scalar(1e308), number, *scalar(True)])


def open_device() -> Feed:
    """The simulated device: messages and datagrams of a gateway."""
    device, now = Device("GID@@@02_00_00_00_00_01@@@uuid"), 1000.0

    def feed(data: bytes) -> None:
        nonlocal now
        take = Take(data)
        while take.more:
            kind = take.number()
            now += take.number() / 100
            with refusable(BadMessage), refusable(BadPacket):
                if kind % 3 == 1:
                    device.receive_datagram_untrusted(take.block(), now)
                elif kind % 3 == 2:
                    device.receive_message_untrusted(encode(take.object(8)), now)
                else:
                    device.receive_message_untrusted(take.block(), now)
        if device.playback is not None:
            device.playback.packets.clear()  # what was heard is kept, on purpose, for its judge

    return feed


def device_seeds() -> Iterator[bytes]:
    """A reply, and hello answers with one bad field."""
    answer = vector("hello.json")["answer"]
    audio = b"\x01\x80\x00\x04" + bytes.fromhex(answer["udp"]["nonce"])[4:8]
    frames = [record(1, 6, audio + bytes(7) + bytes([n]) + b"opus") for n in (1, 2, 4, 3, 3)]
    start, stop = (encode({"type": "tts", "state": state}) for state in ("start", "stop"))
    alert, call = b'{"type":"alert","status":1}', b'{"type":"mcp","payload":{"id":1,"method":"x"}}'
    talk = [record(0, 0, start), *frames, record(0, 9, stop), record(0, 0, alert, 0, 0, call)]
    yield b"".join([record(0, 0, encode(answer)), *talk])
    for bad in ({"udp": None}, {"transport": "ws"}, {"session_id": 1}, {"audio_params": 7}):
        yield record(0, 0, encode(answer | bad))
    yield record(0, 0, encode(answer | {"udp": answer["udp"] | {"key": "zz"}}))


DEVICE_TARGETS = (
    Target(
        name="tool_call",
        open=open_tool_call,
        refusal=BadMessage,
        covers=("mcp:McpClient.receive_untrusted",),
        seeds=tool_call_seeds,
    ),
    Target(
        name="device",
        open=open_device,
        refusal=BadMessage,
        covers=(
            "simulator.device:Device.receive_message_untrusted",
            "simulator.device:Device.receive_datagram_untrusted",
            "simulator.device:Device._open_untrusted",
        ),
        seeds=device_seeds,
    ),
)
