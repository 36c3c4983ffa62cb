"""Numbers as people read them: about three digits, and their unit."""

from __future__ import annotations

__all__ = ["megabytes", "milliseconds", "rate"]


def milliseconds(seconds: float) -> str:
    """0.00042 -> "0.42 ms", 0.0123 -> "12.3 ms", 0.45 -> "450 ms", 2.5 -> "2500 ms".

    One unit throughout, so that a column of them compares by eye.
    """
    return f"{_three_digits(seconds * 1000)} ms"


def megabytes(size: int) -> str:
    """52_428_800 bytes -> "50.0 MiB"."""
    return f"{_three_digits(size / 2**20)} MiB"


def rate(per_second: float) -> str:
    """40.12 -> "40.1/s"."""
    return f"{_three_digits(per_second)}/s"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004  where 10.0 and 100 begin
    return f"{value:.{decimals}f}"
