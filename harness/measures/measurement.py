"""The result of a measure on one unit: a number, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value, or in plain words why it is undefined; exactly one of the two is None.

    Args:
        value: the measured number; NaN is refused, because a NaN is a missing value that lost its reason.
        missing: why there is no value, such as "continuation shorter than 4 tokens".

    Raises:
        ValueError: both or neither are given, or the value is NaN.
    """

    value: float | None
    missing: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.missing is None):
            raise ValueError(
                f"a measurement has a value or a reason, got value={self.value!r}, missing={self.missing!r}"
            )
        if self.value is not None and math.isnan(self.value):
            raise ValueError("a measurement of NaN: say why the value is missing instead")


def shorter_than(tokens: int) -> Measurement:
    """The missing measurement of a continuation with fewer than `tokens` tokens."""
    return Measurement(None, f"continuation shorter than {tokens} token{'s' if tokens > 1 else ''}")
