"""Heads replaced while the model runs, in the float32 in which models really run."""

from __future__ import annotations

from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch

from harness.attention.capture import OLD_FAMILIES, attention_modules
from harness.attention.loop_terms import EXACT
from harness.attention.replacing import Replacement, replace

CAPPED = {"gemma2"}  # sdpa attention of transformers does not take a cap
NAMES = [name for name in families.FAMILIES if name not in CAPPED]


def logits(model: Any, ids: Any, implementation: str) -> torch.Tensor:
    if model.config.get_text_config().model_type in OLD_FAMILIES:
        model.config._attn_implementation = implementation
    else:
        model.set_attn_implementation(implementation)
    with torch.inference_mode():
        found: torch.Tensor = model(torch.as_tensor(ids)[None], use_cache=False).logits[0]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_rows_put_back_are_as_close_as_two_kernels_are(name: str) -> None:
    """At most three times what eager and sdpa attention of the same model differ by."""
    model = families.build(families.FAMILIES[name], 0.3)
    if name in {"gpt_neo", "gptj"}:
        pytest.skip("there is one kernel only, whose own distance to itself is 0")
    ids = small_models.random_ids(60, 1)
    eager, fast = (logits(model, ids, kind) for kind in ("eager", "sdpa"))
    every = [Replacement(layer, EXACT) for layer in attention_modules(model)]
    with replace(model, every, np.zeros(1, dtype=np.int64)), torch.inference_mode():
        found = model(torch.as_tensor(ids)[None], use_cache=False).logits[0]
    assert found.dtype == torch.float32
    assert (found - fast).abs().max() <= 3 * (eager - fast).abs().max()
