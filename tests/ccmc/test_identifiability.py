import numpy as np
import pytest
from plain_twins import components, diverging, one_hot

from ccmc import Contexts, Observations, identifiability


def observe(counts, query, targets, weight=None):
    return Observations(Contexts(np.asarray(counts, float), np.asarray(query)), np.asarray(targets), weight)


def test_connected_and_beaten_in_both_directions_is_all_well():
    found = identifiability(observe([[1, 1], [1, 1], [1, 1], [1, 1]], [0, 0, 1, 1], [0, 1, 0, 1]))
    assert found.identified
    assert found.mle_exists
    assert found.diverging == []
    assert found.free_directions == 0
    assert found.components == [[[0, 1]], [[0, 1]]]


def test_a_query_that_never_occurs_has_singletons():
    found = identifiability(observe([[1, 1, 1]] * 3, [0, 0, 0], [0, 1, 2]))
    assert found.components[0] == [[0, 1, 2]]
    assert found.components[2] == [[0], [1], [2]]
    assert found.components[-1] == found.components[2]
    assert found.free_directions == 4
    assert not found.identified
    assert found.mle_exists
    with pytest.raises(IndexError, match="query 3"):
        found.components[3]


def test_tokens_that_are_never_emitted_diverge():
    found = identifiability(observe([[1, 1, 1]] * 2, [0, 0], [0, 1]))
    assert not found.mle_exists
    assert found.diverging == [(0, 2)]


def test_a_chain_of_defeats_diverges_up_to_its_last_winner():
    found = identifiability(observe([[1, 1, 0], [0, 1, 1]], [1, 1], [1, 2]))
    assert found.components[1] == [[0, 1, 2]]
    assert found.diverging == [(1, 0), (1, 1)]


def test_two_groups_that_beat_each_other_inside_but_one_way_across():
    rows = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]]
    found = identifiability(observe(rows, [0] * 5, [0, 1, 2, 3, 2]))
    assert found.diverging == [(0, 0), (0, 1)]


def test_observations_of_weight_zero_do_not_count():
    rows = [[1, 1], [1, 1], [1, 0]]
    found = identifiability(observe(rows, [0, 0, 0], [0, 1, 0], [1.0, 0.0, 0.0]))
    assert found.diverging == [(0, 1)]
    found = identifiability(observe(rows, [0, 0, 0], [0, 1, 0], [0.0, 0.0, 2.0]))
    assert found.components[0] == [[0], [1]]
    assert found.mle_exists
    with pytest.raises(ValueError, match="every observation has weight 0"):
        identifiability(observe(rows, [0, 0, 0], [0, 1, 0], [0.0, 0.0, 0.0]))


def test_wins_of_zero_diverge_only_in_company():
    contexts = Contexts([[1, 1, 0], [0, 0, 1]], np.array([0, 1]))
    found = identifiability(Observations.from_wins(contexts, [[1, 0, 0], [0, 0, 1], [0, 0, 0]]))
    assert found.diverging == [(0, 1)]
    found = identifiability(Observations.from_wins(contexts, [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]))
    assert found.mle_exists


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_the_plain_twin(seed):
    rng = np.random.default_rng(seed)
    K, n = int(rng.integers(2, 7)), int(rng.integers(1, 25))
    counts = rng.integers(1, 3, (n, K)) * (rng.random((n, K)) < rng.choice([0.2, 0.5]))
    query = rng.integers(0, K, n)
    counts[np.arange(n), rng.integers(0, K, n)] += 1
    if seed % 2:
        targets = np.array([rng.choice(np.flatnonzero(row)) for row in counts])
        plain = one_hot(targets, K)
    else:
        targets = rng.random((n, K)) * (counts > 0) * (rng.random((n, K)) < 0.5)
        targets[np.arange(n), counts.argmax(axis=1)] += 0.1
        targets /= targets.sum(axis=1, keepdims=True)
        plain = targets
    found = identifiability(observe(counts, query, targets))
    expected = components(counts, query, K)
    assert found.components == expected
    assert found.free_directions == sum(len(groups) - 1 for groups in expected)
    assert found.identified == (found.free_directions == 0)
    assert found.diverging == diverging(counts, query, plain, K)
    assert found.mle_exists == (not found.diverging)
