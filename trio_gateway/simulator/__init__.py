"""Simulated devices: they talk to any gateway as the firmware does, and check what they hear."""

from __future__ import annotations

from trio_gateway.simulator.fleet import simulate
from trio_gateway.simulator.network import Weather
from trio_gateway.simulator.plan import Plan
from trio_gateway.simulator.report import Report

__all__ = ["Plan", "Report", "Weather", "simulate"]
