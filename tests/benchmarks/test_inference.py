"""Intervals cover, tests hold their size, verdicts are rarely wrong: on laws of a reference run and zero-heavy ones.

Small unless asked for: fewer laws, sizes and repetitions, with room for the error of so few.
"""

from __future__ import annotations

import numpy as np
import pytest
from inference import PAGE, PRINTED, PROMPTS, REPETITIONS, RESAMPLED, Law, Rates, laws, page, simulate

FEW = 2_000
SMALL = (12, 40)


@pytest.fixture(scope="module")
def every_law() -> list[Law]:
    return laws()


def check(one: Rates, repetitions: int) -> None:
    """The bars, with three standard errors of the simulation."""
    where = f"{one.law.name}, {one.prompts} prompts"

    def error(share: float) -> float:
        return 3 * float(np.sqrt(share * (1 - share) / repetitions))

    assert one.rejected <= 0.07 + error(0.07), where
    assert one.agreed <= 0.06 + error(0.06), where
    assert one.covered >= 0.93 - error(0.07), where
    if one.prompts >= 40 and one.law.claimed:
        assert one.rejected >= 0.03 - error(0.03), where
        assert one.covered <= 0.97 + error(0.03), where


@pytest.mark.parametrize("index", [1, 3, 5, 6])
def test_the_bars_hold_on_some_laws(every_law: list[Law], index: int) -> None:
    for prompts in SMALL:
        check(simulate(every_law[index], prompts, FEW), FEW)


def test_a_plain_t_interval_would_not_do(every_law: list[Law]) -> None:
    """The check can fail: with the skewed values of T = 1, t covers less than 93 % of 12 and of 40 prompts."""
    skewed = next(law for law in every_law if law.name.startswith("T = 1, counts"))
    for prompts in SMALL:
        one = simulate(skewed, prompts, 5 * FEW)
        assert one.covered_by_t < 0.93 < one.covered


def test_the_bars_hold_everywhere(every_law: list[Law], enabled: bool) -> None:
    if not enabled:
        pytest.skip("takes minutes: --benchmark-enable")
    rates = [simulate(law, prompts, REPETITIONS, RESAMPLED) for law in every_law for prompts in PROMPTS]
    PRINTED.append(page(rates))
    for one in rates:
        check(one, REPETITIONS)
    assert PAGE.read_text(encoding="utf-8") == page(rates)


def test_the_page_is_that_of_these_laws_and_sizes(every_law: list[Law]) -> None:
    written = PAGE.read_text(encoding="utf-8")
    for law in every_law:
        assert sum(line.startswith(f"| {law.name} |") for line in written.splitlines()) == len(PROMPTS)


def test_the_results_show_the_page() -> None:
    assert PAGE.read_text(encoding="utf-8").strip() in (PAGE.parent / "README.md").read_text(encoding="utf-8")
