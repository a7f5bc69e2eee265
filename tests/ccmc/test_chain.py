import math

import numpy as np
import pytest
from plain_twins import next_token
from safetensors.numpy import save_file
from scipy import sparse

from ccmc import CCMC, AttentionCCMC, Contexts, Observations


def some_contexts(rng, n, K):
    counts = rng.integers(0, 4, (n, K)) * (rng.random((n, K)) < 0.6)
    query = rng.integers(0, K, n)
    counts[np.arange(n), query] += 1
    return counts, query


def both_chains(rng, K, scale=1.0):
    keys, queries = rng.normal(size=(K, 3)) * scale, rng.normal(size=(K, 3))
    return CCMC(queries @ keys.T), AttentionCCMC(keys, queries)


@pytest.mark.parametrize("scale", [0.1, 1.0, 300.0])
def test_both_chains_follow_the_definition_dense_and_sparse(scale):
    rng = np.random.default_rng(0)
    counts, query = some_contexts(rng, 50, 6)
    for chain in both_chains(rng, 6, scale):
        theta = chain.rows(np.arange(6))
        expected = np.array([next_token(theta, m, i) for m, i in zip(counts, query, strict=True)])
        dense = chain.next_token(counts, query)
        np.testing.assert_allclose(dense, expected, rtol=1e-10, atol=1e-300)
        assert (dense[counts == 0] == 0).all()
        for kind in (sparse.csr_array, sparse.csr_matrix):
            answer = chain.next_token(kind(counts), query)
            assert type(answer) is kind
            np.testing.assert_allclose(answer.toarray(), expected, rtol=1e-10, atol=1e-300)
        np.testing.assert_allclose(chain.next_token(counts[3], int(query[3])), expected[3], rtol=1e-10)


def test_two_tokens_in_closed_form():
    chain = CCMC.from_transition([[0.2, 0.8], [0.5, 0.5]])
    np.testing.assert_allclose(chain.next_token(np.array([3, 1]), 0), [0.6 / 1.4, 0.8 / 1.4])
    np.testing.assert_allclose(chain.next_token(np.array([0, 7]), 1), [0, 1])
    np.testing.assert_allclose(chain.transition, [[0.2, 0.8], [0.5, 0.5]])


def test_logits_thousands_of_nats_apart_stay_exact():
    chain = CCMC([[0.0, -2000.0, -2001.0], [5000.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        chain.next_token(np.array([0, 1, 1]), 0), [0, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]
    )
    np.testing.assert_allclose(chain.next_token(np.array([0.0, 2, 1]), 1)[1], 2 / (2 + math.exp(1)))
    contexts = Contexts([[1, 1, 0]], np.array([0]))
    assert chain.log_likelihood(Observations(contexts, np.array([1]))) == pytest.approx(-2000)


def test_rows_are_normalised_in_the_log_domain():
    chain = CCMC([[1000.0, 1000.0], [-1000.0, -1000.0 + math.log(3)]])
    np.testing.assert_allclose(chain.transition, [[0.5, 0.5], [0.25, 0.75]])
    with pytest.raises(ValueError, match="read-only"):
        chain.logits[0, 0] = 1


@pytest.mark.parametrize(
    ("P", "message"),
    [
        ([[0.5, 0.5], [1.0, 0.0]], "row 1 of transition has 0.0 at column 1"),
        ([[0.5, 0.5], [0.7, 0.7]], "row 1 of transition sums to 1.4"),
        ([[0.5, 0.5]], "square"),
        ([[np.nan, 0.5], [0.5, 0.5]], "row 0"),
    ],
)
def test_what_is_not_a_positive_stochastic_matrix_is_refused(P, message):
    with pytest.raises(ValueError, match=message):
        CCMC.from_transition(P)


def test_malformed_logits_keys_and_contexts_are_refused():
    with pytest.raises(ValueError, match=r"logits\[1, 0\] is -inf"):
        CCMC([[0, 0], [-np.inf, 0]])
    with pytest.raises(ValueError, match="square"):
        CCMC([0.0, 1.0])
    with pytest.raises(ValueError, match=r"both be \[K, d\]"):
        AttentionCCMC(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"keys\[1, 0\] is nan"):
        AttentionCCMC([[0.0], [np.nan]], [[0.0], [0.0]])
    with pytest.raises(ValueError, match=r"keys reach 1e\+160 and queries 1e\+160: their products"):
        AttentionCCMC([[1e160, 0.0]], [[0.0, 1e160]])
    with pytest.raises(ValueError, match=r"logits\[0, 1\] is -1e\+308: logits are at most 1e\+300"):
        CCMC([[0.0, -1e308], [0.0, 0.0]])
    chain = CCMC(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="counts have 3 tokens but the chain has 2"):
        chain.next_token(np.ones((1, 3)), [0])
    with pytest.raises(ValueError, match="one context needs one query"):
        chain.next_token(np.ones(2), [0])


def test_log_likelihood_sums_weighted_log_probabilities():
    rng = np.random.default_rng(1)
    counts, query = some_contexts(rng, 40, 5)
    weight = rng.random(40)
    for chain in both_chains(rng, 5):
        p = chain.next_token(counts, query)
        hard = np.array([rng.choice(5, p=row) for row in p])
        expected = float(weight @ np.log(p[np.arange(40), hard]))
        soft = chain.next_token(counts, query) ** 0.5
        soft /= soft.sum(axis=1, keepdims=True)
        expected_soft = float((weight[:, None] * soft * np.log(np.where(p > 0, p, 1))).sum())
        for given in (counts, sparse.csr_array(counts)):
            contexts = Contexts(given, query)
            assert chain.log_likelihood(Observations(contexts, hard, weight)) == pytest.approx(expected)
            assert chain.log_likelihood(Observations(contexts, soft, weight)) == pytest.approx(expected_soft)
        wins = np.zeros((5, 5))
        np.add.at(wins, query, soft)
        full = Observations(Contexts(counts, query), soft)
        summed = Observations.from_wins(full.contexts, wins, log_count_mass=full.log_count_mass)
        assert chain.log_likelihood(summed) == pytest.approx(chain.log_likelihood(full))


def test_entropy_rate_is_the_mean_entropy_of_the_prefixes(monkeypatch):
    rng = np.random.default_rng(2)
    path = rng.integers(0, 4, 60)
    for chain in both_chains(rng, 4):
        for window in (None, 5):
            contexts = Contexts.from_sequences([path], 4, 3, window)
            p = chain.next_token(contexts.counts.toarray(), contexts.query)
            expected = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
            np.testing.assert_allclose(chain.entropy(contexts), expected, atol=1e-12)
            assert chain.entropy_rate(path, 3, window) == pytest.approx(expected.mean())
            with monkeypatch.context() as patch:
                patch.setattr("ccmc.chain._CHUNK", 28)
                assert chain.entropy_rate(path, 3, window) == pytest.approx(expected.mean())
    with pytest.raises(ValueError, match="at least 3 tokens"):
        CCMC(np.zeros((2, 2))).entropy_rate([0, 1], start=3)


def test_entropy_of_a_flat_chain_on_equal_counts_is_log_k():
    assert CCMC(np.zeros((5, 5))).entropy(Contexts(np.ones((1, 5)), np.array([0])))[0] == pytest.approx(math.log(5))


def test_large_batches_are_cut_without_a_trace(monkeypatch):
    rng = np.random.default_rng(3)
    counts, query = some_contexts(rng, 30, 6)
    for chain in both_chains(rng, 6):
        whole, whole_csr = chain.next_token(counts, query), chain.next_token(sparse.csr_array(counts), query)
        with monkeypatch.context() as patch:
            patch.setattr("ccmc.chain._CHUNK", 18)
            np.testing.assert_allclose(chain.next_token(counts, query), whole, rtol=1e-14)
            np.testing.assert_allclose(
                chain.next_token(sparse.csr_array(counts), query).toarray(), whole_csr.toarray(), rtol=1e-14
            )


def test_chains_come_back_from_disk_bit_by_bit(tmp_path):
    rng = np.random.default_rng(4)
    chain, attention = both_chains(rng, 7)
    chain.save(tmp_path / "chain.safetensors")
    attention.save(tmp_path / "attention.safetensors")
    np.testing.assert_array_equal(CCMC.load(tmp_path / "chain.safetensors").logits, chain.logits)
    again = AttentionCCMC.load(tmp_path / "attention.safetensors")
    np.testing.assert_array_equal(again.keys, attention.keys)
    np.testing.assert_array_equal(again.queries, attention.queries)
    with pytest.raises(ValueError, match="expected a stored CCMC, found AttentionCCMC"):
        CCMC.load(tmp_path / "attention.safetensors")
    save_file({"x": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="found no chain of this package"):
        CCMC.load(tmp_path / "other.safetensors")
    (tmp_path / "junk").write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match="not a safetensors file"):
        CCMC.load(tmp_path / "junk")


def test_attention_chain_of_a_large_vocabulary_never_forms_the_matrix():
    K = 200_000
    rng = np.random.default_rng(5)
    chain = AttentionCCMC(rng.normal(size=(K, 4)), rng.normal(size=(K, 4)))
    contexts = Contexts.from_prompts([rng.integers(0, K, 30), rng.integers(0, K, 40)], K)
    p = chain.next_token(contexts.counts, contexts.query)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    row = contexts.counts[[0]]
    theta = chain.queries[contexts.query[0]] @ chain.keys[row.indices].T
    expected = row.data * np.exp(theta)
    np.testing.assert_allclose(p[[0]].data, expected / expected.sum())


def test_a_vocabulary_of_a_quarter_million_in_every_verb(tmp_path):
    """Batches, windows, likelihood, entropy, saving: against the small chain over the tokens that occur."""
    K = 256_000
    rng = np.random.default_rng(7)
    few = np.sort(rng.choice(K, 25, replace=False))
    chain = AttentionCCMC(rng.normal(size=(K, 3)), rng.normal(size=(K, 3)))
    small = AttentionCCMC(chain.keys[few], chain.queries[few]).to_ccmc()
    paths = [rng.integers(0, 25, length) for length in (40, 60)]
    for window in (None, 7):
        large = Observations.from_sequences([few[path] for path in paths], K, 5, window=window, unseen="drop")
        local = Observations.from_sequences(paths, 25, 5, window=window, unseen="drop")
        assert chain.log_likelihood(large) == pytest.approx(small.log_likelihood(local))
        p = chain.next_token(large.contexts.counts, large.contexts.query)
        expected = small.next_token(local.contexts.counts, local.contexts.query)
        np.testing.assert_allclose(p[:, few].toarray(), expected.toarray(), atol=1e-12)
        assert chain.entropy_rate(few[paths[1]], 3, window) == pytest.approx(small.entropy_rate(paths[1], 3, window))
    chain.save(tmp_path / "large.safetensors")
    np.testing.assert_array_equal(AttentionCCMC.load(tmp_path / "large.safetensors").keys, chain.keys)


def test_both_kinds_of_chain_agree():
    rng = np.random.default_rng(6)
    chain, attention = both_chains(rng, 5)
    np.testing.assert_allclose(attention.to_ccmc().logits, chain.logits, atol=1e-12)
    tokens = np.array([3, 0])
    for each in (chain, attention):
        np.testing.assert_array_equal(each.block(tokens), each.rows(tokens)[:, tokens])
    assert repr(chain) == "CCMC(vocab_size=5)"
    assert repr(attention) == "AttentionCCMC(vocab_size=5, width=3)"
