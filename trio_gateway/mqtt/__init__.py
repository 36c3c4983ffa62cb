"""External MQTT brokers: the second way to the devices, beside the embedded endpoint (broker.py).

front.py       what the gateway sees: messages in, messages out, connected or not
routes.py      topics
outbox.py      what waits to go out
backoff.py     how long to wait before the next attempt
tls.py         certificates
statistics.py  numbers
session.py     one connection, step by step: Trio outside, asyncio inside
client.py      aiomqtt behind a gate: asyncio

Only the last two know asyncio, and they are loaded when a broker is opened: aiomqtt and
trio-asyncio are extras, and trio-asyncio changes asyncio for the whole process when it is imported.
"""

from __future__ import annotations

from trio_gateway.mqtt.front import ExternalBroker, open_external_broker
from trio_gateway.mqtt.statistics import ExternalBrokerStatistics

__all__ = ["ExternalBroker", "ExternalBrokerStatistics", "open_external_broker"]
