"""How numbers and intervals are shown."""

from __future__ import annotations

import pytest

from harness.core.format import interval, number, percent
from harness.core.records import Interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (0.0, "0"), (1.0, "1.00"), (0.12345, "0.123"), (0.0123, "0.012"),
        (0.004687, "0.00469"), (-2.5, "-2.50"), (18.83, "18.8"), (123.4, "123"), (2.9e-15, "2.9e-15"),
        (123456.0, "1.2e+05"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_an_interval_has_the_same_decimals_throughout() -> None:
    assert interval(Interval(0.5, 0.04, 0.9, 9)) == "0.500 [0.040, 0.900]"
    assert interval(Interval(10.9, 1.43, 40.9, 9)) == "10.9 [1.4, 40.9]"
    assert interval(Interval(0.00508, 8.7e-19, 0.0263, 9), signed=True) == "+0.005 [0.000, +0.026]"
    assert interval(Interval(-0.0001, -0.2, 0.3, 9), signed=True) == "0.000 [-0.200, +0.300]"
    assert interval(Interval(0.5, None, None, 3)) == "0.500"
    assert interval(Interval(None, None, None, 0, "no units")) == "–"


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (Interval(0.512, 0.434, 0.555, 15), "51 % [43, 56]"), (Interval(-0.0001, -0.02, 0.02, 9), "0 % [-2, 2]"),
        (Interval(0.0254, 0.0181, 0.0344, 15), "2.5 % [1.8, 3.4]"),
        (Interval(0.9999, 0.9998, 1.0, 9), "99.99 % [99.98, 100.00]"),
        (Interval(0.512, None, None, 3), "51 %"), (Interval(0.0254, None, None, 3), "2.5 %"),
        (Interval(None, None, None, 0, "no units"), "–"),
    ],
)  # fmt: skip
def test_percent_has_the_decimals_of_its_interval(found: Interval, shown: str) -> None:
    assert percent(found) == shown
