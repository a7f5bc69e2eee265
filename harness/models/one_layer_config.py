"""The config of the one-layer attention model and of the ladder of models that grow out of it, and its positions."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig

POSITIONS = ("none", "additive", "learned", "rotary")


class OneLayerConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a model of the ladder is made of.

    Args:
        vocab_size: K.
        dimension: d, of embeddings and residual stream.
        classifier: "tied" (C = pinv(E)^T, masked to the context) or "free" (a matrix of its own, all tokens).
        train_embeddings: are embeddings parameters?
        values: value and output matrices in place of the embeddings themselves.
        norm: LayerNorm before attention, before the MLP and before the classifier.
        residual: layers add to their input.
        mlp: width of the MLP, 0 for none.
        heads, layers: how many; only with `values` more than one head, only with a free classifier more than one layer.
        positions: "none"; "additive" (a score per distance, the same for all tokens); "learned" (vectors added to
            the embeddings where scores are formed, values stay token embeddings in a tied model); "rotary".
        max_positions: longest sequence with positions.
        init_scale: standard deviation of the scores' matrix W at the start, times d.
    """

    model_type = "ccmc-one-layer"

    def __init__(  # transformers takes each setting of a config as an argument
        self,
        vocab_size: int = 16,
        dimension: int = 32,
        classifier: str = "tied",
        train_embeddings: bool = False,
        values: bool = False,
        norm: bool = False,
        residual: bool = False,
        mlp: int = 0,
        heads: int = 1,
        layers: int = 1,
        positions: str = "none",
        max_positions: int = 512,
        init_scale: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if classifier not in {"tied", "free"} or positions not in POSITIONS:
            raise ValueError(f"classifier {classifier!r} or positions {positions!r} is not known")
        if classifier == "tied" and (values or norm or residual or mlp or heads > 1 or layers > 1):
            raise ValueError("a tied classifier reads plain attention over embeddings; use classifier='free'")
        if heads > 1 and (not values or dimension % heads):
            raise ValueError(f"{heads} heads need value matrices and a dimension they divide, got {dimension}")
        self.vocab_size, self.dimension, self.classifier = vocab_size, dimension, classifier
        self.train_embeddings, self.values, self.norm, self.residual = train_embeddings, values, norm, residual
        self.mlp, self.heads, self.layers, self.positions = mlp, heads, layers, positions
        self.max_positions, self.init_scale = max_positions, init_scale
        self.num_hidden_layers, self.num_attention_heads, self.hidden_size = layers, heads, dimension
        kwargs.setdefault("tie_word_embeddings", False)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, None)
        super().__init__(**kwargs)

    @property
    def max_position_embeddings(self) -> int | None:
        """The longest sequence; None without positions, where any is taken."""
        return None if self.positions == "none" else self.max_positions


def rotary_frequencies(half: int) -> torch.Tensor:
    """Angle per position of each rotated pair of channels: [half] float64, from 1 down to about .01."""
    return 100.0 ** (-torch.arange(half, dtype=torch.float64) / max(half, 1))


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of vectors [..., L, d] at positions [..., L]; an odd last channel stays as it is."""
    half = x.shape[-1] // 2
    frequency = rotary_frequencies(half).to(x)
    angle = positions.to(x.dtype)[..., None] * frequency  # [..., L, half]
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)
