"""Every number and name that can be set: one frozen tree, checked when it is built.

A field states its unit, what it does, what is allowed and where its default comes from: a section
of a specification, a measurement, a precedent, or the honest word "guess". `trio-gateway config`
prints that, and docs/settings.md is generated from it. How a file, the environment and flags
become such a tree is `configuration.py`; nothing else needs to know.

Time is float seconds; any other unit is in the name. None ("none" in a file or variable) means
what the field's text says. "The earlier gateway" is the one that this one replaces: Node, with a
pool of codec worker threads.
"""

from __future__ import annotations

from trio_gateway.settings.control import MqttSettings
from trio_gateway.settings.media import AudioSettings, UdpSettings
from trio_gateway.settings.pool import PoolSettings, ScalingSettings
from trio_gateway.settings.tree import (
    LogSettings,
    MetricsSettings,
    SessionSettings,
    Settings,
    sections,
    settings_by_path,
)
from trio_gateway.settings.values import Address, BrokerUrl, Secret, mask_url

__all__ = [
    "Address",
    "AudioSettings",
    "BrokerUrl",
    "LogSettings",
    "MetricsSettings",
    "MqttSettings",
    "PoolSettings",
    "ScalingSettings",
    "Secret",
    "SessionSettings",
    "Settings",
    "UdpSettings",
    "mask_url",
    "sections",
    "settings_by_path",
]
