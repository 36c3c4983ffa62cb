from __future__ import annotations

import pytest

from trio_gateway.metrics.units import megabytes, milliseconds, rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.00042, "0.42 ms"),
        (0.0099949, "9.99 ms"),
        (0.009996, "10.0 ms"),
        (0.0123, "12.3 ms"),
        (0.09994, "99.9 ms"),
        (0.09996, "100 ms"),
        (0.45, "450 ms"),
        (2.5, "2500 ms"),
    ],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_megabytes_and_rates() -> None:
    assert megabytes(50 * 2**20) == "50.0 MiB"
    assert rate(40.12) == "40.1/s"
    assert rate(0.0) == "0/s"
