"""The embedded MQTT endpoint: devices connect to the gateway itself.

From the outside in: `listening`, `endpoint` and `intake` (who comes, how many), `admission`,
`register` and `access` (who is let in, who is here, who may do what), `requests` (what they say),
`exchange` and `retained` (messages between clients), `connection`, `throttle`, `outbox` and
`lingering` (one peer). `tls` and `certificate` stand before all that for those who come to the
other port.
"""

from __future__ import annotations

from trio_gateway.broker.endpoint import Broker
from trio_gateway.broker.listening import open_broker
from trio_gateway.broker.statistics import BrokerStatistics

__all__ = ["Broker", "BrokerStatistics", "open_broker"]
