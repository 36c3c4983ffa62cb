"""The device's MCP server: JSON-RPC 2.0, as little as a gateway needs to see one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trio_gateway.core.control import Message

__all__ = ["answer"]

_INITIALIZED: Final = {
    "protocolVersion": "2024-11-05",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "simulated device", "version": "2.4.0"},
}
_TOOL: Final = {
    "name": "self.audio_speaker.set_volume",
    "description": "Set the volume of the speaker.",
    "inputSchema": {
        "type": "object",
        "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["volume"],
    },
}


def answer(payload: object) -> Message | None:
    """Return the JSON-RPC answer to a request, or None if there is nothing to answer.

    As the firmware's McpServer does it: errors have a message and no code.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("id"), int):
        return None  # a notification, or nothing that could be answered
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": payload["id"]}
    method = payload.get("method")
    if method == "initialize":
        reply["result"] = _INITIALIZED
    elif method == "tools/list":
        reply["result"] = {"tools": [_TOOL]}
    elif method == "tools/call":
        reply["result"] = {"content": [{"type": "text", "text": "true"}], "isError": False}
    elif isinstance(method, str):
        reply["error"] = {"message": f"Method not implemented: {method}"}
    else:
        return None  # an answer
    return reply
