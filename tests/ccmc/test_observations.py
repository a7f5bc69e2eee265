import numpy as np
import pytest
from plain_twins import prefixes
from scipy import sparse

from ccmc import CCMC, Contexts, Observations, fit_mle

SEQUENCES = [[0, 2, 2, 1, 0, 2], [3, 3], [1, 0, 1, 0, 0, 1, 2, 1]]


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("start", [1, 2])
def test_every_prefix_is_counted(start, window):
    contexts = Contexts.from_sequences(SEQUENCES, 4, start, window)
    expected = [pair for s in SEQUENCES for pair in prefixes(s, start, len(s), 4, window)]
    np.testing.assert_array_equal(contexts.counts.toarray(), [counts for counts, _ in expected])
    np.testing.assert_array_equal(contexts.query, [query for _, query in expected])
    assert contexts.counts.has_canonical_format


def test_long_random_sequences_are_counted():
    sequence = np.random.default_rng(0).integers(0, 50, 400)
    contexts = Contexts.from_sequences(sequence[None], 60, window=37)
    expected = list(prefixes(sequence.tolist(), 1, 400, 60, 37))
    np.testing.assert_array_equal(contexts.counts.toarray(), [counts for counts, _ in expected])


def test_prompts_are_counted_whole_or_through_a_window():
    whole = Contexts.from_prompts(SEQUENCES, 4)
    np.testing.assert_array_equal(whole.counts.toarray(), [np.bincount(s, minlength=4) for s in SEQUENCES])
    np.testing.assert_array_equal(whole.query, [2, 3, 1])
    last = Contexts.from_prompts(SEQUENCES, 4, window=3)
    np.testing.assert_array_equal(last.counts.toarray(), [np.bincount(s[-3:], minlength=4) for s in SEQUENCES])


def test_observations_from_sequences_predict_the_following_token():
    observations = Observations.from_sequences([[0, 1, 0, 0, 1]], 2, start=2)
    np.testing.assert_array_equal(observations.contexts.counts.toarray(), [[1, 1], [2, 1], [3, 1]])
    np.testing.assert_array_equal(observations.targets, [0, 0, 1])
    assert observations.dropped == 0
    assert observations.hard


def test_unseen_tokens_are_named_or_dropped_and_counted():
    with pytest.raises(ValueError, match="sequence 1, position 1: token 2 is not in its context"):
        Observations.from_sequences([[0, 0], [1, 2, 1, 2]], 3)
    observations = Observations.from_sequences([[0, 0], [1, 2, 1, 2]], 3, unseen="drop")
    assert observations.dropped == 1
    np.testing.assert_array_equal(observations.targets, [0, 1, 2])
    np.testing.assert_array_equal(observations.contexts.query, [0, 2, 1])
    with pytest.raises(ValueError, match="no observation is left"):
        Observations.from_sequences([[0, 1]], 2, unseen="drop")
    with pytest.raises(ValueError, match="unseen must be"):
        Observations.from_sequences([[0, 1]], 2, unseen="ignore")


def test_pairs_are_the_tokens_that_a_query_saw():
    contexts = Contexts([[1, 0, 2], [0, 1, 1], [3, 0, 0]], np.array([2, 2, 0]))
    pairs = contexts.pairs()
    np.testing.assert_array_equal(pairs.toarray(), [[1, 0, 0], [0, 0, 0], [1, 1, 1]])
    assert pairs.has_sorted_indices
    assert pairs.nnz == 4


def test_dense_and_sparse_contexts_have_the_same_pairs():
    rng = np.random.default_rng(1)
    counts, query = rng.integers(0, 2, (40, 7)) * rng.integers(1, 5, (40, 7)), rng.integers(0, 7, 40)
    counts[np.arange(40), query] += 1
    dense, csr = Contexts(counts, query), Contexts(sparse.csr_matrix(counts), query)
    np.testing.assert_array_equal(dense.pairs().toarray(), csr.pairs().toarray())
    expected = np.array([(counts[query == q] > 0).any(axis=0) for q in range(7)])
    np.testing.assert_array_equal(dense.pairs().toarray(), expected)


def test_stored_zeros_and_duplicates_do_not_reach_the_pairs_nor_change_the_callers_matrix():
    given = sparse.csr_array(
        (np.array([1.0, 0.0, 2.0, 3.0]), np.array([1, 0, 1, 2]), np.array([0, 3, 4])), shape=(2, 3)
    )
    contexts = Contexts(given, [1, 2])
    np.testing.assert_array_equal(contexts.pairs().toarray(), [[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(contexts.counts.toarray(), [[0, 3, 0], [0, 0, 3]])
    assert given.nnz == 4


@pytest.mark.parametrize(
    ("counts", "query", "message"),
    [
        ([[1, 1], [0, -2]], [0, 1], r"counts\[1, 1\] is -2.0"),
        ([[1, np.nan], [0, 1]], [0, 1], r"counts\[0, 1\] is nan"),
        ([[1, 1], [np.inf, 1]], [0, 1], r"counts\[1, 0\] is inf"),
        ([[1, 1], [0, 0]], [0, 1], "context 1 is empty"),
        ([[1, 1], [0, 1]], [0, 2], r"query\[1\] is 2: outside the vocabulary 0 ... 1"),
        ([[1, 1], [0, 1]], [0, -1], r"query\[1\] is -1"),
        ([[1, 1], [0, 1]], [0], r"query must have shape \(2,\)"),
        ([[1, 1], [0, 1]], [0.0, 1.0], "query must be integers"),
        ([1, 1], [0, 1], "two dimensions"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_malformed_contexts_are_refused_by_index_and_value(counts, query, message, kind):
    with pytest.raises(ValueError, match=message):
        Contexts(kind(counts), np.asarray(query))


def test_counts_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="counts must be numbers"):
        Contexts(np.array([["a", "b"]]), np.array([0]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], r"targets\[1\]: token 1 is not in its context"),
        ([0, 5], r"targets\[1\] is 5"),
        ([[0.5, 0.5], [0.5, 0.5]], r"targets\[1\]: token 1 is not in its context"),
        ([[0.5, 0.4], [1, 0]], r"targets\[0\] sum to 0.9"),
        ([[1.5, -0.5], [1, 0]], r"targets\[0\] holds -0.5"),
        ([[1.0, 0.0]], r"targets must have shape \(2, 2\)"),
    ],
)
def test_malformed_targets_are_refused_by_index_and_value(targets, message):
    contexts = Contexts([[1, 2], [3, 0]], np.array([0, 0]))
    with pytest.raises(ValueError, match=message):
        Observations(contexts, np.asarray(targets))
    if np.ndim(targets) == 2:
        with pytest.raises(ValueError, match=message):
            Observations(contexts, sparse.csr_array(np.asarray(targets)))


def test_malformed_weights_are_refused():
    contexts = Contexts([[1, 2], [3, 0]], np.array([0, 0]))
    with pytest.raises(ValueError, match=r"weight\[1\] is -1.0"):
        Observations(contexts, np.array([0, 0]), [1, -1])
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\)"):
        Observations(contexts, np.array([0, 0]), [1])


def test_sequences_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"sequences\[1\]\[2\] is 9"):
        Contexts.from_sequences([[0], [1, 2, 9]], 3)
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        Contexts.from_prompts([[0], []], 3)
    with pytest.raises(ValueError, match="no sequence is long enough"):
        Contexts.from_sequences([[0]], 3, start=2)
    with pytest.raises(ValueError, match="start must be"):
        Contexts.from_sequences([[0]], 3, start=0)


def test_wins_are_the_targets_summed_per_pair():
    rng = np.random.default_rng(2)
    counts, query = rng.integers(1, 4, (30, 4)), rng.integers(0, 4, 30)
    contexts = Contexts(counts, query)
    soft = CCMC(rng.normal(size=(4, 4))).next_token(counts, query)
    table = np.zeros((4, 4))
    np.add.at(table, query, soft)
    full = Observations(contexts, soft)
    for wins in (table, sparse.csr_array(table)):
        np.testing.assert_allclose(Observations.from_wins(contexts, wins).wins, full.wins, rtol=1e-12)
    rounded = Observations.from_wins(contexts, table.astype(np.float32)).wins
    np.testing.assert_allclose(rounded, full.wins, rtol=float(np.finfo(np.float32).eps))  # one rounding of each
    assert full.log_count_mass == pytest.approx(float((soft * np.log(counts)).sum()))


def test_wins_that_cannot_be_are_refused():
    contexts = Contexts([[1, 2, 0], [3, 0, 1]], np.array([0, 0]))
    with pytest.raises(ValueError, match=r"wins\[1, 2\] is 1.0: the token is in no context of the query"):
        Observations.from_wins(contexts, [[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"wins\[0, 1\] is -1.0"):
        Observations.from_wins(contexts, [[3, -1, 0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"wins of query 0 sum to 1\.5, but its contexts weigh 2\.0"):
        Observations.from_wins(contexts, [[1, 0.5, 0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="wins must have shape"):
        Observations.from_wins(contexts, [[1, 1]])
    with pytest.raises(ValueError, match="cannot be split by row"):
        Observations.from_wins(contexts, [[1, 0.5, 0.5], [0, 0, 0], [0, 0, 0]]).take(np.array([0]))


def large_table(seed=0, rows=40_000, K=30):
    """Counts of more than a million numbers, which are checked while they are copied for a fit."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (rows, K)).astype(float)
    counts[:, 0] += 1
    return counts, rng.integers(0, K, rows)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, -0.5])
def test_a_bad_count_of_a_large_table_is_named(bad):
    counts, query = large_table()
    counts[31_234, 7] = bad
    with pytest.raises(ValueError, match=r"counts\[31234, 7\]"):
        Contexts(counts, query)


def test_an_empty_context_of_a_large_table_is_named():
    counts, query = large_table()
    counts[39_999] = 0
    with pytest.raises(ValueError, match="context 39999 is empty"):
        Contexts(counts, query)


@pytest.mark.parametrize("value", [255.0, 256.0, 0.5, 1e6])
def test_counts_of_a_large_table_are_fitted_as_they_are(value):
    """Single bytes, larger integers and fractions: the same pairs and the same likelihood as from the sparse table."""
    counts, query = large_table(1)
    counts[::101, 3] = value
    targets = np.where(counts[:, 3] > 0, 3, 0)
    targets[::2] = 0
    dense = Observations(Contexts(counts, query), targets)
    spread = Observations(Contexts(sparse.csr_array(counts), query), targets)
    np.testing.assert_array_equal(dense.numbers, spread.numbers)
    np.testing.assert_array_equal(dense.entries[3], spread.entries[3])
    a, b = fit_mle(dense, ridge=1.0), fit_mle(spread, ridge=1.0)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(a.pair_logits, b.pair_logits, atol=1e-6)


def test_a_target_outside_its_context_in_a_large_table_is_named():
    counts, query = large_table()
    targets = np.zeros(len(query), int)
    counts[17, 5], targets[17] = 0, 5
    with pytest.raises(ValueError, match=r"targets\[17\]: token 5 is not in its context"):
        Observations(Contexts(counts, query), targets)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.bool_])
def test_dense_unit_vectors_are_tokens(kind):
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 4, (5000, 7))
    query, targets = rng.integers(0, 7, 5000), rng.integers(0, 7, 5000)
    dense = (targets[:, None] == np.arange(7)).astype(kind)
    if kind is np.float64:
        dense[0, (targets[0] + 1) % 7] = -0.0
    made = Observations(Contexts(counts, query), dense)
    assert made.hard
    assert made.targets.tolist() == targets.tolist()
    plain = fit_mle(Observations(Contexts(counts, query), targets))
    np.testing.assert_array_equal(fit_mle(made).chain.logits, plain.chain.logits)


@pytest.mark.parametrize("row", [0, 1, 2999])
def test_one_row_that_is_no_unit_vector_leaves_all_as_they_are(row):
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 5, 3000)
    dense = np.eye(5)[targets]
    dense[row] = [0.5, 0.25, 0.25, 0.0, 0.0]
    contexts = Contexts(np.ones((3000, 5), dtype=np.int64), rng.integers(0, 5, 3000))
    made = Observations(contexts, dense)
    assert not made.hard
    np.testing.assert_allclose(made.targets, dense)
    for wrong in ([1.0, 1.0, -1.0, 0.0, 0.0], [np.nan, 1.0, 0.0, 0.0, 0.0], [0.0] * 5, [2.0, -1.0, 0.0, 0.0, 0.0]):
        dense[row] = wrong
        with pytest.raises(ValueError, match=rf"targets\[{row}\]"):
            Observations(contexts, dense)


def test_a_unit_vector_outside_its_context_is_named():
    counts = np.array([[1, 1, 0], [1, 1, 0]])
    with pytest.raises(ValueError, match=r"targets\[1\]: token 2 is not in its context"):
        Observations(Contexts(counts, np.array([0, 1])), np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
