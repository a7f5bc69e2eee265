"""`ccmc-open` against the context logit that it is, on models that leave their context, and on one that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from ccmc import CCMC, BaseTransition, ContextLogit, simulate
from harness.core import registry
from harness.data.texts import Text
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates.base import Ingredients
from harness.surrogates.make import make
from harness.surrogates.next_token.ccmc_open import LARGEST, CCMCOpen
from harness.surrogates.observations import NextTokenObservations, pair_mass

K = 7
TRUE = {"base": 0.8, "present": 1.2, "log-count": 0.6}


def observed(model: ContextLogit, paths: Any) -> NextTokenObservations:
    """A model's whole distributions along paths whose first 4 tokens are prompts."""
    texts = [Text(path, start=3) for path in paths]
    targets, masses, outsides = [], [], []
    for text in texts:
        whole = model.next_token([text.tokens[: position + 1] for position in text.positions])
        inside = np.where(text.counts > 0, whole[:, text.types], 0.0)
        masses.append(inside.sum(axis=1))
        targets.append(inside / masses[-1][:, None])
        outside = whole.copy()
        for row, position in enumerate(text.positions):
            outside[row, text.tokens[: position + 1]] = 0.0
        outsides.append(sparse.csr_array(outside))
    wins = [pair_mass(text, target[None], K) for text, target in zip(texts, targets, strict=True)]
    groups = [str(index) for index in range(len(texts))]
    return NextTokenObservations(texts, groups, wins, K, targets, masses, outsides)


def transition() -> Any:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(K), size=K)


@pytest.fixture(scope="module")
def model() -> ContextLogit:
    return ContextLogit(TRUE, BaseTransition.from_transition(transition()))


@pytest.fixture(scope="module")
def fitted(model: ContextLogit) -> CCMCOpen:
    prompts = np.random.default_rng(1).integers(0, K, (24, 4))
    paths = np.concatenate([prompts, model.rollout(prompts, 12, seed=0)], axis=1)
    made = make("ccmc-open", "next-token", Ingredients(0)).fit(observed(model, paths))
    assert isinstance(made, CCMCOpen)
    return made


def test_it_is_the_context_logit_of_its_weights(fitted: CCMCOpen) -> None:
    text = Text(np.random.default_rng(2).integers(0, K - 2, 14), start=2)  # some tokens are in no context
    contexts = [text.tokens[: position + 1] for position in text.positions]
    expected = fitted.model_.next_token(contexts)
    every = np.arange(K)
    for row, context in zip(expected, contexts, strict=True):
        found = fitted.next_token(every, np.bincount(context, minlength=K).astype(float), context)
        np.testing.assert_allclose(found, row, rtol=0, atol=1e-13)
    inside = np.where(text.counts > 0, expected[:, text.types], 0.0)
    left = 1.0 - inside.sum(axis=1)
    np.testing.assert_allclose(fitted.leaving(text), left, rtol=0, atol=1e-13)
    np.testing.assert_allclose(fitted.predict(text)[0], inside / inside.sum(axis=1, keepdims=True), atol=1e-13)
    assert left.min() > 0.01


def test_what_it_gives_to_the_context_and_elsewhere_is_everything(fitted: CCMCOpen) -> None:
    text = Text([0, 1, 1, 4, 0, 2], start=1)
    seen = []
    for position in text.positions:
        context = text.tokens[: position + 1]
        whole = fitted.next_token(np.arange(K), np.bincount(context, minlength=K).astype(float), context)
        seen.append(whole[np.unique(context)].sum())
    np.testing.assert_allclose(np.array(seen) + fitted.leaving(text), 1.0, rtol=0, atol=1e-13)


def test_it_leaves_as_often_as_the_model_and_comes_near_its_weights(model: ContextLogit, fitted: CCMCOpen) -> None:
    paths = np.random.default_rng(5).integers(0, K, (40, 12))
    held_out = observed(model, paths)
    true = np.concatenate([1.0 - mass for mass in held_out.in_context_mass])
    found = np.concatenate([fitted.leaving(text) for text in held_out.texts])
    assert found.mean() == pytest.approx(true.mean(), abs=0.02)
    assert fitted.model_.weights["present"] > 0.5


def test_the_fit_is_where_no_weight_can_be_bettered(model: ContextLogit) -> None:
    """The whole cross-entropy, written out, is least at the fitted weights: targets are put where they belong."""
    prompts = np.random.default_rng(3).integers(0, K, (10, 4))
    seen = observed(model, np.concatenate([prompts, model.rollout(prompts, 8, seed=1)], axis=1))
    fitted = CCMCOpen(0).fit(seen)

    def loss(weights: dict[str, float]) -> float:
        law, total = ContextLogit(weights, fitted.model_.base), 0.0
        for text in seen.texts:
            contexts = [text.tokens[: position + 1] for position in text.positions]
            total -= float((model.next_token(contexts) * np.log(law.next_token(contexts))).sum())
        return total + 0.5e-3 * sum((value - (name == "base")) ** 2 for name, value in weights.items())

    best = loss(dict(fitted.model_.weights))
    for name, value in fitted.model_.weights.items():
        for step in (-0.02, 0.02):
            assert loss({**fitted.model_.weights, name: value + step}) > best


def test_a_closed_chain_is_fitted_without_leaving() -> None:
    chain = CCMC(np.random.default_rng(0).normal(size=(K, K)))
    prompts = np.random.default_rng(4).integers(0, K - 3, (12, 4))
    paths = np.concatenate([prompts, simulate(chain, prompts, 20, seed=0)], axis=1)
    closed = ContextLogit({"log-count": 1.0}, BaseTransition.from_transition(chain.transition), closed=True)
    fitted = CCMCOpen(0).fit(observed(closed, paths))
    assert max(float(fitted.leaving(Text(path, start=3)).max()) for path in paths) < 1e-3
    made = fitted.rollout(list(prompts), [30] * len(prompts), 0, Decoding(1.0))
    assert all(set(tokens) <= set(prompt) for tokens, prompt in zip(made, prompts.tolist(), strict=True))


def test_rollouts_reach_new_tokens(fitted: CCMCOpen) -> None:
    prompts = [np.array([0, 0, 0])] * 5
    made = fitted.rollout(prompts, [12] * 5, 0, Decoding(1.0))
    assert all(len(tokens) == 12 for tokens in made)
    assert len(set(np.concatenate(made).tolist())) > 3


def test_it_is_declared_open_and_no_default() -> None:
    declared = registry.surrogates("next-token")["ccmc-open"]
    assert (declared.open, declared.rollout, declared.default) == (True, True, False)


def test_large_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 2,048 tokens, and the texts have 2,049"):
        CCMCOpen(0).fit(NextTokenObservations([], [], [], LARGEST + 1))
