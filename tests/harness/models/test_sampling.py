"""Sampling noise belongs to a prompt: other prompts, their order and the batch leave its continuation as it was."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from transformers import GenerationConfig

from harness.models.language_model import generate
from harness.models.sampling import Draw, cuts, draw, levels

TOKENIZER = small_models.tokenizer()
PROMPTS = [small_models.random_ids(3 + seed % 5, seed).tolist() for seed in range(12)]
STRATEGIES: list[tuple[float | None, dict[str, Any]]] = [
    (1.0, {}),
    (0.7, {"top_k": 8, "top_p": 0.9}),
    (1.3, {"min_p": 0.05, "repetition_penalty": 1.3}),
    (1.0, {"no_repeat_ngram": 2}),
    (None, {}),
    (None, {"beams": 3}),
]


pytestmark = pytest.mark.usefixtures("in_doubles")


@pytest.fixture(scope="module")
def model() -> Any:
    return small_models.llama(2, scale=0.4).double()


def texts(
    model: Any, prompts: list[list[int]], strategy: tuple[float | None, dict[str, Any]], **changes: Any
) -> list[list[int]]:
    temperature, options = strategy
    settings: dict[str, Any] = {"max_new_tokens": 16, "seed": 4, "batch_size": 16, "options": options, **changes}
    return [c.tolist() for c in generate(model, TOKENIZER, prompts, temperature=temperature, **settings)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_other_prompts_their_order_and_the_batch_change_nothing(model: Any, strategy: Any) -> None:
    found = texts(model, PROMPTS, strategy)
    assert len({tuple(text) for text in found}) > 6
    for dropped in (0, 5, 11):
        assert texts(model, PROMPTS[:dropped] + PROMPTS[dropped + 1 :], strategy) == (
            found[:dropped] + found[dropped + 1 :]
        )
    order = np.random.default_rng(0).permutation(12).tolist()
    assert texts(model, [PROMPTS[place] for place in order], strategy) == [found[place] for place in order]
    for batch_size in (1, 3, 5):
        assert texts(model, PROMPTS, strategy, batch_size=batch_size) == found


def test_a_longer_continuation_begins_with_the_shorter_one(model: Any) -> None:
    short, long = (texts(model, PROMPTS, (1.0, {}), max_new_tokens=n, ignore_eos=True) for n in (7, 20))
    assert [text[:7] for text in long] == short


def test_seeds_give_other_texts_and_the_global_generator_is_left_alone(model: Any) -> None:
    state = torch.get_rng_state()
    one, other = (texts(model, PROMPTS, (1.0, {}), seed=seed) for seed in (1, 2))
    assert sum(a == b for a, b in zip(one, other, strict=True)) <= 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("temperature", "options"),
    [
        (1.0, {}),
        (0.6, {}),
        (0.6, {"top_k": 5}),
        (1.4, {"top_p": 0.7}),
        (1.4, {"min_p": 0.2}),
        (0.9, {"top_k": 9, "top_p": 0.8, "min_p": 0.1}),
        (1.4, {"top_h": 0.4}),
        (0.7, {"top_h": 0.8, "top_k": 9, "top_p": 0.8}),
    ],
)
def test_the_distribution_is_that_of_transformers(model: Any, temperature: float, options: dict[str, Any]) -> None:
    """The processed scores that its own sampling would draw from, from its own list of processors."""
    config = GenerationConfig(do_sample=True, temperature=temperature, top_k=0, top_p=1.0)
    config.update(**options)
    model._prepare_special_tokens(config)
    theirs = model._get_logits_processor(config, input_ids_seq_length=4)
    ids, scores = torch.tensor(PROMPTS[:1]), torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 3
    expected, found = theirs(ids, scores.clone()), scores.clone()
    for processor in cuts(temperature, options):
        found = processor(ids, found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [type(p).__name__ for p in cuts(temperature, options)] == [type(p).__name__ for p in theirs]


def halved(p: Any, numbers: list[float], first: int = 0) -> int:
    """The token that numbers lead to, by the definition: which half, by its share of the probability."""
    if len(p) == 1:
        return first
    half = len(p) // 2
    lower, whole = p[:half].sum(), p.sum()
    upper = numbers[0] * whole >= lower
    return halved(p[half:] if upper else p[:half], numbers[1:], first + half * upper)


@pytest.mark.parametrize("size", [30, 2000])
def test_a_token_is_found_by_halving(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(300, size, generator=generator, dtype=torch.float64) * 2
    scores[:, ::3] = -torch.inf
    uniform = np.random.default_rng(0).random((300, levels(size)))
    token, sound = draw(scores, uniform)
    p = np.pad(torch.softmax(scores, -1).numpy(), ((0, 0), (0, 2 ** levels(size) - size)))
    assert token.tolist() == [halved(row, numbers) for row, numbers in zip(p, uniform.tolist(), strict=True)]
    assert sound.all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 31, 32, 33, 511, 513, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_possible_tokens_are_drawn_and_each_of_them_is(size: int, dtype: torch.dtype) -> None:
    """Numbers at both ends of [0, 1) included, where a product rounds up."""
    for token in {*range(min(size, 40)), size - 1}:
        scores = torch.full((3, size), -torch.inf, dtype=dtype)
        scores[:, token] = 3.0
        uniform = np.repeat(np.array([[0.0], [0.5], [1 - 2**-53]]), levels(size), axis=1)
        assert draw(scores, uniform)[0].tolist() == [token] * 3
    ends = np.repeat(np.array([[0.0], [1 - 2**-53]]), levels(size), axis=1)
    assert draw(torch.rand(2, size, dtype=dtype), ends)[0].tolist() == [0, size - 1]


def test_frequencies_are_those_of_the_distribution() -> None:
    """G test of 20,000 prompts' first draws from one distribution."""
    scores = torch.tensor([[2.0, 0.0, -1.0, 1.0, -torch.inf, 0.5, -3.0]], dtype=torch.float64)
    n = 20_000
    drawn = Draw([[index] for index in range(n)], 0, 1)(torch.zeros(n, 1, dtype=torch.long), scores.repeat(n, 1))
    found = np.bincount(drawn.argmax(-1).numpy(), minlength=7)
    expected = n * torch.softmax(scores[0], -1).numpy()
    assert found[4] == 0
    kept = expected > 0
    statistic = 2 * float(np.sum(found[kept] * np.log(found[kept] / expected[kept])))
    assert statistic < 20.5  # 99.9th percentile of chi-square with 5 degrees of freedom


def test_rounding_of_logits_hardly_ever_changes_a_draw() -> None:
    """49,152 tokens of about 6 nats, with errors as large as those of float32 logits."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 49_152, generator=generator) * 3
    near = scores + torch.randn(1, 49_152, generator=generator) * 6e-6
    uniform = np.random.default_rng(0).random((200, levels(49_152)))
    changed = [draw(scores, numbers[None])[0] != draw(near, numbers[None])[0] for numbers in uniform]
    assert not any(changed)  # expected: 0.0015 of 200


@pytest.mark.parametrize("temperature", [None, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_distribution_is_named(model: Any, temperature: float | None, value: float) -> None:
    broken = Broken(model, row=1, value=value)
    with pytest.raises(FloatingPointError, match=r"prompt 1: the model gives no probabilities for token 0"):
        generate(broken, TOKENIZER, PROMPTS[:3], temperature=temperature, max_new_tokens=4, seed=0)


@pytest.mark.parametrize("options", [{"beams": 3}, {}])
def test_a_model_that_breaks_down_in_the_middle_is_named(model: Any, options: dict[str, int]) -> None:
    """Behind a position that no prompt reaches every logit is NaN."""
    broken = copy.deepcopy(model)
    last = max(len(prompt) for prompt in PROMPTS[:3]) + 2
    forward = broken.forward

    def forward_(*inputs: Any, **named: Any) -> Any:
        made = forward(*inputs, **named)
        made.logits[named["position_ids"][:, -made.logits.shape[1] :] >= last] = torch.nan
        return made

    broken.forward = forward_
    generate(broken, TOKENIZER, PROMPTS[:3], temperature=None, max_new_tokens=2, seed=0, options=options)
    with pytest.raises(FloatingPointError, match="prompt 0: the model gives no probabilities for token 5"):
        generate(broken, TOKENIZER, PROMPTS[:3], temperature=None, max_new_tokens=8, seed=0, options=options)


class Broken:
    """A model whose scores of one row are NaN, seen from `generate` alone."""

    def __init__(self, inner: Any, row: int, value: float = torch.nan) -> None:
        self.inner, self.row, self.value = inner, row, value
        self.config, self.device, self.generation_config = inner.config, inner.device, inner.generation_config

    def generate(self, tokens: torch.Tensor, *, logits_processor: Any, **settings: Any) -> torch.Tensor:
        scores = torch.zeros(len(tokens), small_models.VOCAB_SIZE)
        scores[self.row] = self.value
        chosen = logits_processor(tokens, scores).argmax(-1)
        return torch.cat([tokens, chosen[:, None]], -1)


class Wrong(Broken):
    """A model that returns something else than one continuation for each prompt."""

    def __init__(self, inner: Any, change: Any) -> None:
        super().__init__(inner, 0)
        self.change = change

    def generate(self, tokens: torch.Tensor, **settings: Any) -> torch.Tensor:
        made: torch.Tensor = self.change(torch.cat([tokens, tokens[:, :2]], -1))
        return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.repeat(2, 1), "returned 6 sequences for 3 prompts"),
        (lambda out: out[:2], "returned 2 sequences for 3 prompts"),
        (lambda out: torch.cat([out, out], -1), "returned sequences of 18 tokens for prompts of 7 and at most 4 new"),
        (lambda out: out[:, :3], "returned sequences of 3 tokens"),
        (lambda out: out.flip(0), "in row 0 a text that does not begin with its prompt"),
        (lambda out: SimpleNamespace(sequences=out), "returned a SimpleNamespace"),
    ],
)
def test_what_comes_back_is_checked_against_the_prompts(model: Any, change: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        generate(Wrong(model, change), TOKENIZER, PROMPTS[2:5], temperature=None, max_new_tokens=4, seed=0)


class Small:
    """A model that runs out of memory with more than some texts at once."""

    def __init__(self, model: Any, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.model, self.most, self.error, self.tried = model, most, error, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, tokens: torch.Tensor, **settings: Any) -> torch.Tensor:
        self.tried.append(len(tokens))
        if len(tokens) > self.most:
            raise self.error("no room")
        made: torch.Tensor = self.model.generate(tokens, **settings)
        return made


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_batches_are_halved_where_memory_does_not_do(model: Any, error: type[Exception]) -> None:
    whole, halved_, said = [], [], list[str]()
    settings: dict[str, Any] = {"temperature": 0.8, "max_new_tokens": 6, "seed": 3, "batch_size": 8}
    expected = generate(model, TOKENIZER, PROMPTS, record=lambda index, _: whole.append(index), **settings)
    small = Small(model, 2, error)
    found = generate(
        small, TOKENIZER, PROMPTS, record=lambda index, _: halved_.append(index),
        progress=lambda share, what: said.append(what), **settings,
    )  # fmt: skip
    assert [c.tolist() for c in found] == [c.tolist() for c in expected]
    assert halved_ == whole  # every prompt once, in the same order
    assert max(small.tried) == min(8, len(PROMPTS))
    assert small.tried[-1] <= 2
    assert sum(n > 2 for n in small.tried) <= 2  # once halved, batches stay small
    assert "at once for lack of memory" in said[-1]


def test_one_text_that_is_too_large_and_other_errors_are_not_tried_again(model: Any) -> None:
    for small, error in ((Small(model, 0), torch.OutOfMemoryError), (Small(model, 0, ValueError), ValueError)):
        with pytest.raises(error):
            generate(small, TOKENIZER, PROMPTS[:2], temperature=None, max_new_tokens=3, seed=0, batch_size=1)
        assert small.tried == [1]
    other = Small(model, 1, RuntimeError)
    with pytest.raises(RuntimeError, match="no room"):
        generate(other, TOKENIZER, PROMPTS[:3], temperature=None, max_new_tokens=3, seed=0, batch_size=3)
    assert other.tried == [3]
