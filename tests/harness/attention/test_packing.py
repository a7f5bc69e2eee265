"""Texts packed into one window are as each is alone: no query, no position and no context goes over a boundary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64, in_float64

from harness.attention import capture
from harness.attention.capture import LayerCall, attention_rows
from harness.attention.eager import eager_rows
from harness.attention.packing import listen_windows, packs, windows


@pytest.fixture(autouse=True)
def in_doubles() -> Iterator[None]:
    """These tests are about algorithms: models and everything they are compared with are in float64."""
    with in_float64():
        yield


TEXTS = [small_models.random_ids(length, seed) for seed, length in enumerate((20, 3, 26, 9))]


def test_windows_hold_what_fits_in_order() -> None:
    assert list(windows([20, 3, 26, 9], 30)) == [[0, 1], [2], [3]]
    assert list(windows([20, 3, 26, 9], 100)) == [[0, 1, 2, 3]]
    assert list(windows([20, 3, 26, 9], 0)) == [[0], [1], [2], [3]]
    assert list(windows([50, 1, 1], 10)) == [[0], [1, 2]]
    assert list(windows([], 10)) == []


@pytest.mark.parametrize("name", families.FAMILIES)
def test_packed_texts_attend_as_eager_transformers_lets_each_alone(name: str) -> None:
    model = families.build(families.FAMILIES[name]).double()
    width = 64 if packs(model) else None
    found: dict[tuple[int, int], torch.Tensor] = {}
    hidden: dict[tuple[int, int], int] = {}

    def keep(call: LayerCall, number: int) -> None:
        found[number, call.layer] = attention_rows(call)
        hidden[number, call.layer] = 0 if call.hidden is None else len(call.hidden)

    layers = list(capture.attention_modules(model))
    listen_windows(model, TEXTS, layers, keep, width)
    for number, ids in enumerate(TEXTS):
        for layer, rows in enumerate(eager_rows(model, ids)):
            np.testing.assert_allclose(found[number, layer], rows, rtol=0, atol=FLOAT64)
            assert hidden[number, layer] == len(ids)


def test_most_families_are_packed() -> None:
    """So that the test above is about packing and not about its fall-back."""
    packed = {name for name, make in families.FAMILIES.items() if packs(families.build(make).double())}
    assert {"gpt2", "gpt_neox", "llama", "mistral", "qwen3", "olmo2", "gemma2", "gemma3"} <= packed
    assert not {"gpt_neo", "gptj", "falcon"} & packed


def test_a_model_that_lets_texts_see_each_other_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_models.llama(2).double()
    original = model.model.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        positions = options.get("position_ids")
        if positions is not None:
            options["attention_mask"] = torch.ones_like(positions)  # no text ends where positions restart
        return original(*arguments, **options)

    assert packs(model)
    monkeypatch.setattr(model.model, "forward", forward)
    assert not packs(model)
