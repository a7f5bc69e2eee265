"""Agreement of winner sets of given sizes, times of locking in, and losers, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measures.agreement import lock_in_error, top_agreement
from harness.measures.winners import loser_exponent_of_prompt, top_tokens


def plain_top(tokens: list[int], k: int) -> list[int]:
    window = tokens[len(tokens) - min(128, len(tokens) // 2) :]
    last = {token: index for index, token in enumerate(window)}
    return sorted(last, key=lambda token: (-window.count(token), -last[token]))[:k]


def test_the_most_frequent_tokens() -> None:
    for seed in range(20):
        tokens = np.random.default_rng(seed).integers(0, 9, 40 + 13 * seed).tolist()
        for k in (1, 3, 10):
            assert top_tokens(tokens, k).tolist() == plain_top(tokens, k)
    with pytest.raises(ValueError, match="at least one token"):
        top_tokens([1, 2], 0)


def test_agreement_of_sets_of_given_sizes() -> None:
    real, other = [1, 1, 1, 2, 2, 3] * 10, [2, 2, 2, 1, 1, 4] * 10
    found = {name: m.value for name, m in top_agreement(real, other, (1, 3)).items()}
    assert found == {
        "winner_jaccard_at_1": 0.0, "winner_precision_at_1": 0.0, "winner_recall_at_1": 0.0, "winner_size_at_1": 1.0,
        "winner_jaccard_at_3": 0.5, "winner_precision_at_3": 2 / 3, "winner_recall_at_3": 2 / 3,
        "winner_size_at_3": 3.0,
    }  # fmt: skip
    one = top_agreement(real, [5] * 60, (3,))
    assert one["winner_size_at_3"].value == 1.0
    assert top_agreement([1], [2], (1,))["winner_jaccard_at_1"].missing is not None


def test_lock_in() -> None:
    early, late = [*range(50, 60), *[7] * 90], [*range(50, 90), *[7] * 60]
    # dominance of 7 reaches 29 of 32 tokens 29 steps after the first 7
    assert lock_in_error(early, late).value == 30.0
    assert lock_in_error(early, early).value == 0.0
    unsettled = [
        *[7] * 208,
        *range(100, 108),
    ]  # 7 wins the trailing window and has left the last 32 tokens by a quarter
    assert lock_in_error(unsettled, [7] * 216).missing == "the real continuation does not lock in"
    assert lock_in_error([7] * 216, unsettled).missing == "the surrogate's continuation does not lock in"


def test_losers_of_a_prompt() -> None:
    prompt, continuation = [3, 4, 5], [4] * 97
    assert loser_exponent_of_prompt(continuation, prompt).value == pytest.approx(0.0)
    assert loser_exponent_of_prompt([4] * 20, [4]).missing == "every token of the prompt is a winner"
    assert loser_exponent_of_prompt([4] * 20, [3] * 10).missing == "less than one decade of time after the prompt"
