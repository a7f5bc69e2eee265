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
import pytest
import small_models
import torch
from ratios import in_turn, median_ratio, record

from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures
from harness.models import loading, tokenizers
from harness.models.language_model import generate

CASE = "generation"
CONTINUATIONS, LENGTH = 200, 512


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds of one round."""
    start = time.process_time()
    work()
    return time.process_time() - start


def against_the_bare_call(model: Any, tokenizer: Any, size: int, count: int, length: int, rounds: int) -> Any:
    """Processor seconds of sampling at temperature 1, by the generation stage and by the bare call of the library."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(3, size, (count, 20)).tolist()
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

    assert len(bare()) == count
    assert [len(continuation) for continuation in ours()] == [length] * count
    return in_turn({"ours": ours, "bare": bare}, rounds, time.process_time)


def test_generation_against_the_bare_call_of_a_tiny_model(enabled: bool) -> None:
    """What is added to a step does not depend on the model; here a step takes two milliseconds for all 16 prompts."""
    model, tokenizer = small_models.llama(4, scale=0.3), small_models.tokenizer()
    count, length = (16, 128) if enabled else (2, 8)
    spent = against_the_bare_call(model, tokenizer, small_models.VOCAB_SIZE, count, length, 7 if enabled else 1)
    if enabled:
        more = statistics.median(own - plain for own, plain in zip(spent["ours"], spent["bare"], strict=True)) / length
        record(CASE, "milliseconds added to a step of 16 prompts, T = 1", 1e3 * more, "<= 0.5")
        record(CASE, "generate / bare call, 4 layers of 2 ms a step", median_ratio(spent["ours"], spent["bare"]))
        assert 1e3 * more <= 0.5


@pytest.mark.weights
def test_generation_against_the_bare_call_of_smollm2(enabled: bool, smollm2: Any) -> None:
    if not enabled:
        pytest.skip("measures with --benchmark-enable")
    model, tokenizer = loading.load_model(smollm2.path, "cpu"), tokenizers.load_tokenizer(smollm2.path)
    spent = against_the_bare_call(model, tokenizer, len(tokenizer), 16, 32, 5)
    ratio = median_ratio(spent["ours"], spent["bare"])
    record(CASE, "generate / bare call of smollm2, T = 1", ratio, "<= 1.05")
    assert ratio <= 1.05


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
