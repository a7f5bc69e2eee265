import numpy as np
import pytest
from scipy import sparse, special

from ccmc import CCMC, Contexts, log_normalised, log_sums, normalised
from ccmc._fit.passes import exponentials, gradient_pass


def made(seed, rows=40, K=9, spread=3.0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (rows, K)).astype(float)
    counts[np.arange(rows), rng.integers(0, K, rows)] += 1
    return counts, spread * rng.normal(size=(rows, K))


@pytest.mark.parametrize("spread", [0.5, 300.0])
def test_probabilities_are_proportional_to_counts_times_exponentials(spread):
    counts, theta = made(0, spread=spread)
    with np.errstate(divide="ignore"):
        expected = special.log_softmax(np.log(counts) + theta, axis=1)
    np.testing.assert_allclose(log_normalised(theta, counts), expected, rtol=1e-12)
    np.testing.assert_allclose(normalised(theta, counts), np.exp(expected), atol=1e-15)
    assert (normalised(theta, counts)[counts == 0] == 0).all()
    np.testing.assert_allclose(normalised(theta), special.softmax(theta, axis=1), atol=1e-15)
    # Leading axes are those of many chains over the same contexts.
    many = np.stack([theta, 2 * theta])
    np.testing.assert_array_equal(normalised(many, counts)[1], normalised(2 * theta, counts))


def test_rows_of_different_lengths_give_what_dense_rows_give():
    counts, theta = made(1)
    table = sparse.csr_array(counts)
    flat, starts = theta[counts > 0], table.indptr[:-1]
    np.testing.assert_allclose(
        log_normalised(flat, table.data, starts), log_normalised(theta, counts)[counts > 0], rtol=1e-12, atol=1e-14
    )
    with np.errstate(divide="ignore"):
        expected = special.logsumexp(np.log(counts) + theta, axis=1)
    np.testing.assert_allclose(log_sums(flat, starts, table.data), expected, rtol=1e-13)
    np.testing.assert_allclose(log_sums(flat + np.log(table.data), starts), expected, rtol=1e-13)


def test_huge_logits_neither_overflow_nor_vanish_and_the_input_is_not_changed():
    theta = np.array([[1e4, 1e4 - 1, -1e4]])
    before = theta.copy()
    np.testing.assert_allclose(log_normalised(theta)[0, 2], -2e4 - np.log1p(np.exp(-1)), rtol=1e-12)
    np.testing.assert_allclose(normalised(theta, [[1.0, 0.0, 1.0]]), [[1, 0, 0]])
    np.testing.assert_array_equal(theta, before)


def test_a_chain_and_the_compiled_pass_of_the_fits_use_the_same_numbers():
    counts, _ = made(2)
    query = np.zeros(len(counts), int)
    chain = CCMC(np.random.default_rng(3).normal(size=(9, 9)))
    z = chain.logits[0]
    np.testing.assert_array_equal(chain.next_token(counts, query), normalised(z, counts))
    w, inverse, slope, extra = np.empty(9), np.empty(len(counts)), np.zeros(9), np.zeros(9)
    exponentials(z, w)
    indptr = np.arange(0, counts.size + 1, 9)
    nothing, ones = np.empty(0, np.int64), np.ones(len(counts))
    arguments = 0, len(counts), True, indptr, nothing, counts.ravel(), ones, z, w, inverse, slope, extra
    total = gradient_pass(*arguments)
    table = Contexts(counts, query).sparse_counts
    assert total + len(counts) * z.max() == pytest.approx(
        log_sums(z[table.indices], table.indptr[:-1], table.data).sum(), rel=1e-12
    )
    np.testing.assert_allclose(w * slope + extra, normalised(z, counts).sum(axis=0), rtol=1e-12)
