"""Heads replaced while the model runs: oracles whose truth is the unreplaced model, or rows by another path."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64
from loop_models import SCALES, Trained, step_by_step, train

from harness.attention.capture import attention_modules
from harness.attention.loop_terms import EXACT, LoopTerms
from harness.attention.replacing import Replacement, replace

pytestmark = pytest.mark.usefixtures("in_doubles")

NAMES = list(families.FAMILIES)
NO_VOCABULARY = np.zeros(1, dtype=np.int64)


@pytest.fixture(scope="module")
def models() -> dict[str, Trained]:
    """What was trained already, by family; layers 0 and 1."""
    return {}


def trained(models: dict[str, Trained], name: str) -> Trained:
    from float32 import in_float64

    if name not in models:
        with in_float64():
            models[name] = train(name, [0, 1])
    return models[name]


def logits(model: Any, ids: Any, **more: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.as_tensor(np.atleast_2d(ids)), use_cache=False, **more).logits
    return found


def padded(texts: list[Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    width = max(len(ids) for ids in texts)
    tokens, mask = torch.zeros(2, len(texts), width, dtype=torch.long)
    for row, ids in enumerate(texts):
        tokens[row, width - len(ids) :] = torch.as_tensor(ids)
        mask[row, width - len(ids) :] = 1
    return tokens, {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT64 * max(largest, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_exact_rows_put_back_leave_logits_unchanged(name: str) -> None:
    model = families.build(families.FAMILIES[name], SCALES.get(name, 0.5)).double()
    ids = small_models.random_ids(40, 3)
    plain, layers = logits(model, ids), attention_modules(model)
    heard: list[int] = []
    with replace(model, [Replacement(layer, EXACT) for layer in layers], NO_VOCABULARY) as running:
        running.on_rows = lambda layer, heads, rows: heard.append(layer)
        assert_same(logits(model, ids), plain)
        assert heard == sorted(layers)  # the oracle says nothing about layers that were not reached
        assert_same(step_by_step(model, ids, 25), plain[0])
    for heads in ([0, 4], [3, 5, 0, 1, 2, 4]):
        with replace(model, [Replacement(layer, EXACT, heads) for layer in layers], NO_VOCABULARY):
            assert_same(logits(model, ids), plain)
    assert_same(logits(model, ids), plain)  # nothing is left behind


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_exact_in_the_first_layer(name: str, models: dict[str, Trained]) -> None:
    of = trained(models, name)
    terms = of.fitted("pccmc-weights", 0).loop_terms()
    assert isinstance(terms, LoopTerms)
    ids = small_models.random_ids(38, 5)  # with tokens that no training text holds
    plain = logits(of.model, ids)
    with replace(of.model, [Replacement(0, terms)], of.vocabulary.ids) as running:
        assert_same(logits(of.model, ids), plain)
        assert running.seen.share == np.mean(~np.isin(ids, of.vocabulary.ids)) > 0
        assert_same(step_by_step(of.model, ids, 20), plain[0])
    shuffled = of.fitted("shuffled-weights", 0).loop_terms()
    with replace(of.model, [Replacement(0, shuffled)], of.vocabulary.ids):
        assert (logits(of.model, ids) - plain).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_padding_change_nothing(name: str, models: dict[str, Trained]) -> None:
    of = trained(models, name)
    terms = {layer: of.fitted("pccmc-weights", layer).loop_terms() for layer in (0, 1)}
    replaced = [Replacement(0, terms[0], [1, 3]), Replacement(1, terms[1], [0, 2, 5])]
    texts = [small_models.random_ids(n, n) for n in (35, 12, 24)]
    plain = logits(of.model, texts[0])
    with replace(of.model, replaced, of.vocabulary.ids):
        alone = [logits(of.model, ids)[0] for ids in texts]
        assert (alone[0] - plain).abs().max() > 1e-3 * plain.abs().max()
        assert_same(step_by_step(of.model, texts[0], 20), alone[0])
        tokens, padding = padded(texts)
        together = logits(of.model, tokens, **padding)
        for row, expected in zip(together, alone, strict=True):
            assert_same(row[-len(expected) :], expected)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_pass_held_is_gone_at_the_end_of_the_block(name: str, models: dict[str, Trained]) -> None:
    """Tensors of all layers are gigabytes after a few hundred blocks: they must not wait for a search for cycles."""
    of = trained(models, name)
    terms = of.fitted("pccmc-weights", 1).loop_terms()
    ids = small_models.random_ids(30, 4)
    gc.collect()
    gc.disable()
    try:
        with replace(of.model, [Replacement(1, terms)], of.vocabulary.ids) as running:
            logits(of.model, ids)
            assert running.tokens is not None
            held = [weakref.ref(one) for one in (running, running.tokens.ids)]
        del running
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()
