"""The config of a chain as a model of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

KINDS = ("context-logit", "suffix")


class CCMCConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a chain is, but for its tables, which are in the safetensors file.

    Args:
        vocab_size: V.
        law: `context-logit` or `suffix`.
        weights: of a context logit, by the names of `ccmc.context_logit.STATISTICS`; `base` is that of log P0.
        closed: only tokens of the context can come: every other token gets -inf.
        offset: of a context logit, as of `ccmc.ContextLogit`.
        tables: shapes of P0: `rows` and `top` of what is kept, `width` and `nodes` of its logits (0: none are kept).
        cap: soft cap of the logits of P0; 0: none.
        about: where it comes from and what its tables leave out, in words.
    """

    model_type = "ccmc"

    def __init__(  # transformers takes each setting of a config as an argument
        self,
        vocab_size: int = 2,
        law: str = "context-logit",
        weights: Mapping[str, float] | None = None,
        closed: bool = False,
        offset: str = "none",
        tables: Mapping[str, int] | None = None,
        cap: float = 0.0,
        about: str = "",
        **kwargs: Any,
    ) -> None:
        if law not in KINDS:
            raise ValueError(f"law must be {' or '.join(KINDS)}, got {law!r}")
        self.vocab_size, self.law, self.closed, self.offset = int(vocab_size), law, bool(closed), offset
        self.weights = {str(name): float(value) for name, value in (weights or {}).items()}
        self.tables = {name: int((tables or {}).get(name, 0)) for name in ("rows", "top", "width", "nodes")}
        self.cap, self.about = float(cap), about
        self.num_hidden_layers, self.max_position_embeddings = 0, 2048
        kwargs.setdefault("tie_word_embeddings", False)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, None)
        super().__init__(**kwargs)

    @property
    def open(self) -> bool:
        """Has every token of the vocabulary some probability?"""
        return not self.closed


AutoConfig.register(CCMCConfig.model_type, CCMCConfig, exist_ok=True)
