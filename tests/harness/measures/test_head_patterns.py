"""Pattern scores of heads: against plain loops, on heads made to look in one way, and in blocks as in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.attention.blocks import Once
from harness.measures.head_kinds import PATTERNS, kind_of
from harness.measures.head_patterns import PREFIX, PatternSums, content_scores

Array = np.ndarray[Any, Any]


def random_rows(tokens: Array, heads: int, window: int | None, seed: int = 0) -> Array:
    """[H, key, query] rows over the positions from 1 on, causal, within the window."""
    rng, size = np.random.default_rng(seed), len(tokens) - 1
    rows = rng.random((heads, size, size))
    distance = np.arange(size)[None, :] - np.arange(size)[:, None]
    seen = (distance >= 0) & (distance < (size + 1 if window is None else window))
    rows = np.where(seen, rows, 0.0)
    found: Array = rows / rows.sum(axis=1, keepdims=True)
    return found


def plain(tokens: Array, row: Array, name: str, window: int | None) -> tuple[float, float, int]:
    """Score, what even attention scores, and queries of one head [key, query], query by query."""
    found, even = [], []
    for q in range(1, len(tokens)):
        first = 1 if window is None else max(1, q - window + 1)
        wanted = {
            "previous_token_score": [k for k in range(first, q) if k == q - 1],
            "induction_score": [k for k in range(first, q) if tokens[k - 1] == tokens[q]],
            "duplicate_token_score": [k for k in range(first, q) if tokens[k] == tokens[q]],
        }[name]
        if wanted:
            found.append(sum(row[k - 1, q - 1] for k in wanted))
            even.append(len(wanted) / (q - first + 1))
    return float(np.mean(found)), float(np.mean(even)), len(found)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("size", [1, 6, 100])
def test_scores_are_those_of_plain_loops(window: int | None, size: int) -> None:
    tokens = np.random.default_rng(1).integers(0, 5, 30)
    rows = random_rows(tokens, 3, window)
    sums = PatternSums(tokens, 3, window)
    for start in range(1, len(tokens), size):
        stop = min(start + size, len(tokens))
        low = 1 if window is None else max(1, start - window + 1)
        sums.add(torch.as_tensor(rows[:, low - 1 : stop - 1, start - 1 : stop - 1]), low, start)
    scores = sums.scores()
    assert set(scores) == set(PATTERNS)
    for name, (values, even, n) in scores.items():
        for head, value in enumerate(values):
            expected = plain(tokens, rows[head], name, window)
            assert (value, even, n) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(sums.prefix, rows[:, :PREFIX, :PREFIX])


def test_layers_of_one_text_look_for_its_places_once() -> None:
    tokens, shared, scores = np.random.default_rng(1).integers(0, 5, 30), Once(), []
    for seed in (0, 1, 0):
        rows = torch.as_tensor(random_rows(tokens, 3, None, seed))
        for sums in (PatternSums(tokens, 3, None, shared), PatternSums(tokens, 3)):
            sums.add(rows[:, :9, :9], 1, 1)
            sums.add(rows[:, :, 9:], 1, 10)
            scores.append({name: (list(values), even, n) for name, (values, even, n) in sums.scores().items()})
    assert scores[::2] == scores[1::2]
    assert scores[0] == scores[4] != scores[2]


def test_heads_that_look_in_one_way_score_1() -> None:
    tokens = np.tile(np.arange(6), 3)  # every token stood exactly 6 places before, and 5 before is what followed it
    size = len(tokens) - 1
    rows = np.zeros((3, size, size))
    for query in range(size):
        for head, distance in enumerate((1, 5, 6)):
            rows[head, max(query - distance, 0), query] = 1.0
    sums = PatternSums(tokens, 3)
    sums.add(torch.as_tensor(rows), 1, 1)
    scores = sums.scores()
    assert scores["previous_token_score"][0].tolist() == [1.0, pytest.approx(1 / 16), pytest.approx(1 / 16)]
    # the earliest query of a second round looks 5 back; in the third round a second match lies 11 back, unlooked at
    assert scores["induction_score"][0][1] == 1.0
    assert scores["duplicate_token_score"][0][2] == pytest.approx(1.0)
    assert scores["duplicate_token_score"][0][0] == 0.0


def test_a_text_without_repetition_has_no_induction() -> None:
    sums = PatternSums(np.arange(8), 1)
    sums.add(torch.as_tensor(random_rows(np.arange(8), 1, None)), 1, 1)
    assert set(sums.scores()) == {"previous_token_score"}
    assert not sums.long_enough


def test_content_is_what_differs_between_texts() -> None:
    rows = [torch.as_tensor(random_rows(np.arange(PREFIX + 1), 2, None, seed)) for seed in range(8)]
    for row in rows:
        row[0] = rows[0][0]  # a head that looks at positions alone
    found = content_scores(rows, seed=0)
    assert found[0].value == pytest.approx(0.0, abs=1e-12)
    apart = [(row[1] - torch.stack([r[1] for r in rows]).mean(0)).abs().sum() for row in rows]
    assert found[1].value == pytest.approx(float(sum(apart)) / (2 * len(rows) * PREFIX))
    assert found[1].low is not None
    assert found[1].high is not None
    assert found[1].low < found[1].value < found[1].high


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ({"previous_token_score": 0.6, "sink_share": 0.9, "content_score": 0.1}, "previous-token"),
        ({"previous_token_score": 0.41, "induction_score": 0.5, "sink_share": 0.1}, "induction"),
        ({"previous_token_score": 0.1, "duplicate_token_score": 0.4}, "duplicate-token"),
        ({"previous_token_score": 0.39, "sink_share": 0.5, "content_score": 0.9}, "sink"),
        ({"previous_token_score": 0.1, "sink_share": 0.1, "content_score": 0.3}, "content"),
        ({"previous_token_score": 0.3, "sink_share": 0.1, "content_score": 0.1}, "position"),
        ({"previous_token_score": 0.3, "sink_share": 0.1}, "mixed"),
    ],
)
def test_heads_are_named_by_what_holds_most(scores: dict[str, float], kind: str) -> None:
    assert kind_of(scores) == kind
