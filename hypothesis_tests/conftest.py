"""How the property tests run."""

from __future__ import annotations

from hypothesis import settings

# A deadline for each example measures the machine, and what else runs on it.
settings.register_profile("trio-gateway", deadline=None)
settings.load_profile("trio-gateway")
