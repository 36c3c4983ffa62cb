"""The clients that are here: by id, and so many from an address."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_gateway.broker.admission import Client
    from trio_gateway.settings import MqttSettings

__all__ = ["Register"]


class Register:
    """At most one client for an id.

    Args:
        settings: The limits.
    """

    def __init__(self, settings: MqttSettings) -> None:
        self._max = settings.max_clients
        self._max_per_address = settings.max_clients_per_address
        self._clients: dict[str, Client] = {}
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, client_id: str) -> Client | None:
        """Return the client with this id, if it is here."""
        return self._clients.get(client_id)

    def has_address(self, address: str) -> bool:
        """Whether a client is here from there."""
        return address in self._of_address

    def lack_of_room(self, client_id: str, address: str) -> str | None:
        """Return the limit that keeps a client out, or None. Who takes its own place needs none."""
        older = self._clients.get(client_id)
        if older is None and len(self) >= self._max:
            return "max_clients"
        if older is not None and older.connection.peer.address == address:
            return None
        full = self._of_address[address] >= self._max_per_address
        return "max_clients_per_address" if full else None

    def add(self, client: Client) -> None:
        """Register a client whose id is not here."""
        self._clients[client.client_id] = client
        self._of_address[client.connection.peer.address] += 1

    def discard(self, client: Client) -> bool:
        """Remove a client. False: it is not here any more, perhaps another with its id."""
        if self._clients.get(client.client_id) is not client:
            return False
        del self._clients[client.client_id]
        address = client.connection.peer.address
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        return True
