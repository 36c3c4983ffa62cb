"""`trio-gateway replay`: what the scaling policy makes of a load, without the load."""

from __future__ import annotations

from trio_gateway.replay.run import Replay, Step, replay
from trio_gateway.replay.scenarios import PREFIX, SCENARIOS, Scenario
from trio_gateway.replay.trace import Trace, read

__all__ = ["PREFIX", "SCENARIOS", "Replay", "Scenario", "Step", "Trace", "read", "replay"]
