import math

import numpy as np
import pytest

from ccmc import CCMC, AdditivePositionChain, DistanceChain, EmbeddedPositionChain, RotaryChain

K, T, D = 5, 14, 6
FREQUENCIES = np.array([1.0, 0.3, 0.01])


def some_prompts(rng, n=12):
    return [rng.integers(0, K, rng.integers(1, T + 1)) for _ in range(n)]


def every_chain(rng, scale=1.0, **options):
    theta = scale * rng.normal(size=(K, K))
    E, W = rng.normal(size=(K, D)), scale * rng.normal(size=(D, D))
    return {
        "additive": AdditivePositionChain(theta, scale * rng.normal(size=(T, T)), **options),
        "embedded": EmbeddedPositionChain(E, rng.normal(size=(T, D)), W, **options),
        "distance": DistanceChain(theta, scale * rng.normal(size=4), **options),
        "rotary": RotaryChain(scale * E, rng.normal(size=(K, D)), FREQUENCIES, **options),
    }


def attention_row_per_token(score, prompt, window=None):
    """softmax of the scores of all positions, then summed token by token, as an attention layer does it."""
    L = len(prompt) - 1
    seen = range(0 if window is None else max(0, L + 1 - window), L + 1)
    best = max(score(L, k, prompt) for k in seen)
    mass = [0.0] * K
    for k in seen:
        mass[prompt[k]] += math.exp(score(L, k, prompt) - best)
    return np.array(mass) / sum(mass)


def rotated(x, position):
    """The rotation of (first half, second half) pairs, written out with cosines and sines."""
    half = len(x) // 2
    out = np.empty(len(x))
    for f in range(half):
        cos, sin = math.cos(position * FREQUENCIES[f]), math.sin(position * FREQUENCIES[f])
        out[f] = cos * x[f] - sin * x[half + f]
        out[half + f] = sin * x[f] + cos * x[half + f]
    return out


@pytest.mark.parametrize("window", [None, 1, 4])
def test_every_chain_is_an_attention_row_summed_per_token(window):
    rng = np.random.default_rng(0)
    theta, b, bias = rng.normal(size=(K, K)), rng.normal(size=(T, T)), rng.normal(size=4)
    E, U, W = rng.normal(size=(K, D)), rng.normal(size=(T, D)), rng.normal(size=(D, D))
    Q, Key = rng.normal(size=(K, D)), rng.normal(size=(K, D))
    cases = [
        (AdditivePositionChain(theta, b, window), lambda L, k, x: theta[x[L], x[k]] + b[L, k]),
        (EmbeddedPositionChain(E, U, W, window), lambda L, k, x: (E[x[k]] + U[k]) @ W @ (E[x[L]] + U[L])),
        (DistanceChain(theta, bias, window), lambda L, k, x: theta[x[L], x[k]] + bias[min(L - k, 3)]),
        (
            RotaryChain(Q, Key, FREQUENCIES, scale=0.4, softcap=0.7, window=window),
            lambda L, k, x: 0.7 * math.tanh(0.4 * (rotated(Q[x[L]], L) @ rotated(Key[x[k]], k)) / 0.7),
        ),
    ]
    for chain, score in cases:
        prompts = some_prompts(rng)
        expected = np.array([attention_row_per_token(score, prompt, window) for prompt in prompts])
        np.testing.assert_allclose(chain.next_token(prompts), expected, atol=1e-12)
        np.testing.assert_allclose(chain.next_token(prompts[0].tolist()), expected[0], atol=1e-12)


def test_positions_that_carry_nothing_leave_the_plain_chain():
    rng = np.random.default_rng(1)
    theta, E, W = rng.normal(size=(K, K)), rng.normal(size=(K, D)), rng.normal(size=(D, D))
    plain, embedded = CCMC(theta), CCMC((E @ W @ E.T).T)
    Q, Key = rng.normal(size=(K, D)), rng.normal(size=(K, D))
    for chain, positional in [
        (plain, AdditivePositionChain(theta, np.full((T, T), 3.0))),
        (plain, DistanceChain(theta, [-2.0])),
        (embedded, EmbeddedPositionChain(E, np.zeros((T, D)), W)),
        (CCMC(Q @ Key.T), RotaryChain(Q, Key, np.zeros(3))),
    ]:
        for prompt in some_prompts(rng):
            counts = np.bincount(prompt, minlength=K)
            np.testing.assert_allclose(
                positional.next_token(prompt), chain.next_token(counts, int(prompt[-1])), atol=1e-12
            )


def test_positions_scale_the_transition_probabilities():
    """p(j) = P[i, j] v_j / sum_k P[i, k] v_k, with P and v of the query and its position."""
    rng = np.random.default_rng(2)
    chain = EmbeddedPositionChain(rng.normal(size=(K, D)), rng.normal(size=(T, D)), rng.normal(size=(D, D)))
    for prompt in some_prompts(rng):
        v = np.bincount(prompt, np.exp(chain.log_position_weights(prompt)), minlength=K)
        mass = chain.transition_at(len(prompt) - 1)[prompt[-1]] * v
        np.testing.assert_allclose(chain.next_token(prompt), mass / mass.sum(), atol=1e-12)


def test_tokens_and_positions_that_do_not_interact_are_additive():
    rng = np.random.default_rng(3)
    E, U = np.zeros((K, D)), np.zeros((T, D))
    E[:, :3], U[:, 3:] = rng.normal(size=(K, 3)), rng.normal(size=(T, 3))
    W = np.zeros((D, D))
    W[:3, :3], W[3:, 3:] = rng.normal(size=(2, 3, 3))
    embedded = EmbeddedPositionChain(E, U, W)
    additive = AdditivePositionChain((E @ W @ E.T).T, (U @ W @ U.T).T)
    prompts = some_prompts(rng)
    np.testing.assert_allclose(embedded.next_token(prompts), additive.next_token(prompts), atol=1e-12)


def test_rotary_scores_depend_on_distance_alone():
    rng = np.random.default_rng(4)
    Q, Key = rng.normal(size=(K, D)), rng.normal(size=(K, D))
    chain = RotaryChain(Q, Key, FREQUENCIES)
    for distance in (0, 1, 7):
        for shift in (0, 5, 1000):
            expected = [[rotated(Q[i], distance + shift) @ rotated(Key[j], shift) for j in range(K)] for i in range(K)]
            np.testing.assert_allclose(chain.logits_at(distance), expected, atol=1e-9)
    prompt = rng.integers(0, K, T)
    looked_up = [chain.logits_at(T - 1 - place)[prompt[-1], token] for place, token in enumerate(prompt)]
    np.testing.assert_allclose(chain.scores(prompt), looked_up, atol=1e-12)


def test_interleaved_pairs_are_a_reordering_of_coordinates():
    rng = np.random.default_rng(5)
    Q, Key = rng.normal(size=(K, D)), rng.normal(size=(K, D))
    order = np.argsort([0, 2, 4, 1, 3, 5])
    prompt = rng.integers(0, K, T)
    np.testing.assert_allclose(
        RotaryChain(Q[:, order], Key[:, order], FREQUENCIES, interleaved=True).next_token(prompt),
        RotaryChain(Q, Key, FREQUENCIES).next_token(prompt),
        atol=1e-12,
    )


def test_scores_thousands_of_nats_apart_stay_exact():
    rng = np.random.default_rng(6)
    for chain in every_chain(rng, scale=1e5).values():
        for prompt in some_prompts(rng):
            p = chain.next_token(prompt)
            assert p.sum() == pytest.approx(1)
            assert (p[np.bincount(prompt, minlength=K) == 0] == 0).all()
    chain = DistanceChain([[0.0, 0.0], [0.0, 0.0]], [0.0, -3000.0])
    assert chain.log_next_token([0, 0, 1])[0] == pytest.approx(math.log(2) - 3000)
    assert chain.log_likelihood([0, 0, 1], start=2) == -math.inf
    assert chain.log_likelihood([1, 0, 1], start=2) == pytest.approx(-3000)


def test_log_likelihood_adds_up_the_path():
    rng = np.random.default_rng(7)
    path = np.concatenate([np.arange(K), rng.integers(0, K, T - K)])
    for chain in every_chain(rng).values():
        steps = [math.log(chain.next_token(path[:length])[path[length]]) for length in range(K, T)]
        assert chain.log_likelihood(path, start=K) == pytest.approx(sum(steps))


def test_malformed_arguments_are_refused():
    chain = DistanceChain(np.zeros((2, 2)), [0.0])
    for prompt in ([], [[]]):
        with pytest.raises(ValueError, match="at least one token"):
            chain.next_token(prompt)
    with pytest.raises(ValueError, match=r"prompt\[1\] is 2"):
        chain.next_token([0, 2])
    with pytest.raises(ValueError, match="start must be"):
        chain.log_likelihood([0, 1], start=2)
    with pytest.raises(ValueError, match="window"):
        DistanceChain(np.zeros((2, 2)), [0.0], window=0)
    with pytest.raises(ValueError, match=r"distance_bias\[1\] is nan"):
        DistanceChain(np.zeros((2, 2)), [0.0, np.nan])
    with pytest.raises(ValueError, match="square"):
        AdditivePositionChain(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 tokens but there are scores for 2 positions"):
        AdditivePositionChain(np.zeros((2, 2)), np.zeros((2, 2))).next_token([0, 1, 0])
    with pytest.raises(ValueError, match=r"U must be \[T, 3\]"):
        EmbeddedPositionChain(np.zeros((2, 3)), np.zeros((4, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="twice the number of frequencies"):
        RotaryChain(np.zeros((2, 3)), np.zeros((2, 3)), [1.0])
    with pytest.raises(ValueError, match="softcap"):
        RotaryChain(np.zeros((2, 2)), np.zeros((2, 2)), [1.0], softcap=0.0)
