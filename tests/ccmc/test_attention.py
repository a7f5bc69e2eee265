import numpy as np
import pytest

from ccmc import CCMC, attention_from_chain, chain_from_attention


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def test_layer_and_chain_give_the_same_distribution():
    """One attention layer with the output tied by C E^T = I emits what the chain emits."""
    rng = np.random.default_rng(0)
    K, d = 5, 8
    E, W = rng.normal(size=(K, d)), rng.normal(size=(d, d)) / d
    C = np.linalg.pinv(E).T
    chain = chain_from_attention(E, W)
    for _ in range(20):
        prompt = rng.integers(0, K, rng.integers(1, 12))
        X = E[prompt]
        layer = C @ (X.T @ softmax(X @ W @ X[-1]))
        np.testing.assert_allclose(
            chain.next_token(np.bincount(prompt, minlength=K), int(prompt[-1])), layer, atol=1e-12
        )


def test_logits_are_key_w_query_with_the_query_as_row():
    rng = np.random.default_rng(1)
    E, W = rng.normal(size=(3, 4)), rng.normal(size=(4, 4))
    theta = np.array([[E[j] @ W @ E[i] for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(chain_from_attention(E, W).transition, [softmax(row) for row in theta])


@pytest.mark.parametrize(("K", "d"), [(2, 2), (5, 5), (6, 11)])
def test_there_and_back(K, d):
    rng = np.random.default_rng(2)
    E, chain = rng.normal(size=(K, d)), CCMC(rng.normal(size=(K, K)))
    W = attention_from_chain(chain, E)
    np.testing.assert_allclose(chain_from_attention(E, W).logits, chain.logits, atol=1e-9)


def test_the_answer_is_in_the_span_and_is_the_projection_of_any_equivalent_w():
    rng = np.random.default_rng(3)
    K, d = 4, 6
    E, W = rng.normal(size=(K, d)), rng.normal(size=(d, d))
    basis = np.array([np.outer(E[j] - E[k], E[i]).ravel() for i in range(K) for j in range(K) for k in range(j)]).T
    assert np.linalg.matrix_rank(basis) == K * (K - 1)
    projected = (basis @ np.linalg.lstsq(basis, W.ravel(), rcond=None)[0]).reshape(d, d)
    found = attention_from_chain(chain_from_attention(E, W), E)
    np.testing.assert_allclose(found, projected, atol=1e-10)


def test_dependent_embeddings_are_refused_by_their_rank():
    rng = np.random.default_rng(4)
    chain = CCMC(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="rank 3, below the 4 tokens"):
        attention_from_chain(chain, rng.normal(size=(4, 3)))
    E = rng.normal(size=(4, 9))
    E[3] = E[0] - E[1]
    with pytest.raises(ValueError, match="rank 3"):
        attention_from_chain(chain, E)


def test_shapes_and_values_are_checked():
    with pytest.raises(ValueError, match=r"W must have shape \(2, 2\)"):
        chain_from_attention(np.ones((3, 2)), np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"E\[0, 1\] is nan"):
        chain_from_attention([[0.0, np.nan]], np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"E must be \[K, d\]"):
        chain_from_attention([0.0], np.ones((1, 1)))
    with pytest.raises(ValueError, match="E has 3 rows but the chain has 2"):
        attention_from_chain(CCMC(np.zeros((2, 2))), np.eye(3))
