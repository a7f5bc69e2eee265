"""The page of measured speeds: what a bar means, and how it is written down."""

from __future__ import annotations

import pytest
import ratios


@pytest.mark.parametrize(
    ("value", "bar", "said"),
    [
        (1.5, "<= 1.5", "yes"), (1.51, "<= 1.5", "no"), (400.0, "bar 400", "yes"), (399.0, "bar 400", "no"),
        (3.0, ">= 3", "yes"), (1.0, "> 1", "no"), (2.0, "", ""), (9.0, "prototype 7-8", ""),
    ],
)  # fmt: skip
def test_a_bar_is_met_or_not(value: float, bar: str, said: str) -> None:
    assert ratios.met(value, bar) == said


def test_the_page_has_a_line_for_each_value() -> None:
    text = ratios.page([("fit K=33", "x choix", 512.3, "bar 400"), ("heads", "capture / plain", 2.7, "<= 2.5")])
    assert "| fit K=33 | x choix | 512 | bar 400 | yes |" in text
    assert "| heads | capture / plain | 2.70 | <= 2.5 | no |" in text.replace("\\<", "<").replace("&lt;", "<")
    assert "torch " in text
