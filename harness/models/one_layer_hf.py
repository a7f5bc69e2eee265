"""The one-layer attention model as a `transformers.PreTrainedModel`, and the ladder of models that grow out of it.

With the default config it is the paper's model: scores e_l^T W e_L, values e_l, classifier C = pinv(E)^T, probabilities
masked to the context. Each further setting leaves one assumption: a free classifier, value and output matrices,
LayerNorm, a residual stream, an MLP, several heads, several layers, positions. Logits are log-probabilities up to a
constant, -inf outside the context of a tied model.

Source: Ildiz et al. 2024 for the model with the default config.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from harness.models.one_layer_config import OneLayerConfig, rotate


class PairScores(nn.Module):
    """Log attention of one layer, from H score matrices W_h.

    The harness listens here as it does to the attention of other models: `_attn` gets all queries and keys.
    """

    def __init__(self, config: OneLayerConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.W = nn.Parameter(torch.zeros(config.heads, config.dimension, config.dimension))  # key left, query right
        if config.positions == "additive":
            self.distance = nn.Parameter(torch.zeros(config.max_positions))
        self.scale_attn = math.sqrt(config.dimension) if config.norm or config.layers > 1 else 1.0

    def forward(
        self,
        hidden_states: torch.Tensor,
        queries: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Log attention [n, H, q, L] over inputs [n, L, d].

        Args:
            hidden_states: [n, L, d].
            queries: [q] the positions that ask; None for all.
            attention_mask: [n, L], False at padding, which only padding itself sees.
            position_ids: [1 or n, L] where inputs stand, for rotation; None for 0 to L - 1.
        """
        length = hidden_states.shape[1]
        places = torch.arange(length, device=hidden_states.device)
        queries = places if queries is None else queries
        keys, asked = self.keys_and_queries(hidden_states, queries, places if position_ids is None else position_ids)
        scores = self.adjusted(self._attn(asked[:, None].expand(-1, keys.shape[1], -1, -1), keys), queries)
        hidden = self.gaps(queries, length) < 0
        if attention_mask is not None:
            hidden = (hidden | (~attention_mask[:, None, :] & (self.gaps(queries, length) != 0)))[:, None]
        return torch.log_softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)

    def _attn(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Queries [n, H, q, d], those of all heads alike, times keys [n, H, L, d], not scaled."""
        return torch.einsum("nhle,nqe->nhql", key, query[:, 0])

    def of_last(self, tokens: torch.Tensor, every: torch.Tensor) -> torch.Tensor:
        """Log attention [n, H, 1, L] of the last position, where inputs depend on token and position only.

        There are no more than K x K x L different scores: they are made once and looked up.

        Args:
            tokens: [n, L].
            every: [K, L, d] the input of each token at each position.
        """
        K, length = every.shape[:2]
        places = torch.arange(length, device=tokens.device)
        last = places[-1:]
        keys, asked = self.keys_and_queries(every, last, places)
        table = torch.einsum("khle,jqe->jklhq", keys, asked).reshape(K * K * length, -1)  # [.., H]
        index = (tokens[:, -1:] * K + tokens) * length + places
        scores = nn.functional.embedding(index, table).movedim(-1, 1)[:, :, None]  # [n, H, 1, L]
        return torch.log_softmax(self.adjusted(scores, last), dim=-1)

    def keys_and_queries(
        self, x: torch.Tensor, queries: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [n, H, L, d] and queries [n, q, d], turned by their places [L] or [n, L] where positions are rotary."""
        keys, asked = torch.einsum("nld,hde->nhle", x, self.W), x[:, queries]
        if self.config.positions == "rotary":
            # score (W^T x_l) . x_L with both rotated: a function of the two inputs and of their distance
            return rotate(keys, places.unsqueeze(-2)), rotate(asked, places[..., queries])
        return keys, asked

    def adjusted(self, scores: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Scores [n, H, q, L] with their scale and what their distance adds."""
        if self.scale_attn != 1.0:
            scores = scores / self.scale_attn
        if self.config.positions == "additive":
            gap = self.gaps(queries, scores.shape[-1])
            scores = scores + self.distance[gap.clamp(0, self.config.max_positions - 1)]
        return scores

    @staticmethod
    def gaps(queries: torch.Tensor, length: int) -> torch.Tensor:
        """[q, L] how far each position lies before each query."""
        return queries[:, None] - torch.arange(length, device=queries.device)[None, :]


class AttentionLayer(nn.Module):
    """One layer: H heads, then, where the config says so, an MLP."""

    def __init__(self, config: OneLayerConfig, layer: int = 0) -> None:
        super().__init__()
        self.config = config
        d, heads = config.dimension, config.heads
        if config.values:
            self.V = nn.Parameter(torch.zeros(heads, d, d // heads))
            self.O = nn.Parameter(torch.zeros(heads, d // heads, d))
        if config.norm:
            self.norm = nn.LayerNorm(d)
        if config.mlp:
            self.mlp_norm = nn.LayerNorm(d) if config.norm else nn.Identity()
            self.mlp = nn.Sequential(nn.Linear(d, config.mlp), nn.GELU(), nn.Linear(config.mlp, d))
        self.scores = PairScores(config, layer)

    @property
    def W(self) -> nn.Parameter:  # noqa: N802
        """[H, d, d] the score matrices."""
        return self.scores.W

    def forward(
        self, h: torch.Tensor, queries: torch.Tensor, real: torch.Tensor | None, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Streams [n, L, d] -> streams at the query positions [n, q, d]."""
        x = self.norm(h) if self.config.norm else h
        attention = torch.exp(self.scores(x, queries, real, position_ids=places))
        if self.config.values:
            read = torch.einsum("nld,hde->nhle", x, self.V)
            out = torch.einsum("nhql,nhle,hed->nqd", attention, read, self.O)
        else:
            out = attention[:, 0] @ x
        h = h[:, queries] + out if self.config.residual else out
        if self.config.mlp:
            change = self.mlp(self.mlp_norm(h))
            h = h + change if self.config.residual else change
        return h


class OneLayerForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A model of the ladder; the default config is the paper's one-layer attention."""

    config_class = OneLayerConfig
    base_model_prefix = "one_layer"
    _supports_cache_class = False
    _tied_weights_keys: Any = None

    def __init__(self, config: OneLayerConfig) -> None:
        super().__init__(config)
        K, d = config.vocab_size, config.dimension
        self.E = nn.Parameter(torch.zeros(K, d), requires_grad=config.train_embeddings)  # [K, d]
        if config.positions == "learned":
            self.U = nn.Parameter(torch.zeros(config.max_positions, d))
        self.layers = nn.ModuleList(AttentionLayer(config, index) for index in range(config.layers))
        if config.classifier == "free":
            self.final_norm = nn.LayerNorm(d) if config.norm else nn.Identity()
            self.C = nn.Linear(d, K)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        config = self.config
        d = config.dimension
        if isinstance(module, OneLayerForCausalLM):
            nn.init.normal_(module.E, std=d**-0.5)
            if config.positions == "learned":
                nn.init.normal_(module.U, std=config.init_scale * d**-0.5)
        elif isinstance(module, PairScores):
            nn.init.normal_(module.W, std=config.init_scale / d)
            if config.positions == "additive":
                nn.init.zeros_(module.distance)
        elif isinstance(module, AttentionLayer) and config.values:
            nn.init.normal_(module.V, std=d**-0.5)
            nn.init.normal_(module.O, std=(d // config.heads) ** -0.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings E as a module of their own, to be read."""
        return nn.Embedding.from_pretrained(self.E.detach())  # type: ignore[no-untyped-call,no-any-return]

    def log_attention(
        self,
        tokens: torch.Tensor,
        keep: int = 0,
        real: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Log attention of the first layer, [n, H, q, L]; of the last `keep` queries, or of all."""
        layer: Any = self.layers[0]
        K, (n, length) = self.config.vocab_size, tokens.shape
        one_query = keep == 1 and real is None and position_ids is None and 4 * n >= K * K
        if one_query:
            tokens_everywhere = torch.arange(K, device=tokens.device)[:, None].expand(K, length)
        x = self._inputs(tokens_everywhere if one_query else tokens, real, position_ids)
        x = layer.norm(x) if self.config.norm else x
        found: torch.Tensor = (
            layer.scores.of_last(tokens, x)
            if one_query
            else layer.scores(x, self._queries(tokens, keep), real, position_ids=position_ids)
        )
        return found

    def _queries(self, tokens: torch.Tensor, keep: int) -> torch.Tensor:
        length = tokens.shape[1]
        return torch.arange(length - keep if keep else 0, length, device=tokens.device)

    def _inputs(
        self, tokens: torch.Tensor, real: torch.Tensor | None = None, position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = self.E[tokens]
        if self.config.positions != "none" and tokens.shape[1] > self.config.max_positions:
            raise ValueError(f"{tokens.shape[1]} tokens are more than max_positions {self.config.max_positions}")
        if self.config.positions != "learned":
            return x
        if position_ids is not None:
            return x + self.U[position_ids]
        if real is None:
            return x + self.U[: tokens.shape[1]]
        return x + self.U[(real.cumsum(1) - 1).clamp(min=0)]  # positions count from the first real token

    def raw_output(
        self,
        tokens: torch.Tensor,
        keep: int = 0,
        real: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What C = pinv(E)^T makes of the attention output, before anything is clipped or masked: [n, q, K]."""
        attention = torch.exp(self.log_attention(tokens, keep, real, position_ids))[:, 0]
        raw: torch.Tensor = (attention @ self.E[tokens]) @ torch.linalg.pinv(self.E)
        return raw

    def _tied_logits(
        self, tokens: torch.Tensor, keep: int, real: torch.Tensor | None, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        queries = self._queries(tokens, keep)
        if self.config.dimension < self.config.vocab_size:
            held = nn.functional.one_hot(tokens, self.config.vocab_size)
            held = held if real is None else held * real[:, :, None]
            seen = held.cumsum(1)[:, queries] > 0
            clipped = self.raw_output(tokens, keep, real, position_ids).clamp(min=0.0) * seen
            return torch.log(clipped)
        log_attention = self.log_attention(tokens, keep, real, position_ids)[:, 0]  # [n, q, L]
        top = log_attention.max(dim=-1, keepdim=True).values
        mass = torch.zeros(*log_attention.shape[:2], self.config.vocab_size, dtype=top.dtype, device=top.device)
        index = tokens[:, None, :].expand(-1, log_attention.shape[1], -1)
        mass = mass.scatter_add(2, index, torch.exp(log_attention - top))
        # log 0 has no gradient, and no loss needs it
        return torch.where(mass > 0, torch.log(mass.clamp(min=torch.finfo(mass.dtype).tiny)) + top, -torch.inf)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        position_ids: torch.Tensor | None = None,
        output_attentions: bool = False,
        **unused: Any,
    ) -> CausalLMOutput:
        """Next-token logits after every position.

        Args:
            input_ids: [n, L].
            attention_mask: [n, L], 0 at padding, which is on the left.
            labels: [n, L] next tokens to score, -100 where none; gives a loss in nats per scored token.
            logits_to_keep: only so many last positions, 0 for all.
            position_ids: [1 or n, L] where tokens stand; None for 0 to L - 1, counted from the first that is no
                padding.
            output_attentions: give the attention [n, H, L, L] of every layer too.

        Raises:
            ValueError: padding that is not on the left, or more tokens than there are positions.
        """
        real = None
        if attention_mask is not None and not bool((attention_mask != 0).all()):
            real = attention_mask != 0
            if bool((real[:, :-1] & ~real[:, 1:]).any()) or not bool(real[:, -1].all()):
                raise ValueError("the one-layer model takes padding on the left only")
        attentions: list[torch.Tensor] = []
        layers: Any = self.layers if output_attentions else ()
        hooks = [
            layer.scores.register_forward_hook(lambda *heard: attentions.append(torch.exp(heard[2])))
            for layer in layers
        ]
        try:
            logits = self._logits(input_ids, 0 if output_attentions else logits_to_keep, real, position_ids)
        finally:
            for hook in hooks:
                hook.remove()
        logits = logits[:, -logits_to_keep:]
        loss = None
        if labels is not None:
            wanted = labels[:, self._queries(input_ids, logits_to_keep)]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits, attentions=tuple(attentions) or None)

    def _logits(
        self, tokens: torch.Tensor, keep: int, real: torch.Tensor | None, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        if self.config.classifier == "tied":
            return self._tied_logits(tokens, keep, real, position_ids)
        h = self._inputs(tokens, real, position_ids)
        every = torch.arange(tokens.shape[1], device=tokens.device)
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            h = layer(h, self._queries(tokens, keep) if last else every, real, position_ids)
        logits: torch.Tensor = self.C(self.final_norm(h))
        return logits

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **unused: Any
    ) -> dict[str, Any]:
        """The whole context at every step: a reinforced walk remembers everything."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}


AutoConfig.register(OneLayerConfig.model_type, OneLayerConfig)
AutoModelForCausalLM.register(OneLayerConfig, OneLayerForCausalLM)


def integer_tokenizer(vocab_size: int) -> Any:
    """The tokenizer of a model without one: its texts are token ids, 0 to vocab_size - 1, with blanks between them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({str(token): token for token in range(vocab_size)}, unk_token="id"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", clean_up_tokenization_spaces=False)


def from_weights(E: torch.Tensor, W: torch.Tensor, dtype: torch.dtype = torch.float64) -> OneLayerForCausalLM:
    """The paper's model with given embeddings E [K, d] and scores W [d, d]."""
    model: OneLayerForCausalLM = OneLayerForCausalLM(OneLayerConfig(vocab_size=E.shape[0], dimension=E.shape[1]))
    model.to(dtype)
    model.E.data = E.detach().to(dtype).clone()
    layer: Any = model.layers[0]
    layer.W.data = W.detach().to(dtype).clone()[None]
    model.eval()
    return model
