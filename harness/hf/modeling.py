"""A chain as a causal language model: `generate`, beams, pipelines and evaluation harnesses take it as any other.

The logits are log probabilities. What a context has made so far is kept in a `ContextCache`, a reader a text, so that a
step costs O(types of the context) and one pass over the vocabulary; readers work on the processor, wherever the logits
are wanted. Tables are kept as the bits of 64-bit numbers, whatever precision the rest of a program is cast to.

Source: Ildiz et al. 2024 for the closed chain; the open ones are this project's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ccmc import CCMC, BaseTransition, ContextLogit, ContextReader
from ccmc.base import Factors
from harness.hf.configuration import CCMCConfig
from harness.hf.escape_law import Elsewhere, EscapeLaw, EscapeReader, Forms, Rows
from harness.surrogates._fitting.cut_walks import LawReader
from harness.surrogates.vocabulary.suffix import LENGTHS, SuffixReader

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
FORMS = ("weights", "queries", "keys", "softcap")  # tables of a mixture, beside the places of tokens


class Reader(LawReader, Protocol):
    """A growing context that can be copied, as beams need it."""

    def __len__(self) -> int: ...
    def copy(self) -> Reader: ...


class ContextCache:
    """What the texts of a batch have made so far: one reader each."""

    is_compileable = False

    def __init__(self, readers: list[Reader | None], seen: int = 0) -> None:
        self.readers, self.seen = readers, seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, padding included."""
        return self.seen

    def get_max_cache_shape(self) -> int:
        """There is no limit."""
        return -1

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Go on with these beams; one that is taken twice is copied."""
        chosen, taken = beam_idx.tolist(), set()
        readers = []
        for index in chosen:
            reader = self.readers[index]
            readers.append(reader.copy() if reader is not None and index in taken else reader)
            taken.add(index)
        self.readers = readers


def _bits(values: Any) -> torch.Tensor:
    """Numbers of 64 bits as a tensor that no cast touches."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64).view(np.int64).copy())


def _floats(buffer: torch.Tensor) -> FloatArray:
    found: FloatArray = buffer.detach().cpu().numpy().view(np.float64).copy()
    return found


class CCMCForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A chain over a vocabulary.

    `from_chain`, `from_context_logit`, `from_suffix` and `from_escape` make one; `save_pretrained` writes config.json
    and safetensors.
    """

    config_class = CCMCConfig
    base_model_prefix = "ccmc"
    main_input_name = "input_ids"
    _supports_cache_class = False
    _is_stateful = True
    _tied_weights_keys: Any = None

    def __init__(self, config: CCMCConfig) -> None:
        super().__init__(config)
        shape, vocab = config.tables, config.vocab_size
        sizes: dict[str, tuple[int, ...]] = {"unigram_bits": (vocab,)}
        if config.law == "suffix":
            sizes["mixture_bits"] = (len(LENGTHS) + 1, 3)
        elif config.law == "escape":
            whole = ("theta_common_bits", "left_common_bits", "rest_bits", "rate_bits", "known")
            sizes = dict.fromkeys(whole, (vocab,))
            for name, count in (("theta", shape["pairs"]), ("left", shape["left"])):
                sizes |= {f"{name}_starts": (vocab + 1,), f"{name}_tokens": (count,), f"{name}_bits": (count,)}
            if config.inside == "mixture":
                table = (shape["heads"], shape["rows"], shape["width"])
                sizes |= {"place": (vocab,), "weights_bits": table[:1], "softcap_bits": table[:1],
                          "queries_bits": table, "keys_bits": table}  # fmt: skip
        else:
            sizes |= {"row": (vocab,), "tokens": (shape["rows"], shape["top"]),
                      "log_p_bits": (shape["rows"], shape["top"]), "log_scale_bits": (shape["rows"],)}  # fmt: skip
        if shape["width"] and config.law == "context-logit":
            sizes |= {"bias_bits": (vocab,), "log_norm_bits": (shape["rows"],),
                      "log_sums_bits": (shape["rows"], shape["nodes"])}  # fmt: skip
            for name, count in (("hidden", shape["rows"]), ("keys", vocab)):
                self.register_buffer(f"{name}_bits", torch.zeros(count, shape["width"], dtype=torch.int32))
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)  # so that the model has a device and a dtype
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Tables are given, never drawn."""

    @classmethod
    def from_context_logit(cls, model: ContextLogit, about: str = "", **settings: Any) -> CCMCForCausalLM:
        """A context logit as a model.

        Args:
            model: with its base transitions.
            about: where it comes from.
            settings: of the config, such as `eos_token_id`.
        """
        base, factors = model.base, model.base.factors
        rows, top = base.tokens.shape
        tables = {"rows": rows, "top": top, "width": 0 if factors is None else factors.keys.shape[1],
                  "nodes": 0 if factors is None else factors.log_sums.shape[1]}  # fmt: skip
        weights = {"base": 1.0, **dict(model.weights)}
        cap = 0.0 if factors is None else factors.cap
        made = cls(CCMCConfig(base.vocab_size, "context-logit", weights, model.closed, model.offset, tables, cap,
                              about, **settings))  # fmt: skip
        kept: dict[str, torch.Tensor] = {
            "row": torch.from_numpy(base.row.astype(np.int64)),
            "tokens": torch.from_numpy(base.tokens.astype(np.int64)),
            "log_p_bits": _bits(base.log_p), "log_scale_bits": _bits(base.log_scale),
            "unigram_bits": _bits(base.log_unigram),
        }  # fmt: skip
        if factors is not None:
            kept |= {"bias_bits": _bits(factors.bias), "log_norm_bits": _bits(factors.log_norm),
                     "log_sums_bits": _bits(factors.log_sums)}  # fmt: skip
            for name, values in (("hidden", factors.hidden), ("keys", factors.keys)):
                kept[f"{name}_bits"] = torch.from_numpy(np.ascontiguousarray(values).view(np.int32).copy())
        made._fill(kept)
        return made

    @classmethod
    def from_chain(cls, chain: CCMC, open_weight: float | None = None, about: str = "", **settings: Any) -> Any:
        """A context-conditioned Markov chain as a model.

        Args:
            chain: over the whole vocabulary.
            open_weight: b0, log odds by which tokens of the context are preferred in the open form, whose law has every
                token: p_j proportional to P_ij (1 outside the context, m_j exp(b0) inside). None: closed, the chain
                itself.
            about, settings: as of `from_context_logit`.
        """
        base = BaseTransition.from_transition(chain.transition)
        weights = {"log-count": 1.0} | ({} if open_weight is None else {"present": float(open_weight)})
        return cls.from_context_logit(ContextLogit(weights, base, open_weight is None), about, **settings)

    @classmethod
    def from_suffix(cls, unigram: FloatArray, weights: FloatArray, about: str = "", **settings: Any) -> CCMCForCausalLM:
        """The surrogate `suffix` as a model.

        Args:
            unigram: [V] positive.
            weights: [lengths of matches, 3] of followers, cache and unigram.
            about, settings: as of `from_context_logit`.
        """
        made = cls(CCMCConfig(len(unigram), "suffix", about=about, **settings))
        made._fill({"unigram_bits": _bits(np.log(unigram)), "mixture_bits": _bits(weights)})
        return made

    @classmethod
    def from_escape(cls, law: EscapeLaw, about: str = "", **settings: Any) -> CCMCForCausalLM:
        """A surrogate within the context, with its escape, as a model.

        Args:
            law: over the whole vocabulary.
            about, settings: as of `from_context_logit`.
        """
        left, theta = law.elsewhere.mass, law.theta
        if theta is None:
            nothing = np.zeros(law.vocab_size)
            theta = Rows(nothing, sparse.csr_array((law.vocab_size, law.vocab_size)))
        tables = {"pairs": theta.own.nnz, "left": left.own.nnz}
        if (forms := law.forms) is not None:
            tables |= dict(zip(("heads", "rows", "width"), forms.keys.shape, strict=True))
        made = cls(CCMCConfig(law.vocab_size, "escape", law.weights, law.closed, about=about, inside=law.inside,
                              tables=tables, **settings))  # fmt: skip
        kept = {"rest_bits": _bits(law.elsewhere.rest), "rate_bits": _bits(law.rate),
                "known": torch.from_numpy(law.elsewhere.known.astype(np.int64))}  # fmt: skip
        for name, rows in (("theta", theta), ("left", left)):
            kept |= {f"{name}_common_bits": _bits(rows.common), f"{name}_bits": _bits(rows.own.data)}
            kept |= {f"{name}_starts": torch.from_numpy(rows.own.indptr.astype(np.int64)),
                     f"{name}_tokens": torch.from_numpy(rows.own.indices.astype(np.int64))}  # fmt: skip
        if forms is not None:
            kept["place"] = torch.from_numpy(forms.place.astype(np.int64))
            kept |= {f"{name}_bits": _bits(getattr(forms, name)) for name in FORMS}
        made._fill(kept)
        return made

    def _fill(self, kept: dict[str, torch.Tensor]) -> None:
        for name, values in kept.items():
            getattr(self, name).copy_(values)
        for name in ("context_logit", "escape_law"):
            self.__dict__.pop(name, None)

    @cached_property
    def context_logit(self) -> ContextLogit:
        """The context logit that it is.

        Raises:
            ValueError: it is something else.
        """
        config = self.config
        if config.law != "context-logit":
            raise ValueError(f"a model with the law {config.law} is no context logit")
        factors = None
        if config.tables["width"]:
            hidden, keys = (
                getattr(self, f"{name}_bits").cpu().numpy().view(np.float32).copy() for name in ("hidden", "keys")
            )
            bias, norm, sums = (_floats(getattr(self, f"{name}_bits")) for name in ("bias", "log_norm", "log_sums"))
            factors = Factors(hidden, keys, bias, config.cap, norm, sums)
        base = BaseTransition(
            self.row.cpu().numpy(), self.tokens.cpu().numpy().astype(np.int32), _floats(self.log_p_bits),
            _floats(self.log_scale_bits), _floats(self.unigram_bits), factors,
        )  # fmt: skip
        return ContextLogit(dict(config.weights), base, config.closed, config.offset)

    @cached_property
    def escape_law(self) -> EscapeLaw:
        """The surrogate with its escape that it is.

        Raises:
            ValueError: it is something else.
        """
        config = self.config
        if config.law != "escape":
            raise ValueError(f"a model with the law {config.law} has no escape")
        size, made = config.vocab_size, {}
        for name in ("theta", "left"):
            tokens, starts = (getattr(self, f"{name}_{part}").cpu().numpy() for part in ("tokens", "starts"))
            own = sparse.csr_array((_floats(getattr(self, f"{name}_bits")), tokens, starts), shape=(size, size))
            made[name] = Rows(_floats(getattr(self, f"{name}_common_bits")), own)
        elsewhere = Elsewhere(made["left"], _floats(self.rest_bits), self.known.cpu().numpy().astype(bool))
        rate = _floats(self.rate_bits)
        forms = None
        if config.inside == "mixture":
            forms = Forms(self.place.cpu().numpy(), *(_floats(getattr(self, f"{name}_bits")) for name in FORMS))
        return EscapeLaw(config.inside, dict(config.weights), made["theta"], rate, elsewhere, config.closed, forms)

    def reader(self) -> Reader:
        """A reader of an empty context."""
        if self.config.law == "escape":
            return EscapeReader(self.escape_law)
        if self.config.law == "suffix":
            return SuffixReader(np.exp(_floats(self.unigram_bits)), _floats(self.mixture_bits))
        return ContextReader(self.context_logit)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: ContextCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **unused: Any,
    ) -> CausalLMOutputWithPast:
        """Log probabilities of the next token after every position.

        Args:
            input_ids: [n, T]; with a cache, those that come next.
            attention_mask: [n, tokens so far + T], 0 at padding, which is not read.
            past_key_values: what the texts have made so far.
            labels: [n, T] as of all models of transformers: shifted here, -100 where nothing is scored.
            use_cache: give the cache back.
            logits_to_keep: of the last so many positions; 0: all.

        Returns:
            logits [n, positions, V]; 0 where a position is padding and nothing came before it. `loss` in nats.

        Raises:
            ValueError: a cache of another number of texts, or positions to keep that are not a number.
        """
        n, length = input_ids.shape
        if not isinstance(logits_to_keep, int):
            raise ValueError("logits_to_keep is a number of last positions here")
        cache = ContextCache([None] * n) if past_key_values is None else past_key_values
        if len(cache.readers) != n:
            raise ValueError(f"the cache is of {len(cache.readers)} texts, and {n} were given")
        keep = length if logits_to_keep == 0 or labels is not None else min(logits_to_keep, length)
        logits = torch.zeros(n, keep, self.config.vocab_size, device=input_ids.device)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -length:]
        for text in range(n):
            places = np.flatnonzero(real[text].cpu().numpy())
            if not len(places):
                continue
            reader = cache.readers[text] or self.reader()
            laws = int((places >= length - keep).sum())
            found = torch.from_numpy(reader.read(input_ids[text].cpu().numpy()[places], laws))
            at = torch.from_numpy(places[len(places) - laws :] - (length - keep))
            logits[text, at.to(logits.device)] = found.to(logits)
            cache.readers[text] = reader
        cache.seen += length
        loss = None
        if labels is not None:
            wanted = labels[:, 1:].to(logits.device)
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache if use_cache is not False else None
        )

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, past_key_values: ContextCache | None = None,
        attention_mask: torch.Tensor | None = None, use_cache: bool | None = True, **unused: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """What has not been read yet."""
        done = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "input_ids": input_ids[:, done:], "past_key_values": past_key_values, "attention_mask": attention_mask,
            "use_cache": use_cache, "logits_to_keep": 1,
        }  # fmt: skip

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """It makes its own cache."""
        return False

    def get_input_embeddings(self) -> nn.Module | None:
        """A chain has none."""
        return None

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Refuse: a chain has none."""
        raise NotImplementedError("a chain has no embeddings")


AutoModelForCausalLM.register(CCMCConfig, CCMCForCausalLM, exist_ok=True)
