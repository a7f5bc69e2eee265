"""Speed of generation and of the measures.

Run with: python -m pytest tests/benchmarks --benchmark-enable. Bars hold for medians and are asserted only then;
without it the work is done once, small, and what it gives is checked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import small_models
import torch
from ratios import record

from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures
from harness.models.language_model import generate

CASE = "generation"
CONTINUATIONS, LENGTH = 200, 512


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds of one round."""
    start = time.process_time()
    work()
    return time.process_time() - start


def test_generation_costs_at_most_a_tenth_more_than_the_bare_call(enabled: bool) -> None:
    model, tokenizer = small_models.llama(4, scale=0.3), small_models.tokenizer()
    prompts = [small_models.random_ids(20, seed).tolist() for seed in range(16 if enabled else 2)]
    length = 128 if enabled else 8
    tokens = torch.tensor(prompts)
    mask = torch.ones_like(tokens)

    def bare() -> Any:
        with torch.inference_mode():
            return model.generate(
                tokens, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=length, pad_token_id=1, eos_token_id=None,
            )  # fmt: skip

    def ours() -> Any:
        return generate(model, tokenizer, prompts, temperature=1.0, max_new_tokens=length, seed=0, ignore_eos=True)

    assert len(bare()) == len(prompts)
    assert [len(continuation) for continuation in ours()] == [length] * len(prompts)
    if enabled:
        pairs = [(seconds(ours), seconds(bare)) for _ in range(7)]  # in turn, so that both see the same machine
        ratio = statistics.median(own / plain for own, plain in pairs)
        record(CASE, "generate / bare call of the library, T = 1", ratio, "<= 1.1")
        assert ratio <= 1.10


def test_ten_thousand_continuations_are_measured_in_ten_seconds(enabled: bool) -> None:
    rng = np.random.default_rng(0)
    many = CONTINUATIONS if enabled else 10
    texts = [rng.zipf(1.3, LENGTH) % 49_152 for _ in range(many // 2)]
    texts += [np.resize(rng.integers(0, 49_152, 60), LENGTH) for _ in range(many // 2)]
    prompt = rng.integers(0, 49_152, 40)

    def measure() -> list[dict[str, Any]]:
        return [{**repetition_measures(text), **own_winner_measures(text, prompt)} for text in texts]

    found = measure()
    assert all(row["seq_rep_4"].value > 0.8 for row in found[many // 2 :])  # the cycles
    assert all(row["seq_rep_4"].value < 0.5 for row in found[: many // 2])
    if enabled:
        spent = statistics.median(seconds(measure) for _ in range(5)) * (10_000 / many)
        record(CASE, "10,000 continuations of 512 tokens, seconds", spent, "<= 10")
        assert spent <= 10.0
