"""First-layer heads of rotary models are position-aware chains: `pccmc-weights` is exact, if it is right.

The truth is the attention that eager transformers returns, so nothing of the capture takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small_models
import torch

from harness.config import load_config
from harness.experiments.heads import head_text
from harness.measures.fidelity import kl
from harness.prompts import load_prompts
from harness.sources import heads as source
from harness.sources import loading
from harness.sources.heads import StaticHeads
from harness.surrogates import from_weights
from harness.surrogates.counts import Counts
from harness.surrogates.from_weights import PCCMCWeights
from harness.texts import LocalVocabulary

Change = Callable[[StaticHeads], StaticHeads]


def unchanged(heads: StaticHeads) -> StaticHeads:
    return heads


def eager_rows(model: Any, ids: Any, layer: int) -> torch.Tensor:
    """[H, T, T] as transformers itself gives them."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = model(torch.as_tensor(ids)[None], output_attentions=True, use_cache=False).attentions
    assert attentions
    return attentions[layer][0].double()


def first_layer_kl(model: Any, texts: list[Any], change: Change) -> tuple[float, float]:
    """Largest KL of any query and head under pccmc-weights; mean KL under counts."""
    from harness.experiments.heads import static_heads

    vocabulary = LocalVocabulary(texts)
    rotation = source.probe(model, "model", max(map(len, texts)))
    embedding = source.embedding_inputs(model, vocabulary.ids).double().numpy()
    heads = change(static_heads(model, 0, embedding, np.ones(len(vocabulary), dtype=bool), rotation))
    worst, baseline = 0.0, []
    for ids in texts:
        text = head_text(ids, vocabulary)
        truth = text.per_token(source.without_sink(eager_rows(model, ids, 0), text.positions)[0])
        for surrogate, found in ((PCCMCWeights(heads), None), (Counts(), baseline)):
            predicted = np.broadcast_to(surrogate.predict(text), truth.shape)
            values = kl(truth.reshape(-1, truth.shape[-1]), predicted.reshape(-1, truth.shape[-1]))
            if found is None:
                worst = max(worst, float(values.max()))
            else:
                found.append(float(values.mean()))
    return worst, float(np.mean(baseline))


@pytest.fixture(scope="session")
def real(smollm2: Any) -> tuple[Any, list[Any]]:
    model = loading.load_model(smollm2.path, "cpu")
    tokenizer = loading.load_tokenizer(smollm2.path)
    prompts = [p for p in load_prompts(load_config("quickstart")) if p.split == "held_out"][::4]
    return model, [loading.encode(tokenizer, p.text) for p in prompts]


@pytest.fixture(scope="session")
def random() -> tuple[Any, list[Any]]:
    return small_models.llama(1, scale=0.5), [small_models.random_ids(60, seed) for seed in range(3)]


CASES = [pytest.param("real", marks=pytest.mark.weights), "random"]


@pytest.mark.parametrize("case", CASES)
def test_first_layer_heads_are_matched(case: str, request: pytest.FixtureRequest) -> None:
    check_first_layer(*request.getfixturevalue(case), unchanged)


def check_first_layer(model: Any, texts: list[Any], change: Change) -> None:
    worst, baseline = first_layer_kl(model, texts, change)
    assert baseline >= 0.3
    assert worst <= 1e-5


def no_rotation(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return x


def wrong_way(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Every position backward: a key at distance d is met as if it stood d positions ahead."""
    return source.rotate(x, cos, -sin)


def queries_only(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Keys stay as they are; there are fewer key heads than query heads."""
    return source.rotate(x, cos, sin) if x.shape[0] > 3 else x


def next_positions(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries of one position further on than their keys."""
    if x.shape[0] > 3:
        cos, sin = torch.roll(cos, -1, 0), torch.roll(sin, -1, 0)
    return source.rotate(x, cos, sin)


@pytest.mark.parametrize("wrong", [no_rotation, wrong_way, queries_only, next_positions])
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_rotation_is_seen(
    case: str, wrong: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_weights, "rotate", wrong)
    with pytest.raises(AssertionError):
        check_first_layer(*request.getfixturevalue(case), unchanged)


def interleaved(heads: StaticHeads) -> StaticHeads:
    """Query head h on key head h mod G instead of consecutive query heads sharing one."""
    return replace(heads, key_head=torch.arange(len(heads.key_head)) % len(heads.key))


def one_key_head(heads: StaticHeads) -> StaticHeads:
    return replace(heads, key_head=torch.zeros_like(heads.key_head))


@pytest.mark.parametrize("wrong", [interleaved, one_key_head])
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_map_of_key_heads_is_seen(case: str, wrong: Change, request: pytest.FixtureRequest) -> None:
    with pytest.raises(AssertionError):
        check_first_layer(*request.getfixturevalue(case), wrong)
