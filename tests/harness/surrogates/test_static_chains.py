"""Chains of heads from static inputs: with rotary and with learned positions, in a pass of their own or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64, in_float64
from transformers import GPT2Config, GPT2LMHeadModel

from harness.attention import capture
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.static_chains import ChainReader, read_chains


@pytest.fixture(autouse=True)
def in_doubles() -> Iterator[None]:
    """These tests are about algorithms: models and everything they are compared with are in float64."""
    with in_float64():
        yield


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=small_models.VOCAB_SIZE, n_embd=24, n_head=2, n_layer=2, n_positions=64, bos_token_id=None,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    small_models.perturb(model, 0.3)
    return model.double().eval().requires_grad_(False)


TEXTS = [small_models.random_ids(length, length) for length in (20, 17, 25)]


@pytest.mark.parametrize("make", [gpt2, lambda: small_models.llama(2).double()])
def test_one_pass_gives_logits_and_chains(make: Any) -> None:
    model = make()
    vocabulary = LocalVocabulary(TEXTS)
    reader = ChainReader(model, "all", vocabulary, 25)
    for tokens in TEXTS:
        logits = capture.listen_through(model, tokens, reader.layers, reader.text(tokens))
        with torch.inference_mode():
            expected = model(torch.as_tensor(tokens)[None]).logits[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=FLOAT64)
    everyone = np.arange(len(vocabulary))
    found, alone = reader.chains(), read_chains(model, TEXTS, vocabulary)
    assert [(c.layer, c.head) for c in found] == [(c.layer, c.head) for c in alone]
    assert len(found) == 2 * model.config.num_attention_heads
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(
            one.logits(everyone, everyone), other.logits(everyone, everyone), rtol=0, atol=FLOAT64
        )


def test_learned_positions_are_averaged_out_of_the_first_layer() -> None:
    """Queries and keys of a token are those of its mean input over the positions of the training texts."""
    model = gpt2()
    vocabulary = LocalVocabulary(TEXTS)
    chain = read_chains(model, TEXTS, vocabulary)[1]  # layer 0, head 1
    block, body = model.transformer.h[0], model.transformer
    places = torch.as_tensor(np.unique(np.linspace(1, 24, 16).astype(np.int64)))
    embedded = body.wte.weight[torch.as_tensor(vocabulary.ids)][:, None] + body.wpe.weight[places]
    mean = block.ln_1(embedded).mean(dim=1)
    query, key, _ = block.attn.c_attn(mean).split(24, dim=-1)
    expected = (query[:, 12:] @ key[:, 12:].T / np.sqrt(12)).numpy()
    everyone = np.arange(len(vocabulary))
    np.testing.assert_allclose(chain.logits(everyone, everyone), expected, rtol=0, atol=FLOAT64)
