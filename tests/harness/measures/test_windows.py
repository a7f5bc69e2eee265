"""Distances of trailing windows and winner sets: closed forms, negative type, and scores that the true law wins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.measures.agreement import jaccard
from harness.measures.windows import inverse_document_frequency, window_distances, winner_distances
from harness.measures.winners import winner_set

SHORT = [np.array(w) for w in itertools.product((0, 1, 2), repeat=2)]
CONTINUATIONS = [np.concatenate([[9] * w.size, w]) for w in SHORT] + [np.array([5]), np.array([], dtype=int)]
"""All windows of two tokens out of three, and two continuations without a window."""


def test_document_frequency_tells_common_tokens_from_rare_ones() -> None:
    weights = inverse_document_frequency([[1, 2, 2], [1, 3], [1, 1]])
    assert weights == pytest.approx({-1: np.log(4), 1: 0.0, 2: np.log(2), 3: np.log(2)})
    with pytest.raises(ValueError, match="at least one continuation"):
        inverse_document_frequency([])


def test_the_weighted_total_variation_of_two_windows_by_hand() -> None:
    # windows [1, 2] and [1, 7]; 7 has no weight and gets the largest one, 2
    found = window_distances([[0, 0, 1, 2]], [[0, 0, 1, 7], [0, 0, 2, 1]], {1: 2.0, 2: 1.0})
    assert found == pytest.approx(np.array([[(0.5 * 1 + 0.5 * 2) / (2 * 2), 0.0]]))
    assert window_distances([[0, 0, 1, 2]], [[0, 0, 1, 7]], [1.0, 2.0, 1.0]) == pytest.approx(np.array([[0.375]]))


def test_a_token_that_every_training_text_holds_counts_nothing() -> None:
    weights = inverse_document_frequency([[1, 2], [1, 3]])
    assert window_distances([[0, 0, 1, 2]], [[0, 0, 2, 2]], weights)[0, 0] == pytest.approx(
        0.25 * np.log(1.5) / np.log(3)
    )


def test_winner_sets_are_compared_as_by_the_overlap() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 6, 20) for _ in range(6)]
    found = winner_distances(texts[:2], texts[2:])
    for i, j in itertools.product(range(2), range(4)):
        overlap = jaccard(winner_set(texts[i]), winner_set(texts[2 + j])).value
        assert overlap is not None
        assert found[i, j] == pytest.approx(1 - overlap)


def test_an_empty_window_is_an_outcome() -> None:
    assert winner_distances([[], [1]], [[], [1, 1, 1, 1]]).tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert window_distances([[]], [[], [1, 1, 1, 1]], {1: 1.0}).tolist() == [[0.0, 0.5]]
    assert window_distances([], [[1, 2]], {1: 1.0}).shape == (0, 1)


@pytest.mark.parametrize("weights", [{}, {1: -1.0}, {1: float("nan")}, [0.0, 0.0]])
def test_weights_that_cannot_be(weights: object) -> None:
    with pytest.raises(ValueError, match="weight"):
        window_distances([[1, 2]], [[1, 2]], weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["windows", "winners"])
def test_both_are_of_negative_type_and_no_law_beats_the_true_one(kind: str) -> None:
    """Exact expectations over finite laws: no other law, narrower, wider, constant or random, has a lower score."""
    rng = np.random.default_rng(1)
    weights = inverse_document_frequency([[0, 1], [0], [0, 2], [0, 1, 2]])
    texts = CONTINUATIONS + [rng.integers(0, 8, n) for n in (8, 9, 16, 24, 40)]
    distance = window_distances(texts, texts, weights) if kind == "windows" else winner_distances(texts, texts)
    size = len(texts)
    assert distance == pytest.approx(distance.T)
    centred = distance - distance.mean(axis=0) - distance.mean(axis=1)[:, None] + distance.mean()
    assert np.linalg.eigvalsh(centred).max() <= 1e-12

    def score(law: np.ndarray, truth: np.ndarray) -> float:
        return float(law @ distance @ truth - law @ distance @ law / 2)

    plain_is_beaten = 0
    for _ in range(40):
        truth = rng.dirichlet(np.full(size, 0.4))
        own = score(truth, truth)
        narrower = [truth**k / (truth**k).sum() for k in (1.5, 3.0)]
        wider = [truth**0.5 / (truth**0.5).sum(), np.full(size, 1 / size)]
        others = [*narrower, *wider, *np.eye(size), *rng.dirichlet(np.ones(size), 20)]
        assert min(score(law, truth) for law in others) >= own - 1e-12
        plain_is_beaten += min(float(law @ distance @ truth) for law in others) < truth @ distance @ truth - 1e-6
    assert plain_is_beaten == 40  # the plain mean distance is what a constant law wins
