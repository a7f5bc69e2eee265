"""Training of one-layer models: AdamW or L-BFGS, batched, seeded, stopped early on held-out loss, stored as it goes.

Every model that answers `model(tokens, logits_to_keep=q).logits` with log-probabilities up to a constant can be
trained. Examples are prompts with what came after them: labels at every position, or mass over next tokens at the last.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import transformers
from torch import nn

IGNORED = -100


@dataclass(frozen=True)
class Examples:
    """Prompts of one length and what came after them.

    Attributes:
        tokens: [n, L] token ids.
        labels: [n, L] the next token after each position, IGNORED where it does not count; or None.
        mass: [n, K] how often each token came after the whole prompt; or None. Exactly one of the two is given.
    """

    tokens: torch.Tensor
    labels: torch.Tensor | None = None
    mass: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if (self.labels is None) == (self.mass is None):
            raise ValueError("examples have labels or mass, exactly one of them")

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: torch.Tensor) -> Examples:
        """Some of the examples."""
        return Examples(
            self.tokens[rows],
            None if self.labels is None else self.labels[rows],
            None if self.mass is None else self.mass[rows],
        )

    def total(self) -> float:
        """How many next tokens the examples hold."""
        return float(self.mass.sum()) if self.mass is not None else float((self.labels != IGNORED).sum())  # type: ignore[union-attr]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        optimiser: "adamw" in batches, or "lbfgs" on everything at once.
        steps: at most so many optimiser steps.
        batch_size: examples per step of AdamW.
        learning_rate: of AdamW; it falls to a tenth along a cosine.
        weight_decay: of AdamW.
        evaluate_every: steps of AdamW between evaluations on held-out examples.
        patience: evaluations without a better held-out loss after which training stops.
        tolerance: of L-BFGS, of the largest gradient entry in nats per token.
    """

    optimiser: Literal["adamw", "lbfgs"] = "adamw"
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    evaluate_every: int = 25
    patience: int = 8
    tolerance: float = 1e-9


@dataclass(frozen=True)
class Outcome:
    """What training did.

    Attributes:
        curve: columns step, train_loss, held_out_loss (nats per token).
        best_step: the step whose weights the model has now.
        loss: training loss at the last step.
        held_out_loss: of the weights that were kept; None without held-out examples.
        gradient: largest gradient entry at the last step.
        stopped_early: did held-out loss stop it?
    """

    curve: pd.DataFrame
    best_step: int
    loss: float
    held_out_loss: float | None
    gradient: float
    stopped_early: bool


def loss_sum(model: nn.Module, examples: Examples) -> torch.Tensor:
    """Sum over the examples' next tokens of -log p, in nats."""
    keep = 1 if examples.mass is not None else 0
    logits = model(examples.tokens, logits_to_keep=keep).logits
    if examples.mass is not None:
        log_p = torch.log_softmax(logits[:, 0], dim=-1)
        return -(examples.mass * log_p.masked_fill(examples.mass == 0, 0.0)).sum()
    assert examples.labels is not None
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), examples.labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def mean_loss(model: nn.Module, examples: Examples, batch_size: int = 256) -> float:
    """Mean of -log p over the examples' next tokens, in nats."""
    total = 0.0
    for first in range(0, len(examples), batch_size):
        rows = torch.arange(first, min(first + batch_size, len(examples)))
        total += float(loss_sum(model, examples.take(rows)))
    return total / examples.total()


def train(
    model: Any,
    examples: Examples,
    recipe: Recipe,
    *,
    seed: int,
    held_out: Examples | None = None,
    folder: Path | None = None,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> Outcome:
    """Train a model in place.

    Args:
        model: its parameters that require a gradient are changed. Ends with the weights of the best held-out loss, or
            with the last ones where nothing is held out.
        examples: to learn from.
        recipe: how.
        seed: of the order of the batches.
        held_out: for early stopping.
        folder: gets checkpoint/ (config and safetensors, where the model can save itself) and loss.csv.
        progress: called with the share of the steps that are done.

    Returns:
        What happened.

    Raises:
        ValueError: the loss is not finite, such as for a next token that the model gives probability 0.
    """
    keeper = _Keeper(model, held_out)
    if recipe.optimiser == "lbfgs":
        gradient = _lbfgs(model, examples, recipe, keeper, progress)
    else:
        gradient = _adamw(model, examples, recipe, keeper, seed, progress)
    outcome = keeper.finish(gradient)
    if folder is not None:
        store(model, outcome.curve, folder)
    return outcome


def store(model: Any, curve: pd.DataFrame, folder: Path, name: str = "checkpoint") -> None:
    """Leave checkpoint/ (config and safetensors; or another folder in it) and loss.csv, the loss curve, in a folder."""
    transformers.utils.logging.disable_progress_bar()
    curve.to_csv(folder / "loss.csv", index=False)
    model.save_pretrained(folder / name, safe_serialization=True)


class _Keeper:
    """Writes the loss curve and keeps the weights of the best held-out loss."""

    def __init__(self, model: nn.Module, held_out: Examples | None) -> None:
        self.model, self.held_out = model, held_out
        self.rows: list[dict[str, float | None]] = []
        self.best: tuple[float, int, dict[str, Any]] | None = None
        self.since_best = 0
        self.stopped_early = False

    def note(self, step: int, loss: float, evaluate: bool = True) -> None:
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(f"training loss is {loss} at step {step}: a next token has probability 0")
        found = mean_loss(self.model, self.held_out) if evaluate and self.held_out is not None else None
        self.rows.append({"step": step, "train_loss": loss, "held_out_loss": found})
        if found is not None:
            self.since_best += 1
            if self.best is None or found < self.best[0]:
                self.best, self.since_best = (found, step, copy.deepcopy(self.model.state_dict())), 0

    def finish(self, gradient: float) -> Outcome:
        last = self.rows[-1]
        best_step, held_out_loss = int(last["step"] or 0), None
        if self.best is not None:
            held_out_loss, best_step, state = self.best
            self.model.load_state_dict(state)
        curve = pd.DataFrame(self.rows, columns=["step", "train_loss", "held_out_loss"])
        return Outcome(curve, best_step, float(last["train_loss"] or 0.0), held_out_loss, gradient, self.stopped_early)


def _gradient(model: nn.Module) -> float:
    return max((float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None), default=0.0)


def _lbfgs(model: nn.Module, examples: Examples, recipe: Recipe, keeper: _Keeper, progress: Any) -> float:
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = examples.total()
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=recipe.steps,
        max_eval=2 * recipe.steps,
        tolerance_grad=recipe.tolerance,
        tolerance_change=1e-15,
        history_size=50,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_sum(model, examples) / total
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        progress(min(len(losses) / recipe.steps, 0.99), "training")
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    for step, loss in enumerate(losses):
        keeper.note(step, loss, evaluate=step == len(losses) - 1)
    return _gradient(model)


def _adamw(model: nn.Module, examples: Examples, recipe: Recipe, keeper: _Keeper, seed: int, progress: Any) -> float:
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps, 0.1 * recipe.learning_rate)
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, recipe.steps + 1):
        if len(order) == 0:
            order = torch.randperm(len(examples), generator=generator)
        batch, order = examples.take(order[: recipe.batch_size]), order[recipe.batch_size :]
        optimiser.zero_grad()
        loss = loss_sum(model, batch) / batch.total()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step / recipe.steps, "training")
        keeper.note(step, float(loss.detach()), step % recipe.evaluate_every == 0 or step == recipe.steps)
        if keeper.since_best >= recipe.patience:
            keeper.stopped_early = True
            break
    return _gradient(model)
