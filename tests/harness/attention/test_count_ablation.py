"""The count ablation: its bias by hand, and a model under it against attention written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64

from harness.attention import capture
from harness.attention.count_ablation import count_bias, without_counts
from harness.models.language_model import generate

TOKENIZER = small_models.tokenizer()


pytestmark = pytest.mark.usefixtures("in_doubles")


@pytest.fixture(scope="module")
def model() -> Any:
    return small_models.llama(2, scale=0.4).double()


def repeating(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(2, 8, length).tolist()


def logits(model: Any, ids: list[int]) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def test_the_bias_by_hand() -> None:
    ids = torch.tensor([[9, 5, 7, 5, 5], [0, 0, 5, 5, 5]])
    valid = torch.tensor([[True] * 5, [False, False, True, True, True]])
    found = count_bias(ids, valid, 2, 1.0).numpy()
    two, three, no = -np.log(2), -np.log(3), -np.inf
    expected = [
        [[0, two, 0, two, no], [0, three, 0, three, three]],
        [[no, no, 0, 0, no], [no, no, 0, two, two]],  # the first position is not counted, and keeps its score
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT64)
    np.testing.assert_allclose(count_bias(ids, valid, 2, 0.5)[0, 1].numpy()[1], three / 2, rtol=0, atol=FLOAT64)


def test_without_strength_nothing_changes(model: Any) -> None:
    ids = repeating(20, 0)
    plain = logits(model, ids)
    with without_counts(model, 0.0, {0: None, 1: None}):
        torch.testing.assert_close(logits(model, ids), plain, rtol=0, atol=FLOAT64)
    with without_counts(model, 1.0, {0: None, 1: None}):
        assert (logits(model, ids) - plain).abs().max() > 0.05
    torch.testing.assert_close(logits(model, ids), plain, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("chosen", [None, [1, 4]])
def test_the_rows_of_chosen_heads_lose_the_count(model: Any, chosen: list[int] | None) -> None:
    """First-layer rows under the ablation: the plain rows, each position over its token's count, renormalised."""
    ids = repeating(15, 1)
    calls: list[Any] = []
    capture.listen(model, ids, [0], calls.append)
    rows = capture.attention_rows(calls[0]).numpy()  # [H, T, T]
    for head in range(6):
        if chosen is None or head in chosen:
            for t in range(15):
                count = [sum(ids[s] == ids[k] for s in range(1, t + 1)) if k else 1 for k in range(t + 1)]
                rows[head, t, : t + 1] /= count
                rows[head, t] /= rows[head, t].sum()
    layer = model.model.layers[0]
    hidden = layer.input_layernorm(model.model.embed_tokens(torch.tensor([ids])))
    value = layer.self_attn.v_proj(hidden)[0].view(15, 2, 8).transpose(0, 1)[torch.arange(2).repeat_interleave(3)]
    mixed = torch.as_tensor(rows) @ value  # [H, T, d]
    expected = layer.self_attn.o_proj(mixed.transpose(0, 1).reshape(15, 48))
    outputs: list[Any] = []
    hook = layer.self_attn.register_forward_hook(lambda module, given, made: outputs.append(made[0][0]))
    with without_counts(model, 1.0, {0: chosen}):
        logits(model, ids)
    hook.remove()
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("heads", [{0: None, 1: None}, {1: [0, 5]}])
def test_generation_with_a_cache_is_generation_by_whole_passes(model: Any, heads: Any) -> None:
    prompts = [repeating(n, n) for n in (4, 9, 6)]
    with without_counts(model, 1.0, heads):
        found = generate(model, TOKENIZER, prompts, temperature=None, max_new_tokens=15, seed=0, ignore_eos=True)
        for prompt, continuation in zip(prompts, found, strict=True):
            ids = list(prompt)
            for _ in range(15):
                ids.append(int(logits(model, ids)[-1].argmax()))
            assert continuation.tolist() == ids[len(prompt) :]
