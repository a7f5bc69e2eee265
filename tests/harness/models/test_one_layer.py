"""The one-layer model: its definition, its training, and its equivalence with a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ccmc import CCMC, Contexts, Observations, chain_from_attention, fit_mle
from harness.config.load import load_config
from harness.experiments._shared.sampling import excess_risk, sample_rows
from harness.experiments.experiment import Request
from harness.experiments.one_layer.plan import plan
from harness.experiments.one_layer.settings import OneLayer
from harness.models.one_layer import OneLayerAttention, continue_prompts, train

K, D = 6, 9


def model(dimension: int = D, scale: float = 1.0, seed: int = 0) -> OneLayerAttention:
    rng = np.random.default_rng(seed)
    made = OneLayerAttention(torch.as_tensor(rng.normal(size=(K, dimension)) / np.sqrt(dimension)))
    made.W.data = torch.as_tensor(rng.normal(0, scale, (dimension, dimension)))
    return made


def prompts(n: int = 50, length: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, K, (n, length))


def counts(of: Any) -> Any:
    return np.stack([np.bincount(row, minlength=K) for row in of]).astype(float)


def test_the_forward_pass_is_the_definition() -> None:
    made = model()
    E, W = made.E.detach().numpy(), made.W.detach().numpy()
    C = np.linalg.pinv(E).T
    for prompt in prompts(5):
        X = E[prompt]
        score = X @ W @ E[prompt[-1]]
        weight = np.exp(score - score.max())
        expected = C @ (X.T @ (weight / weight.sum()))
        np.testing.assert_allclose(torch.exp(made(torch.as_tensor(prompt[None])))[0].detach(), expected, atol=1e-12)
        np.testing.assert_allclose(made.tied_output(torch.as_tensor(prompt[None]))[0][0], expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_model_is_the_chain_read_off_its_weights(scale: float) -> None:
    made = model(scale=scale)
    chain = chain_from_attention(made.E.detach().numpy(), made.W.detach().numpy())
    of = prompts(200)
    found = torch.exp(made(torch.as_tensor(of))).detach().numpy()
    np.testing.assert_allclose(found, chain.next_token(counts(of), of[:, -1]), atol=1e-10, rtol=0)


def test_too_few_dimensions_lose_mass_and_say_so() -> None:
    probability, lost = model(dimension=3).tied_output(torch.as_tensor(prompts()))
    np.testing.assert_allclose(probability.sum(-1), 1.0)
    assert bool((probability >= 0).all())
    assert float(lost.mean()) > 0.05
    assert float(model().tied_output(torch.as_tensor(prompts()))[1].max()) < 1e-12


@pytest.mark.parametrize("dimension", [K, D])
def test_training_reaches_the_maximum_of_the_likelihood(dimension: int) -> None:
    rng = np.random.default_rng(1)
    teacher = CCMC(rng.normal(0, 0.5, (K, K)))
    X = prompts(3000, seed=2)
    y = sample_rows(teacher.next_token(counts(X), X[:, -1]), rng)
    made = OneLayerAttention(torch.as_tensor(rng.normal(size=(K, dimension))))
    training = train(made, X, y)
    best = fit_mle(Observations(Contexts(counts(X), X[:, -1]), y))
    assert training.losses[-1] == pytest.approx(-best.log_likelihood / 3000, abs=1e-9)
    found = chain_from_attention(made.E.detach().numpy(), made.W.detach().numpy())
    np.testing.assert_allclose(found.transition, best.chain.transition, atol=1e-4)


def test_embeddings_are_trained_on_request() -> None:
    X = prompts(500, seed=2)
    made = OneLayerAttention(torch.as_tensor(np.random.default_rng(0).normal(size=(K, D))), train_embeddings=True)
    before = made.E.detach().clone()
    losses = train(made, X, X[:, 0], steps=20).losses
    assert losses[-1] < losses[0]
    assert not torch.equal(before, made.E.detach())


def test_continuations_follow_the_model() -> None:
    made = model()
    prompt = np.array([0, 1, 1, 2])
    drawn = continue_prompts(made, np.tile(prompt, (20_000, 1)), 1, seed=4)[:, 0]
    expected = 20_000 * torch.exp(made(torch.as_tensor(prompt[None])))[0].detach().numpy()
    inside = expected > 0
    assert set(drawn) <= {0, 1, 2}
    found = np.bincount(drawn, minlength=K)
    assert float(np.sum((found - expected)[inside] ** 2 / expected[inside])) < 13.8  # chi-square, 2 df, 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 5 / np.sqrt(len(drawn))
    again = continue_prompts(made, prompts(4), 20, seed=1)
    assert np.array_equal(again, continue_prompts(made, prompts(4), 20, seed=1))
    assert all(set(row) <= set(p) for row, p in zip(again, prompts(4), strict=True))


def test_other_prompts_and_their_order_change_no_continuation() -> None:
    made, given = model(), prompts(12)
    found = continue_prompts(made, given, 30, seed=2)
    for dropped in (0, 5, 11):
        fewer = continue_prompts(made, np.delete(given, dropped, axis=0), 30, seed=2)
        assert np.array_equal(fewer, np.delete(found, dropped, axis=0))
    order = np.random.default_rng(0).permutation(12)
    assert np.array_equal(continue_prompts(made, given[order], 30, seed=2), found[order])
    assert np.array_equal(continue_prompts(made, given, 10, seed=2), found[:, :10])
    doubled = continue_prompts(made, np.concatenate([given, given]), 30, seed=2)
    assert np.array_equal(doubled[:12], found)
    assert (doubled[12:] != found).any(axis=1).sum() >= 10


def test_excess_risk_is_a_mean_divergence() -> None:
    teacher, other = np.array([[0.5, 0.5, 0.0], [0.25, 0.0, 0.75]]), np.array([[0.25, 0.75, 0.0], [0.25, 0.0, 0.75]])
    expected = 0.5 * (0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75))
    assert excess_risk(teacher, other) == pytest.approx(expected)


def test_a_limit_takes_fewer_repetitions() -> None:
    given = {"name": "x", "experiments": [{"kind": "one-layer", "repetitions": 5}]}
    for limit, expected in ((None, 5), (2, 2), (9, 5)):
        config = load_config(given, limit=limit).config
        settings = config.experiments[0]
        assert isinstance(settings, OneLayer)
        assert len(plan(Request(config, settings))) == expected
