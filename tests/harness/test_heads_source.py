"""Captured attention against eager transformers, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from test_first_layer import eager_rows

from harness.errors import UsageError
from harness.sources import heads as source
from harness.sources import loading
from harness.sources.heads import LayerCall, StaticInputs


def captured(model: Any, ids: Any, layers: list[int]) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}

    def keep(call: LayerCall) -> None:
        found[call.layer] = source.attention_rows(call)

    source.listen(model, ids, layers, keep)
    return found


def test_captured_rows_are_those_of_eager_attention() -> None:
    model, ids = small_models.llama(3), small_models.random_ids(50)
    found = captured(model, ids, [0, 2])
    assert list(found) == [0, 2]
    for layer, rows in found.items():
        assert float((rows - eager_rows(model, ids, layer)).abs().max()) <= 1e-5


@pytest.mark.weights
def test_captured_rows_of_real_weights_are_those_of_eager_attention(smollm2: Any) -> None:
    model = loading.load_model(smollm2.path, "cpu")
    ids = loading.encode(
        loading.load_tokenizer(smollm2.path), "The harbour was quiet, and the harbour master slept. " * 4
    )
    found = captured(model, ids, [0, 13, 29])
    for layer, rows in found.items():
        assert float((rows - eager_rows(model, ids, layer)).abs().max()) <= 1e-5


def test_listening_leaves_the_model_as_it_was() -> None:
    model, ids = small_models.llama(2), torch.as_tensor(small_models.random_ids(20))[None]
    before, kernel = model(ids).logits, model.config._attn_implementation
    captured(model, ids[0].numpy(), [0])
    assert model.config._attn_implementation == kernel
    assert torch.equal(model(ids).logits, before)


def test_rotation_by_the_closed_form() -> None:
    angle = torch.tensor([[0.3, 1.1]])
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
    turned = source.rotate(torch.tensor([[[1.0, 0.0, 0.0, 2.0, 7.0]]]), cos, sin)
    expected = [np.cos(0.3), -2 * np.sin(1.1), np.sin(0.3), 2 * np.cos(1.1), 7.0]  # the last channel is not rotated
    np.testing.assert_allclose(turned[0, 0].numpy(), expected, rtol=1e-6)


def test_the_sink_is_taken_out_and_the_rest_renormalised() -> None:
    rows = torch.tensor([[[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.125, 0.375]]], dtype=torch.float64)
    kept, sink = source.without_sink(rows, np.array([1, 2]))
    np.testing.assert_allclose(kept, [[[1.0, 0.0], [0.25, 0.75]]])
    np.testing.assert_allclose(sink, [[0.75, 0.5]])


def test_a_model_without_rotation_is_refused_by_name() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=1, n_head=2)).eval()
    with pytest.raises(UsageError, match="'mine': gpt2"):
        source.probe(model, "mine", 8)


def test_a_row_that_is_not_finite_is_named() -> None:
    query = torch.ones(2, 3, 4)
    query[1, 2, 0] = float("nan")
    call = LayerCall(5, torch.nn.Identity(), query, torch.ones(1, 3, 4), 0.5, None, None)
    with pytest.raises(ValueError, match="layer 5, head 1, position 2"):
        source.attention_rows(call)


def test_static_inputs_are_means_and_unseen_tokens_follow_the_embedding() -> None:
    rng = np.random.default_rng(0)
    embedding, linear = rng.normal(size=(40, 6)), rng.normal(size=(6, 6))
    hidden = embedding @ linear + 1.0
    static = StaticInputs(40, [3], 6)
    tokens = np.concatenate([[39], np.arange(38), np.arange(38)])  # 39 stands first only, 38 nowhere
    call = LayerCall(
        3, torch.nn.Identity(), torch.empty(0), torch.empty(0), 1.0, None, None, torch.as_tensor(hidden[tokens])
    )
    static.add(call, tokens)
    static.count_text(tokens)
    found = static.inputs(3, embedding)
    np.testing.assert_allclose(found[:38], hidden[:38], atol=1e-5)
    unseen, mean = found[38:], hidden[:38].mean(axis=0)
    assert np.abs(unseen - hidden[38:]).mean() < 0.5 * np.abs(mean - hidden[38:]).mean()
    assert np.array_equal(static.inputs(0, embedding), embedding)
