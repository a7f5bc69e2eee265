"""The config of a chain as a model of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from harness.hf.escape_law import INSIDE

KINDS = ("context-logit", "suffix", "escape")
SIZES = ("rows", "top", "width", "nodes", "pairs", "left", "heads")


class CCMCConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a chain is, but for its tables, which are in the safetensors file.

    Args:
        vocab_size: V.
        law: `context-logit`, `suffix`, or `escape`: a surrogate within the context that leaves it now and then.
        weights: of a context logit, by the names of `ccmc.context_logit.STATISTICS`; `base` is that of log P0. Of an
            escape: those of `EscapeLaw`.
        closed: only tokens of the context can come: every other token gets -inf.
        offset: of a context logit, as of `ccmc.ContextLogit`.
        tables: shapes of P0: `rows` and `top` of what is kept, `width` and `nodes` of its logits (0: none are kept). Of
            an escape: `pairs` of tokens with a base logit, and `left` with a mass elsewhere; of a mixture the `heads`,
            and the `rows` and `width` of what they make of tokens.
        cap: soft cap of the logits of P0; 0: none.
        about: where it comes from and what its tables leave out, in words.
        inside: of an escape: how the context is weighed, one of `INSIDE` (see `EscapeLaw`).
        escape: of an escape, for readers: `rate`, how often it leaves its context, the mean over its training texts,
            and `known`, how many tokens have a mass of their own there; all others share one.
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
        inside: str | None = None,
        escape: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if law not in KINDS:
            raise ValueError(f"law must be {' or '.join(KINDS)}, got {law!r}")
        if (law == "escape") != (inside in INSIDE):
            raise ValueError(f"the law escape, and no other, has inside: {' or '.join(INSIDE)}, got {inside!r}")
        self.vocab_size, self.law, self.closed, self.offset = int(vocab_size), law, bool(closed), offset
        self.weights = {str(name): float(value) for name, value in (weights or {}).items()}
        self.tables = {name: int((tables or {}).get(name, 0)) for name in SIZES}
        self.cap, self.about, self.inside, self.escape = float(cap), about, inside, dict(escape or {})
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
