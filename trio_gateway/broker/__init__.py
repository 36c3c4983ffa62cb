"""The embedded MQTT endpoint: devices connect to the gateway itself.

From the outside in: `endpoint` (who is there, and what becomes of what they say), `admission` and
`access` (who is let in, who may do what), `exchange` and `retained` (messages between clients),
`connection` and `outbox` (one peer).
"""

from __future__ import annotations

from trio_gateway.broker.endpoint import Broker, open_broker
from trio_gateway.broker.statistics import BrokerStatistics

__all__ = ["Broker", "BrokerStatistics", "open_broker"]
