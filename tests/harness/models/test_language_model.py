"""Continuations and next-token distributions of a language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64

from harness.data.texts import LocalVocabulary, Text
from harness.models.language_model import generate, next_token_distributions

TOKENIZER = small_models.tokenizer()


pytestmark = pytest.mark.usefixtures("in_doubles")


@pytest.fixture(scope="module")
def model() -> Any:
    return small_models.llama(2, scale=0.4).double()


def prompts() -> list[Any]:
    return [small_models.random_ids(length, seed).tolist() for seed, length in enumerate([3, 11, 7, 5, 11])]


def greedy_by_hand(model: Any, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 1:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def test_a_padded_batch_continues_as_each_prompt_alone(model: Any) -> None:
    found = generate(model, TOKENIZER, prompts(), temperature=None, max_new_tokens=20, seed=0, batch_size=3)
    for prompt, continuation in zip(prompts(), found, strict=True):
        assert continuation.tolist() == greedy_by_hand(model, prompt, 20)


def test_an_end_token_stops_a_continuation_unless_ignored(model: Any) -> None:
    stopped = generate(model, TOKENIZER, prompts() * 6, temperature=2.0, max_new_tokens=40, seed=1)
    assert min(len(c) for c in stopped) < 40
    assert all(1 not in c for c in stopped)
    going_on = generate(model, TOKENIZER, prompts() * 6, temperature=2.0, max_new_tokens=40, seed=1, ignore_eos=True)
    assert {len(c) for c in going_on} == {40}
    assert any(1 in c for c in going_on)


def test_samples_depend_on_the_seed_alone(model: Any) -> None:
    def sample(seed: int) -> list[list[int]]:
        return [
            c.tolist() for c in generate(model, TOKENIZER, prompts(), temperature=1.0, max_new_tokens=12, seed=seed)
        ]

    torch.manual_seed(1)
    first = sample(5)
    torch.manual_seed(2)
    assert sample(5) == first
    assert sample(6) != first


def test_samples_follow_the_whole_distribution(model: Any) -> None:
    """No hidden top-k or top-p: the first tokens of many prompts against softmax(logits / temperature)."""
    many = np.stack([small_models.random_ids(5, seed) for seed in range(4000)])
    drawn = generate(
        model, TOKENIZER, many.tolist(), temperature=1.5, max_new_tokens=1, seed=3, batch_size=4000, ignore_eos=True
    )
    with torch.inference_mode():
        expected = torch.softmax(model(torch.as_tensor(many)).logits[:, -1].double() / 1.5, -1).sum(0).numpy()
    found = np.bincount([int(c[0]) for c in drawn], minlength=small_models.VOCAB_SIZE)
    assert expected.min() > 5
    statistic = float(np.sum((found - expected) ** 2 / expected))
    degrees = len(found) - 1
    assert statistic < degrees + 3.1 * np.sqrt(2 * degrees) + 4  # about the 99.9th percentile


def test_next_token_distributions_are_restricted_to_the_context(model: Any) -> None:
    ids = small_models.random_ids(15, 4)
    vocabulary = LocalVocabulary([ids])
    text = Text(vocabulary.local(ids), start=5, stop=14)
    found = next_token_distributions(model, ids, text)
    with torch.inference_mode():
        whole = torch.softmax(model(torch.as_tensor(ids)[None]).logits[0].double(), -1).numpy()
    for row, position in enumerate(text.positions):
        context = sorted(set(ids[: position + 1].tolist()))
        mass = whole[position, context].sum()
        assert found.in_context_mass[row] == pytest.approx(mass, abs=FLOAT64)
        expected = np.zeros(len(vocabulary))
        expected[vocabulary.local(context)] = whole[position, context] / mass
        np.testing.assert_allclose(found.restricted[row], expected[text.types], rtol=0, atol=FLOAT64)
