"""A decoding step with all heads of a layer replaced, beside eager attention.

Run with: python -m pytest tests/benchmarks/test_replace_speed.py --benchmark-enable. The bar is asserted only then;
without it the same is done small.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext

import numpy as np
import pytest
import small_models
import torch
from ratios import record
from transformers import LlamaConfig, LlamaForCausalLM

from harness.attention.capture import attention_modules
from harness.attention.loop_terms import FittedOdds, LoopTerms, PairForm, PairTable, mean_log_odds
from harness.attention.replacing import Replacement, replace
from harness.attention.static_layers import static_layers
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.head_fits import training_pass
from harness.surrogates._fitting.buckets import BUCKETS, profile_of

BAR = 2.5
LAYER = 1


def model_of(enabled):
    if not enabled:
        return small_models.llama(2)
    config = LlamaConfig(  # the shape of two layers of SmolLM2
        vocab_size=2000, hidden_size=576, intermediate_size=64, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=1024, bos_token_id=None, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def seconds_in_attention(model, ids, steps):
    """Median seconds in the attention of the layer, per decoding step behind a prompt; what replaces heads included."""
    module, spent, began = attention_modules(model)[LAYER], [], []
    hooks = [
        module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()), prepend=True),
        module.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began.pop())),
    ]
    with torch.inference_mode():
        out = model(ids[:, :-steps], use_cache=True)
        for t in range(ids.shape[1] - steps, ids.shape[1]):
            out = model(ids[:, t : t + 1], past_key_values=out.past_key_values)
    for hook in hooks:
        hook.remove()
    assert len(spent) == steps + 1
    return statistics.median(spent[1:])


def every_term(heads, count):
    """Scores with positions and all that a fit may add."""
    size, width, rng = len(heads.ids), heads.at_start.query.shape[-1], np.random.default_rng(0)
    buckets = rng.normal(size=(count, BUCKETS))
    codes = np.sort(rng.choice(size * size, min(20_000, size * size // 2), replace=False))
    return LoopTerms(
        heads, "placed", "placed", scale=np.ones(count), profile=lambda length: profile_of(buckets, length),
        place=lambda length: profile_of(buckets, length),
        pairs=PairTable(codes, rng.normal(size=(count, len(codes))), size),
        form=PairForm(rng.normal(size=(count, size)), rng.normal(size=(count, width + 1, width)), 3.0), sink="score",
        odds=FittedOdds(np.zeros(count), np.ones(count), rng.normal(size=(count, size))),
    )  # fmt: skip


@pytest.mark.parametrize("case", ["pccmc-weights", "ccmc-weights", "every term"])
def test_a_decoding_step(case, enabled) -> None:
    model = model_of(enabled)
    length, steps, size = (512, 40, 2000) if enabled else (30, 5, small_models.VOCAB_SIZE)
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, size, min(length, 200)) for _ in range(8 if enabled else 2)]
    vocabulary = LocalVocabulary(texts)
    sums, static = training_pass(model, texts, [LAYER], vocabulary)
    heads = static_layers(model, static, [LAYER], vocabulary, length)[LAYER]
    count = heads.at_start.query.shape[0]
    terms = {
        "pccmc-weights": LoopTerms(heads, "placed", "placed", sink="score"),
        "ccmc-weights": LoopTerms(heads, "token", "token", sink="score"),
    }.get(case) or every_term(heads, count)
    ids = torch.as_tensor(rng.choice(vocabulary.ids, length))[None]
    model.set_attn_implementation("eager")
    eager, replaced = [], []
    for _ in range(5 if enabled else 1):  # in turn, so that both meet the same load
        for found, inside in (
            (eager, nullcontext()),
            (
                replaced,
                replace(
                    model,
                    [Replacement(LAYER, terms)],
                    vocabulary.ids,
                    levels={LAYER: mean_log_odds(sums[LAYER].sink_odds)},
                ),
            ),
        ):
            with inside:
                found.append(seconds_in_attention(model, ids, steps))
    ratio = min(replaced) / min(eager)
    assert ratio > 0
    if enabled:
        record("heads replaced", f"{case}: step over eager, {length} tokens", ratio, f"<= {BAR}")
        assert ratio <= BAR
