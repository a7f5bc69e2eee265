"""Verdicts: closed forms of the two one-sided tests, the interval beside them, correction for many figures, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.stats.equivalence import Verdict, agreement_p, judge, judged_together, provable_margin, stretch
from harness.stats.grouped import group_mean
from harness.stats.joint import Spread
from harness.stats.significance import holm


def symmetric(n: int, mean: float, sd: float, seed: int = 0) -> np.ndarray:
    """Values without skewness, of a given mean and standard deviation."""
    half = np.random.default_rng(seed).normal(size=n // 2)
    x = np.concatenate([half, -half])
    return np.asarray(mean + sd * x / x.std(ddof=1))


def test_without_skewness_it_is_schuirmann_with_a_larger_error() -> None:
    x, error = symmetric(60, 0.01, 0.1), 0.1 / np.sqrt(60)
    found = judge(x, None, 0.05)
    lower, upper = (stats.t.sf(gap / (error * stretch(59)), 59) for gap in (0.01 + 0.05, 0.05 - 0.01))
    assert found.p_agrees == pytest.approx(max(lower, upper), rel=0.02)
    assert found.p_differs == pytest.approx(2 * stats.t.sf(0.01 / error, 59), rel=0.02)
    assert (found.word, found.n, found.groups) == ("agrees", 60, 60)


@pytest.mark.parametrize(
    ("mean", "sd", "word"),
    [(0.0, 0.05, "agrees"), (0.02, 0.05, "agrees"), (0.2, 0.1, "differs"), (0.0, 0.4, "undecided")],
)
def test_the_three_verdicts(mean: float, sd: float, word: str) -> None:
    found = judge(symmetric(40, mean, sd), None, 0.05)
    assert found.word == word
    assert found.inner.low is not None
    assert found.inner.high is not None
    assert (found.inner.low > -0.05 and found.inner.high < 0.05) == (word == "agrees")


def test_few_prompts_decide_nothing() -> None:
    found = judge([0.0, 0.0, 0.0], None, 0.5)
    assert (found.word, found.p_agrees, found.p_differs, found.findable) == ("undecided", None, None, None)
    assert "fewer than 5" in str(found.missing)
    same = judge([0.0] * 30, None, 0.5)
    assert same.word == "undecided"
    assert "only 0 of 30 groups differ" in str(same.missing)
    with pytest.raises(ValueError, match="margin"):
        judge([0.0] * 30, None, 0.0)


def test_groups_make_it_harder_to_agree() -> None:
    x = np.repeat(symmetric(30, 0.0, 0.1), 3)
    alone, grouped = judge(x, None, 0.03), judge(x, np.repeat(np.arange(30), 3), 0.03)
    assert (alone.word, grouped.word) == ("agrees", "undecided")
    assert (grouped.n, grouped.groups) == (90, 30)
    assert (grouped.provable or 0) > 1.6 * (alone.provable or 0)


def verdict(p_agrees: float | None, p_differs: float | None) -> Verdict:
    from harness.core.records import Interval

    nothing = Interval(0.0, None, None, 9)
    return Verdict("undecided", nothing, nothing, 0.1, p_differs, p_agrees, 9, 9, None, None)


def test_many_verdicts_are_corrected_together() -> None:
    one, two, three, none = judged_together(
        [verdict(0.012, 0.9), verdict(0.9, 0.03), verdict(0.02, 0.9), verdict(None, None)]
    )
    # of 6 hypotheses at most 3 are true: factors 3, 3, 3, 3, 2, 1
    assert one.p_agrees == pytest.approx(0.036)
    assert three.p_agrees == pytest.approx(0.06)
    assert two.p_differs == pytest.approx(0.09)
    assert [v.word for v in (one, two, three, none)] == ["agrees", "undecided", "undecided", "undecided"]
    assert judged_together([]) == []


def test_holm_with_fewer_true_hypotheses_than_tests() -> None:
    p = [0.01, 0.02, 0.03, 0.5]
    assert holm(p, most_true=4) == pytest.approx(holm(p))
    assert holm(p, most_true=2) == pytest.approx([0.02, 0.04, 0.06, 0.5])


def test_no_wrong_verdict_in_a_table_more_often_than_in_one_of_twenty() -> None:
    """Ten figures, half of them without a difference, half of them on the margin: the worst case of the correction."""
    rng, wrong, runs = np.random.default_rng(0), 0, 80
    for _ in range(runs):
        table = [judge(rng.normal(true, 0.1, 40), None, 0.1) for true in [0.0] * 5 + [0.1] * 5]
        words = [one.word for one in judged_together(table)]
        wrong += "differs" in words[:5] or "agrees" in words[5:]
    assert wrong / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_the_provable_margin_is_shown_four_times_in_five() -> None:
    rng, shown, runs = np.random.default_rng(1), 0, 300
    margin = provable_margin(Spread(1.0 / np.sqrt(60), 59.0, 0.0))
    for _ in range(runs):
        p = agreement_p(group_mean(rng.normal(size=60)), margin)
        assert p is not None
        shown += p <= 0.05
    assert 0.7 <= shown / runs <= 0.9
