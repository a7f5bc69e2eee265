"""The one-layer attention model of the paper, and its training by maximum likelihood.

f_W(X) = X^T softmax(X W x_L): rows of X are the embeddings of the prompt's tokens, x_L that of its last token. A tied
classifier C = pinv(E)^T turns the output into next-token probabilities c_j^T f_W(X).

Source: Ildiz et al. 2024 for the model. Probabilities are computed in the log domain, masked to the context: through
pinv(E), round-off puts small negative numbers outside the context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.core.noise import uniforms

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Progress = Callable[[float, str], None]


class OneLayerAttention(nn.Module):
    """One attention layer, float64.

    Args:
        embeddings: [K, d] token embeddings E.
        train_embeddings: are they parameters too? By default only W is.
    """

    def __init__(self, embeddings: torch.Tensor, train_embeddings: bool = False) -> None:
        super().__init__()
        vocab_size, dimension = embeddings.shape
        self.E = nn.Parameter(embeddings.double().clone(), requires_grad=train_embeddings)  # [K, d]
        self.W = nn.Parameter(torch.zeros(dimension, dimension, dtype=torch.float64))  # [d, d]
        self.vocab_size = vocab_size

    def attention(self, prompts: torch.Tensor, W: torch.Tensor | None = None) -> torch.Tensor:
        """Log attention of the last token over the positions of prompts [n, L]: [n, L]; W in place of the model's."""
        pair_scores = (
            self.E @ (self.W if W is None else W) @ self.E.T
        )  # [K, K]: e_j^T W e_i, once instead of once per prompt
        scores = pair_scores[prompts, prompts[:, -1:]]  # [n, L]: x_l^T W x_L
        return torch.log_softmax(scores, dim=-1)

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the next token, [n, K]; -inf outside the context. Needs independent embeddings."""
        log_attention = self.attention(prompts)
        top = log_attention.max(dim=-1, keepdim=True).values
        mass = torch.zeros(len(prompts), self.vocab_size, dtype=torch.float64)
        mass = mass.scatter_add(1, prompts, torch.exp(log_attention - top))  # [n, K]
        return torch.log(mass) + top

    def target_log_likelihood(
        self, prompts: torch.Tensor, targets: torch.Tensor, W: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log-probability of each target [n], a token of its prompt: [n]."""
        log_attention = self.attention(prompts, W)
        return torch.logsumexp(log_attention.masked_fill(prompts != targets[:, None], -torch.inf), dim=-1)

    @torch.no_grad()
    def tied_output(self, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Next-token probabilities through the tied classifier, as the definition says.

        Args:
            prompts: [n, L].

        Returns:
            [n, K] probabilities, clipped at 0, masked to the context and renormalised; [n] the mass that was lost:
            half of the L1 distance between what came out of the classifier and what is returned.
        """
        X = self.E[prompts]
        f = torch.einsum("nld,nl->nd", X, torch.exp(self.attention(prompts)))  # X^T softmax(X W x_L)
        raw = f @ torch.linalg.pinv(self.E)  # [n, K]: rows of C are the columns of pinv(E)
        inside = torch.zeros_like(raw).scatter_(1, prompts, 1.0)
        kept = raw.clamp(min=0.0) * inside
        probability = kept / kept.sum(-1, keepdim=True)
        return probability, 0.5 * (raw - probability).abs().sum(-1)


@dataclass(frozen=True)
class Training:
    """What training did: the loss in nats per observation at each step, and the largest gradient at the end."""

    losses: list[float]
    gradient: float


def train(
    model: OneLayerAttention,
    prompts: IntArray,
    targets: IntArray,
    *,
    steps: int = 1000,
    tolerance: float = 1e-9,
    progress: Progress = lambda share, what: None,
) -> Training:
    """Maximum likelihood by L-BFGS on the whole sample, until the gradient is below `tolerance` everywhere.

    With fixed embeddings E = U S V^T the steps are taken in Q, W = (V / S) Q (V / S)^T: the same model and the same
    maximum, but E W E^T = U Q U^T no longer has the condition number of E to the fourth. In W itself, square Gaussian
    embeddings (K = d = 16) were still 4e-4 nats from the maximum after a thousand steps.

    Args:
        model: changed in place.
        prompts: [n, L] token ids.
        targets: [n] next tokens, each in its prompt.
        steps: at most so many iterations.
        tolerance: of the largest gradient entry, in nats per observation.
    """
    X, y = torch.as_tensor(prompts), torch.as_tensor(targets)
    factor: torch.Tensor | None = None
    if model.E.requires_grad:
        parameters = [model.E, model.W]
    else:
        _, S, V = torch.linalg.svd(model.E.detach(), full_matrices=False)
        kept = S[0] * 1e-12 < S
        factor = V[kept].T / S[kept]  # [d, r]
        inverse = V[kept].T * S[kept]
        parameters = [nn.Parameter(inverse.T @ model.W.detach() @ inverse)]
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=tolerance,
        tolerance_change=1e-15,
        history_size=50,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        W = model.W if factor is None else factor @ parameters[0] @ factor.T
        loss = -model.target_log_likelihood(X, y, W).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        progress(min(len(losses) / 100, 0.99), "training the attention model")
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    gradient = max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
    if factor is not None:
        model.W.data = factor @ parameters[0].detach() @ factor.T
    return Training(losses, gradient)


def continue_prompts(model: OneLayerAttention, prompts: IntArray, steps: int, seed: int) -> IntArray:
    """Sample continuations: [n, L] prompts -> [n, steps]. Each token is appended and becomes the query.

    The noise of a continuation belongs to the seed and the prompt, whatever other prompts there are; equal prompts have
    continuations of their own, the first, second, ... of that prompt.
    """
    met: Counter[bytes] = Counter()
    numbers = np.empty((len(prompts), steps))
    for row, prompt in enumerate(prompts):
        content = np.ascontiguousarray(prompt, dtype=np.int64).tobytes()
        numbers[row] = uniforms(seed, prompt, steps, occurrence=met[content])[:, 0]
        met[content] += 1
    length = prompts.shape[1]
    sequence = np.concatenate([prompts, np.zeros((len(prompts), steps), dtype=np.int64)], axis=1)
    with torch.inference_mode():
        for step in range(steps):
            context = sequence[:, : length + step]
            reached = torch.exp(model.attention(torch.as_tensor(context))).double().cumsum(1).numpy()  # [n, positions]
            wanted = numbers[:, step] * reached[:, -1]
            chosen = (reached <= wanted[:, None]).sum(axis=1)  # a position; its token comes next
            chosen = np.minimum(chosen, length + step - 1)  # where rounding made the share all of it
            sequence[:, length + step] = context[np.arange(len(prompts)), chosen]
    return sequence[:, length:]
