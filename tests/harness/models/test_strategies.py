"""Decoding strategies: their names and settings, and generation against continuations worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from harness.config.decoding import Generation, Sampling, has_one_continuation, strategy_name
from harness.models.language_model import generate
from harness.models.token_scores import TokenScores, score_tokens

TOKENIZER = small_models.tokenizer()
IntArray = np.ndarray[Any, np.dtype[np.int64]]


pytestmark = pytest.mark.usefixtures("in_doubles")


@pytest.fixture(scope="module")
def model() -> Any:
    return small_models.llama(2, scale=0.4).double()


def prompts() -> list[list[int]]:
    return [small_models.random_ids(length, seed).tolist() for seed, length in enumerate([3, 11, 7, 5, 11])]


def logits_after(model: Any, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    with torch.inference_mode():
        found: np.ndarray[Any, np.dtype[np.float64]] = model(torch.tensor([ids])).logits[0, -1].double().numpy()
    return found


@pytest.mark.parametrize(
    ("given", "name", "one"),
    [
        ("greedy", "greedy", True),
        ({"temperature": 1.0}, "temperature=1", False),
        ({"top_p": 0.9, "temperature": 0.7}, "temperature=0.7,top_p=0.9", False),
        ({"temperature": 1.0, "top_k": 40, "min_p": 0.05}, "temperature=1,top_k=40,min_p=0.05", False),
        ({"repetition_penalty": 1.2}, "greedy,repetition_penalty=1.2", True),
        ({"no_repeat_ngram": 4, "temperature": 1}, "temperature=1,no_repeat_ngram=4", False),
        ({"beams": 4}, "beams=4", True),
    ],
)
def test_names(given: Any, name: str, one: bool) -> None:
    strategy = Generation.model_validate({"strategies": [given]}).strategies[0]
    assert strategy_name(strategy) == name
    assert has_one_continuation(strategy) is one
    assert Generation(strategies=(strategy,)).model_dump(mode="json")["strategies"] == [given]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least one of temperature"),
        ({"top_p": 0.9}, "top_p cuts off a sample: give a temperature too"),
        ({"beams": 3, "temperature": 1.0}, "beams with a temperature is not supported"),
        ({"topk": 3, "temperature": 1.0}, "did you mean 'top_k'"),
        ({"temperature": 1.0, "top_p": 1.5}, "less than 1"),
    ],
)
def test_combinations_that_make_no_sense(given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampling.model_validate(given)


def allowed(logits: Any, options: dict[str, Any], ids: list[int]) -> Any:
    """Probabilities after penalties, temperature and cuts, from their definitions."""
    logits = logits.copy()
    for token in set(ids):
        if "repetition_penalty" in options:
            penalty = options["repetition_penalty"]
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    n = options.get("no_repeat_ngram")
    if n:
        tail = ids[len(ids) - n + 1 :]
        for start in range(len(ids) - n + 1):
            if ids[start : start + n - 1] == tail:
                logits[ids[start + n - 1]] = -np.inf
    p = np.exp((logits - logits.max()) / options.get("temperature", 1.0))
    p /= p.sum()
    order = np.argsort(-p)
    if "top_k" in options:
        p[order[options["top_k"] :]] = 0
        p /= p.sum()
    if "top_p" in options:
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= options["top_p"]]] = 0
        p /= p.sum()
    if "min_p" in options:
        p[p < options["min_p"] * p.max()] = 0
        p /= p.sum()
    return p


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.5}, {"no_repeat_ngram": 2}])
def test_penalties_look_at_the_own_tokens_of_a_row_only(model: Any, options: dict[str, Any]) -> None:
    found = generate(
        model, TOKENIZER, prompts(), temperature=None, max_new_tokens=20, seed=0, options=options, ignore_eos=True
    )
    plain = generate(model, TOKENIZER, prompts(), temperature=None, max_new_tokens=20, seed=0, ignore_eos=True)
    changed = 0
    for prompt, continuation, unpenalised in zip(prompts(), found, plain, strict=True):
        ids = list(prompt)
        for token in continuation.tolist():
            assert token == int(allowed(logits_after(model, ids), options, ids).argmax())
            ids.append(token)
        changed += continuation.tolist() != unpenalised.tolist()
    assert changed >= 3


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.3}, {"top_k": 8, "top_p": 0.8}])
def test_cut_samples_follow_the_cut_distribution(model: Any, options: dict[str, Any]) -> None:
    many = np.stack([small_models.random_ids(5, seed) for seed in range(3000)])
    drawn = generate(
        model, TOKENIZER, many.tolist(), temperature=1.5, max_new_tokens=1, seed=3, batch_size=3000,
        ignore_eos=True, options=options,
    )  # fmt: skip
    with torch.inference_mode():
        logits = model(torch.as_tensor(many)).logits[:, -1].double().numpy()
    chances = np.stack([allowed(row, {"temperature": 1.5, **options}, []) for row in logits])  # [3000, V]
    tokens = np.array([int(c[0]) for c in drawn])
    assert (chances == 0).any(axis=1).all()
    assert (chances[np.arange(3000), tokens] > 0).all()
    found, expected = np.bincount(tokens, minlength=small_models.VOCAB_SIZE), chances.sum(axis=0)
    seldom = expected < 5
    pooled = [np.append(x[~seldom], x[seldom].sum()) for x in (found, expected)]
    statistic = float(np.sum((pooled[0] - pooled[1]) ** 2 / np.maximum(pooled[1], 1.0)))
    degrees = len(pooled[0]) - 1
    assert statistic < degrees + 3.1 * np.sqrt(2 * degrees) + 4  # about the 99.9th percentile


def test_beams_find_the_likeliest_pair(model: Any) -> None:
    """With as many beams as tokens, a search over two tokens is exhaustive."""
    size = small_models.VOCAB_SIZE
    prompt = prompts()[0]
    log = np.log(allowed(logits_after(model, prompt), {}, prompt))
    pairs = np.array([log[t] + np.log(allowed(logits_after(model, [*prompt, t]), {}, prompt)) for t in range(size)])
    best = np.unravel_index(pairs.argmax(), pairs.shape)
    found = generate(
        model, TOKENIZER, [prompt], temperature=None, max_new_tokens=2, seed=0, ignore_eos=True, options={"beams": size}
    )
    assert tuple(found[0].tolist()) == best


def test_learned_positions_are_those_of_the_prompt_not_of_its_padding() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=small_models.VOCAB_SIZE, n_embd=24, n_head=2, n_layer=2, n_positions=64, bos_token_id=None,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    plain = GPT2LMHeadModel(config)
    small_models.perturb(plain, 0.3)
    plain.double().eval().requires_grad_(False)
    found = generate(plain, TOKENIZER, prompts(), temperature=None, max_new_tokens=12, seed=0, ignore_eos=True)
    for prompt, continuation in zip(prompts(), found, strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(logits_after(plain, ids).argmax()))
        assert continuation.tolist() == ids[len(prompt) :]


def test_scores_of_tokens(model: Any) -> None:
    prompt, continuation = small_models.random_ids(6, 1), small_models.random_ids(9, 2)
    found = score_tokens(model, prompt, continuation, block=4)
    ids = [*prompt.tolist(), *continuation.tolist()]
    for t in range(9):
        before = ids[: 6 + t]
        p = allowed(logits_after(model, before), {}, before)
        assert found.log_probability[t] == pytest.approx(np.log(p[ids[6 + t]]), abs=FLOAT64)
        assert found.entropy[t] == pytest.approx(-np.sum(p * np.log(p)), abs=FLOAT64)
        assert found.in_context_mass[t] == pytest.approx(p[sorted(set(before))].sum(), abs=FLOAT64)
        assert found.argmax[t] == p.argmax()
    assert len(score_tokens(model, prompt, continuation[:0]).entropy) == 0


def test_chat_prompts_go_through_the_template(tmp_path: Path) -> None:
    from harness.core.errors import UsageError
    from harness.data.tokenisation import Reader

    tokenizer = small_models.tokenizer()
    with pytest.raises(UsageError, match="no chat template"):
        Reader(tokenizer, "mine", 40).chat("w1 w2", "prompt 'a'")
    tokenizer.chat_template = "w30 {{ messages[0]['content'] }} w31"
    read = Reader(tokenizer, "mine", 40).chat("w1 w2", "prompt 'a'")
    assert read.whole == small_models.read(tokenizer, "w30 w1 w2 w31")


@pytest.mark.parametrize(
    ("temperature", "options", "ignore_eos"),
    [(None, {}, True), (1.0, {}, False), (0.7, {"top_k": 3}, False), (None, {"repetition_penalty": 1.5}, False),
     (None, {"beams": 3}, False)],
)  # fmt: skip
def test_what_is_kept_while_writing_is_what_a_pass_afterwards_finds(
    model: Any, temperature: float | None, options: dict[str, Any], ignore_eos: bool
) -> None:
    """Whatever decoding cuts off, padding in the batch or not, and up to the end token."""
    kept: dict[int, TokenScores] = {}
    texts = [*prompts(), *(p[:3] for p in prompts())]
    made = generate(
        model, TOKENIZER, texts, temperature=temperature, max_new_tokens=15, seed=0, batch_size=3, options=options,
        ignore_eos=ignore_eos, record=kept.__setitem__,
    )  # fmt: skip
    plain = generate(
        model, TOKENIZER, texts, temperature=temperature, max_new_tokens=15, seed=0, batch_size=3, options=options,
        ignore_eos=ignore_eos,
    )  # fmt: skip
    assert sorted(kept) == list(range(len(texts)))
    for index, (prompt, continuation) in enumerate(zip(texts, made, strict=True)):
        assert continuation.tolist() == plain[index].tolist()
        expected = score_tokens(model, np.array(prompt), continuation)
        for name in ("log_probability", "entropy", "in_context_mass"):
            np.testing.assert_allclose(getattr(kept[index], name), getattr(expected, name), rtol=0, atol=FLOAT64)
        np.testing.assert_array_equal(kept[index].argmax, expected.argmax)
