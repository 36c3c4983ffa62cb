"""MCP calls to a device: JSON-RPC 2.0 inside `mcp` messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import outcome
import trio

from trio_gateway.errors import SessionClosed, ToolCallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.core.control import Message

__all__ = ["McpClient"]

MAX_ID = 2**31 - 1  # the firmware clamps larger ids, and the answer would never match


class McpClient:
    """Asks one device and matches its answers.

    Args:
        send: Sends a JSON-RPC message to the device.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._next_id = 1
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._closed = False

    @trio.lowlevel.enable_ki_protection
    async def request(self, method: str, params: Message, *, timeout: float) -> Any:  # noqa: ASYNC109  part of the protocol: the text says so
        """Call a method of the device.

        Args:
            method: "tools/call", "tools/list", ...
            params: Its parameters.
            timeout: Seconds to wait for the answer; at or below 0 the device is not asked.

        Returns:
            The `result` of the answer.

        Raises:
            ToolCallError: The device answered with an error, or not in time.
            SessionClosed: The session ended first.
        """
        if self._closed:
            raise SessionClosed("the session has ended")
        late = f"{method}: no answer within {timeout:g} s"
        if not timeout > 0:  # also NaN
            raise ToolCallError(late)
        number = self._next_id
        self._next_id = number % MAX_ID + 1
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

        def give_up(_: object) -> trio.lowlevel.Abort:
            # At once: an answer may come before the task runs again, and would wake it twice.
            del self._waiting[number]
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(timeout):
            # From here to the wait nothing can fail: a task in there that does not wait is fatal.
            self._waiting[number] = trio.lowlevel.current_task()
            return await trio.lowlevel.wait_task_rescheduled(give_up)
        raise ToolCallError(late)

    def receive_untrusted(self, payload: object) -> bool:
        """Take a JSON-RPC message. True if it answers one of our requests."""
        if not isinstance(payload, dict):
            return False
        number = payload.get("id")
        if isinstance(number, float) and number.is_integer():  # JavaScript's and cJSON's 7.0
            number = int(number)
        if type(number) is not int or "method" in payload:
            return False
        task = self._waiting.pop(number, None)
        if task is None:
            return False
        trio.lowlevel.reschedule(task, _outcome(payload))
        return True

    def close(self) -> None:
        """The session ends: nobody will answer."""
        self._closed = True
        while self._waiting:
            _, task = self._waiting.popitem()
            trio.lowlevel.reschedule(task, outcome.Error(SessionClosed("the session has ended")))


def _outcome(payload: Message) -> outcome.Outcome[Any]:
    error = payload.get("error")
    if error is None:
        return outcome.Value(payload.get("result"))
    # The firmware's errors carry `message` and no `code`.
    text = error.get("message") if isinstance(error, dict) else None
    return outcome.Error(ToolCallError(str(text or error)))
