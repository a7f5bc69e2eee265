"""Training: it reaches known maxima, stops on held-out loss, is seeded, and stores what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from float32 import FLOAT64
from transformers import AutoModelForCausalLM

from ccmc import CCMC, Contexts, Observations, fit_mle
from harness.experiments._shared.sampling import count_tokens, sample_rows
from harness.experiments._shared.teachers import attention_trained_on
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import IGNORED, Examples, Recipe, mean_loss, train

K = 5


def data(n: int = 600, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    teacher = CCMC(np.random.default_rng(7).normal(0, 1, (K, K)))
    prompts = rng.integers(0, K, (n, 6))
    return prompts, sample_rows(teacher.next_token(count_tokens(prompts, K), prompts[:, -1]), rng)


def examples(n: int = 600, seed: int = 0) -> Examples:
    prompts, targets = data(n, seed)
    labels = np.full_like(prompts, IGNORED)
    labels[:, -1] = targets
    return Examples(torch.as_tensor(prompts), torch.as_tensor(labels))


def model(seed: int = 0, **settings: Any) -> OneLayerForCausalLM:
    torch.manual_seed(seed)
    return OneLayerForCausalLM(OneLayerConfig(vocab_size=K, dimension=8, **settings))


def test_lbfgs_reaches_the_maximum_of_the_likelihood() -> None:
    prompts, targets = data(3000)
    best = fit_mle(Observations(Contexts(count_tokens(prompts, K), prompts[:, -1]), targets))
    chain, outcome = attention_trained_on(prompts, np.eye(K)[targets], K, seed=1)
    assert outcome.loss == pytest.approx(-best.log_likelihood / 3000, abs=1e-10)
    np.testing.assert_allclose(chain.transition, best.chain.transition, atol=1e-6)


def test_mass_and_labels_give_the_same_loss() -> None:
    of = examples()
    assert of.labels is not None
    mass = torch.nn.functional.one_hot(of.labels[:, -1], K).double()
    made = model(init_scale=3.0).double()
    assert mean_loss(made, of) == pytest.approx(mean_loss(made, Examples(of.tokens, mass=mass)), rel=FLOAT64)


def test_adamw_learns_and_keeps_the_best_weights() -> None:
    made, held_out = model(), examples(400, seed=1)
    before = mean_loss(made, held_out)
    outcome = train(
        made, examples(), Recipe(steps=150, learning_rate=0.05, evaluate_every=10), seed=0, held_out=held_out
    )
    assert outcome.held_out_loss is not None
    assert outcome.held_out_loss < before - 0.02
    assert mean_loss(made, held_out) == pytest.approx(outcome.held_out_loss)
    assert outcome.held_out_loss == pytest.approx(outcome.curve["held_out_loss"].min())


def test_training_stops_when_held_out_loss_rises() -> None:
    made = model(classifier="free", values=True, residual=True, mlp=64, init_scale=1.0)
    recipe = Recipe(steps=2000, batch_size=20, learning_rate=0.02, evaluate_every=10, patience=3)
    outcome = train(made, examples(20), recipe, seed=0, held_out=examples(200, seed=1))
    assert outcome.stopped_early
    assert outcome.best_step < outcome.curve["step"].max() < 2000
    assert outcome.curve["held_out_loss"].dropna().iloc[-1] > outcome.held_out_loss


def test_the_seed_decides_the_batches() -> None:
    def weights(seed: int) -> Any:
        made = model()
        train(made, examples(), Recipe(steps=30), seed=seed)
        return made.layers[0].W.detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_checkpoint_and_curve_are_stored(tmp_path: Path) -> None:
    made = model(init_scale=1.0)
    outcome = train(made, examples(), Recipe(steps=20), seed=0, folder=tmp_path)
    curve = pd.read_csv(tmp_path / "loss.csv")
    np.testing.assert_allclose(curve["train_loss"], outcome.curve["train_loss"])
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    tokens = examples().tokens
    assert torch.equal(again(tokens).logits, made(tokens).logits)


def test_an_impossible_token_is_an_error() -> None:
    tokens = torch.tensor([[0, 1, 0, 1]])
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 2]])
    with pytest.raises(ValueError, match="probability 0"):
        train(model(), Examples(tokens, labels), Recipe(steps=2), seed=0)


def test_examples_have_labels_or_mass() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Examples(torch.zeros(1, 2, dtype=torch.long))
