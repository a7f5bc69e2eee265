"""Surrogates of the heads of a model at hand: what runs compute, as arrays and frames, and in the running model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import small_models
import torch
from float32 import tolerance

import harness
from harness.attention import replace
from harness.core.errors import UsageError
from harness.experiments.fit_heads import HeadChains


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return small_models.llama(3)


def texts(count: int, seed: int = 0, length: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, small_models.VOCAB_SIZE, length) for _ in range(count)]


@pytest.fixture(scope="module")
def chains(model: torch.nn.Module) -> HeadChains:
    return harness.fit_heads(model, texts(6))


def logits(model: torch.nn.Module, ids: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.as_tensor(ids)[None]).logits[0]


def test_the_first_layer_is_exact_and_later_ones_are_not(model: torch.nn.Module, chains: HeadChains) -> None:
    ids = np.concatenate(texts(2, length=20))  # of tokens that were fitted
    plain = logits(model, ids)
    with replace(model, {0: None}, chains):
        first = logits(model, ids)
    torch.testing.assert_close(first, plain, rtol=0, atol=tolerance(float(plain.abs().max()), 3 * 48 * len(ids)))
    with replace(model, [(1, 0), (2, 3), (1, 4)], chains) as running:
        other = logits(model, ids)
    assert float((other - plain).abs().max()) > 1e-3
    assert running.seen.tokens == len(ids)
    torch.testing.assert_close(logits(model, ids), plain, rtol=0, atol=0)  # outside nothing is replaced


def test_heads_are_given_in_three_ways(model: torch.nn.Module, chains: HeadChains) -> None:
    ids = texts(1)[0]
    found = []
    for heads in (None, {0: None, 1: None, 2: None}, [(layer, head) for layer in range(3) for head in range(6)]):
        with replace(model, heads, chains):
            found.append(logits(model, ids))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-5)


def test_generation_with_a_cache_goes_through_them(model: torch.nn.Module, chains: HeadChains) -> None:
    prompt = torch.as_tensor(texts(1)[0][:10])[None]
    with replace(model, {1: [0, 1], 2: None}, chains):
        out = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=1)
        step = logits(model, out[0].numpy())
    assert out[0, 10:].tolist() == step[9:-1].argmax(-1).tolist()


def test_measures_are_those_of_a_run(chains: HeadChains) -> None:
    held_out = texts(3, seed=9)
    found = chains.measures(held_out)
    assert isinstance(found, pd.DataFrame)
    assert len(found) == 3 * 3 * 6
    assert found.loc[found["layer"] == 0, "kl"].max() < 1e-6
    assert found.loc[found["layer"] == 2, "kl"].min() > 1e-4
    again = chains.measures(held_out[1:2])
    one = found[found["text"] == 1].drop(columns="text").reset_index(drop=True)
    pd.testing.assert_frame_equal(again.drop(columns="text"), one)


def test_fits_of_the_first_layer_are_closer_than_counts(model: torch.nn.Module) -> None:
    train, held_out = texts(40, seed=1), texts(4, seed=2)
    kl = {
        name: harness.fit_heads(model, train, name, layers=[0]).measures(held_out)["kl"].mean()
        for name in ("counts", "ccmc-fit", "pccmc-fit")
    }
    assert kl["ccmc-fit"] < 0.6 * kl["counts"]
    assert kl["pccmc-fit"] < 1e-6  # which begins at the weights
    assert not model.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: harness.fit_heads(m, texts(2), "pccmc-wights"), "did you mean 'pccmc-weights'"),
        (lambda m: harness.fit_heads(m, texts(2), layers=[7]), "layer 7: the model has layers 0 to 2"),
        (lambda m: harness.fit_heads(m, []), "at least one is needed"),
        (lambda m: harness.fit_heads(m, ["a text"]), r"text 0: token ids \[T\], 3 or more"),
        (lambda m: harness.fit_heads(m, [[1, 2, 3], [1, 2]]), "text 1: token ids"),
    ],
)
def test_mistakes_are_one_line(model: torch.nn.Module, call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call(model)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_tokens_without_a_place_are_named_and_held_out_texts_give_them_one(model: torch.nn.Module) -> None:
    train, held_out = [np.arange(10, 30)], [np.arange(20, 36)]
    with pytest.raises(UsageError, match="text 0: token 30 has no place; give the text to fit_heads as held_out"):
        harness.fit_heads(model, train, layers=[0]).measures(held_out)
    chains = harness.fit_heads(model, train, layers=[0], held_out=held_out)
    assert chains.vocabulary.tolist() == list(range(10, 36))
    assert chains.measures(held_out)["kl"].max() < 1e-6  # the first layer needs no training text for a token
    with replace(model, None, harness.fit_heads(model, train, layers=[0])) as running:
        logits(model, held_out[0])
    assert running.seen.outside == 6


def test_heads_that_were_not_fitted_are_named(model: torch.nn.Module) -> None:
    chains = harness.fit_heads(model, texts(2), layers=[1])
    with pytest.raises(UsageError, match="layer 2: its heads were not fitted; fitted are those of layers 1"):
        chains.replacements([(2, 0)])
    with pytest.raises(UsageError, match=r"head 1\.6: a layer has heads 0 to 5"):
        chains.replacements({1: [6]})
