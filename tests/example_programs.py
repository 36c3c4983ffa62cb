"""The programs under examples/, which are no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

__all__ = ["EXAMPLES", "load"]

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
