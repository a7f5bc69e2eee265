"""What interventions read off training texts: mean outputs of heads by query token, and the size of MLP outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from harness.attention.capture import IntArray
from harness.attention.interventions import NO_VOCABULARY, OutputTable, mlp_modules
from harness.attention.loop_running import Running
from harness.attention.replacing import attached


def mean_outputs_by_token(
    model: Any, texts: Sequence[IntArray], heads: Mapping[int, Sequence[int]]
) -> dict[int, OutputTable]:
    """The mean output of heads by query token over texts, the first position left out.

    Args:
        model: of a family that the capture supports.
        texts: token ids [T] each; at least one has two tokens.
        heads: layer -> which.
    """
    ids = np.unique(np.concatenate([np.asarray(text)[1:] for text in texts]))
    known = torch.as_tensor(ids, device=model.device)
    counts = torch.zeros(len(ids), dtype=torch.float64, device=model.device)
    sums: dict[int, torch.Tensor] = {}
    body = getattr(model, model.base_model_prefix, model)
    running = Running(model, [], NO_VOCABULARY)
    row = torch.empty(0)

    def add(layer: int, output: torch.Tensor) -> None:
        if layer in heads:
            own = output[0, list(heads[layer]), 1:].double()  # [h, t, d]
            if layer not in sums:
                sums[layer] = own.new_zeros(len(own), len(ids), own.shape[-1])
            sums[layer].index_add_(1, row.to(own.device), own)

    running.on_output = add
    with attached(model, running), torch.inference_mode():
        for text in texts:
            tokens = torch.as_tensor(np.asarray(text), device=model.device)
            row = torch.searchsorted(known, tokens[1:])
            counts.index_add_(0, row, torch.ones(len(row), dtype=torch.float64, device=model.device))
            body(tokens[None], use_cache=False)
    found = {}
    for layer, total in sums.items():
        times = counts.to(total.device)
        means = torch.cat([total / times[:, None], total.sum(1, keepdim=True) / times.sum()], 1)
        found[layer] = OutputTable(list(heads[layer]), ids, means.float().cpu().numpy())
    return found


def mlp_scales(model: Any, texts: Sequence[IntArray]) -> dict[int, float]:
    """Layer -> root mean square of what its MLP adds over texts, the first position left out.

    Raises:
        UsageError: the MLPs of the model cannot be told apart.
    """
    squares: dict[int, float] = {}
    count = sum(len(text) - 1 for text in texts)
    body = getattr(model, model.base_model_prefix, model)
    with ExitStack() as stack, torch.inference_mode():
        for layer, module in mlp_modules(model).items():

            def add(module: torch.nn.Module, given: Any, output: torch.Tensor, layer: int = layer) -> None:
                own = output.reshape(-1, output.shape[-1])[1:].double()
                squares[layer] = squares.get(layer, 0.0) + float(own.square().mean(-1).sum())

            stack.callback(module.register_forward_hook(add).remove)
        for text in texts:
            body(torch.as_tensor(np.asarray(text), device=model.device)[None], use_cache=False)
    return {layer: float(np.sqrt(total / count)) for layer, total in squares.items()}
