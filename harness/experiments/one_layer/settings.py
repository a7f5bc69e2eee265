"""The settings of the experiment `one-layer`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.config.strict import Strict


class OneLayer(Strict):
    """A one-layer attention model is trained on a teacher chain; chains are read off it and fitted to it."""

    harmless: ClassVar[frozenset[str]] = frozenset({"repetitions", "rollout_seeds"})

    kind: Literal["one-layer"]
    vocab_size: int = Field(default=16, ge=2, le=512, description="tokens K of the teacher chain")
    dimension: int = Field(default=32, ge=1, le=4096, description="embedding dimension d")
    logit_sd: float = Field(default=0.5, gt=0, le=5, description="standard deviation of the teacher's logits")
    observations: int = Field(default=25_600, ge=1, description="observations n that the model is trained on")
    prompt_length: int = Field(default=16, ge=2, le=4096, description="tokens of a prompt")
    repetitions: int = Field(default=8, ge=1, description="each with its own teacher, data and embeddings")
    held_out_prompts: int = Field(default=20_000, ge=1, description="prompts that the excess risk is measured on")
    train_embeddings: bool = Field(default=False, description="train the embeddings too")
    rollout_prompts: int = Field(default=12, ge=2, description="prompts that are continued")
    rollout_steps: int = Field(default=512, ge=32, description="tokens of a continuation")
    rollout_seeds: int = Field(default=3, ge=2, description="continuations of each prompt")
