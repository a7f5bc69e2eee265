"""Passes that go on above a layer give what whole passes give, on every family; what lies below is not computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from families import FAMILIES, build

from harness.attention.loop_running import Replacement
from harness.attention.loop_terms import uniform
from harness.attention.replacing import check_reach, replace
from harness.attention.resume import Prefixes
from harness.core.errors import UsageError


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_pass_that_goes_on_above_a_layer_is_the_whole_pass(family: str) -> None:
    model = build(FAMILIES[family])
    try:
        check_reach(model)
    except UsageError:
        pytest.skip("its heads cannot be replaced")
    ids = torch.as_tensor(small_models.random_ids(20, 3))
    prefixes, heads = Prefixes(model), int(model.config.get_text_config().num_attention_heads)
    count = len(prefixes.layers)
    assert count == model.config.get_text_config().num_hidden_layers
    with prefixes.keeping():
        plain = logits(model, ids)
    ran: list[int] = []
    handles = [
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(prefixes.layers)
        if hasattr(layer, "mlp")
    ]
    for layer in range(count):
        one = Replacement(layer, uniform(heads), [1])
        with replace(model, [one], np.arange(4), sink="own"):
            whole = logits(model, ids)
            ran.clear()
            with prefixes.below(layer):
                resumed = logits(model, ids)
        assert torch.equal(resumed, whole)
        assert not torch.equal(whole, plain)
        assert ran == ([0] * (layer > 0) + list(range(layer, count)) if handles else [])
    assert torch.equal(logits(model, ids), plain)  # nothing stays patched


def test_going_on_needs_a_pass_that_was_kept() -> None:
    model = small_models.llama(3)
    prefixes = Prefixes(model)
    with pytest.raises(ValueError, match="no pass was kept"), prefixes.below(2):
        pass
    with prefixes.below(0):
        assert logits(model, torch.tensor([3, 4, 5])).shape[0] == 3


def test_what_stood_in_for_a_layer_before_stands_in_again() -> None:
    model = small_models.llama(3)
    prefixes, ids = Prefixes(model), torch.tensor([3, 4, 5])
    layer = prefixes.layers[1]
    own: Any = layer.forward
    layer.forward = lambda *given, **more: own(*given, **more)  # as accelerate does, to move what a layer is given
    put: Any = layer.forward
    with prefixes.keeping():
        logits(model, ids)
    with prefixes.below(2):
        assert layer.forward is not put
    assert layer.forward is put
    assert "forward" not in vars(prefixes.layers[2])
