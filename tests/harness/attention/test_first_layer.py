"""First-layer heads are position-aware chains: `pccmc-weights` is exact there, and only when it is right.

The truth is the attention that eager transformers returns, so nothing of the capture takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64, in_float64

from harness.attention import capture
from harness.attention.capture import LayerCall
from harness.attention.eager import eager_rows
from harness.attention.static_inputs import StaticHeads, embedding_inputs, static_heads
from harness.attention.windows import head_text
from harness.config.load import load_config
from harness.data.prompts import load_prompts
from harness.data.texts import LocalVocabulary
from harness.measures.fidelity import kl
from harness.models import loading, tokenizers
from harness.surrogates.heads.counts import Counts
from harness.surrogates.heads.pccmc_weights import PCCMCWeights


@pytest.fixture(autouse=True)
def in_doubles() -> Iterator[None]:
    """These tests are about algorithms: models and everything they are compared with are in float64."""
    with in_float64():
        yield


Change = Callable[[StaticHeads], StaticHeads]


def unchanged(heads: StaticHeads) -> StaticHeads:
    return heads


@dataclass(frozen=True)
class Case:
    """A model, texts, and what eager attention of its first layer gives over them, the sink left out."""

    model: Any
    texts: list[Any]
    truth: list[torch.Tensor]


def make_case(model: Any, texts: list[Any]) -> Case:
    rows = [eager_rows(model, ids)[0].double()[:, 1:, 1:] for ids in texts]
    return Case(model, texts, [row / row.sum(-1, keepdim=True) for row in rows])


def first_layer_kl(of: Case, change: Change) -> tuple[float, float]:
    """Largest KL of any query and head under pccmc-weights; mean KL under counts."""
    model, texts = of.model, of.texts
    vocabulary = LocalVocabulary(texts)
    calls: list[LayerCall] = []
    capture.listen(model, max(texts, key=len), [0], calls.append)
    embedding = embedding_inputs(model, vocabulary.ids, np.array([1]))
    heads = change(static_heads(model, calls[0], vocabulary.ids, embedding))
    worst, baseline = 0.0, []
    for ids, rows in zip(texts, of.truth, strict=True):
        text = head_text(ids, vocabulary, heads.call.window)
        truth = text.per_token(rows.numpy())
        for surrogate in (PCCMCWeights(heads), Counts()):
            predicted = np.broadcast_to(surrogate.predict(text), truth.shape)
            values = kl(truth.reshape(-1, truth.shape[-1]), predicted.reshape(-1, truth.shape[-1]))
            if isinstance(surrogate, Counts):
                baseline.append(float(values.mean()))
            else:
                worst = max(worst, float(values.max()))
    return worst, float(np.mean(baseline))


def check_first_layer(of: Case, change: Change) -> None:
    worst, baseline = first_layer_kl(of, change)
    assert baseline >= 0.3
    assert worst <= FLOAT64


@pytest.fixture(scope="session")
def real(smollm2: Any) -> Case:
    model = loading.load_model(smollm2.path, "cpu").double()
    tokenizer = tokenizers.load_tokenizer(smollm2.path)
    prompts = [p for p in load_prompts(load_config("quickstart")) if p.split == "held_out"][::4]
    return make_case(model, [small_models.read(tokenizer, p.text) for p in prompts])


@pytest.fixture(scope="session")
def made() -> dict[str, Case]:
    """Models that were built already, by family."""
    return {}


# scales of the perturbation at which attention is far from counts, and scores still fit float32
SCALES = {"gemma2": 0.8, "olmo2": 0.6, "qwen3": 0.6, "stablelm": 0.6, "gemma3": 0.6, "gpt_neo": 0.3}
CASES = [pytest.param("smollm2", marks=pytest.mark.weights), *families.FAMILIES]


def case(name: str, request: pytest.FixtureRequest) -> Case:
    if name == "smollm2":
        found: Case = request.getfixturevalue("real")
        return found
    made: dict[str, Case] = request.getfixturevalue("made")
    if name not in made:
        model = families.build(families.FAMILIES[name], SCALES.get(name, 0.5)).double()
        made[name] = make_case(model, [small_models.random_ids(60, seed) for seed in range(3)])
    return made[name]


@pytest.mark.parametrize("name", CASES)
def test_first_layer_heads_are_matched(name: str, request: pytest.FixtureRequest) -> None:
    check_first_layer(case(name, request), unchanged)


def turned(change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Change:
    """The layer called with another rotation."""

    def changed(heads: StaticHeads) -> StaticHeads:
        options = dict(heads.call.options)
        options["position_embeddings"] = change(*options["position_embeddings"])
        return replace(heads, call=replace(heads.call, options=options))

    return changed


no_rotation = turned(lambda cos, sin: (cos[:, :1].expand_as(cos), sin[:, :1].expand_as(sin)))
wrong_way = turned(lambda cos, sin: (cos, -sin))
half_speed = turned(lambda cos, sin: (cos.repeat_interleave(2, 1), sin.repeat_interleave(2, 1)))


@dataclass(frozen=True)
class Misread(StaticHeads):
    """Heads whose calls are misread in one way."""

    change: Callable[[LayerCall], LayerCall] = lambda call: call

    def of_text(self, tokens: Any) -> LayerCall:
        return self.change(super().of_text(tokens))


def misread(change: Callable[[LayerCall], LayerCall]) -> Change:
    return lambda heads: Misread(
        heads.model, heads.call, heads.ids, heads.inputs, heads.effect, heads.at_start, change=change
    )


def interleaved(call: LayerCall) -> LayerCall:
    """Query head h on key head h mod G instead of consecutive query heads sharing one."""
    heads, groups = len(call.query), len(call.key)
    return replace(call, key=call.key[torch.arange(heads) % groups])


def one_key_head(call: LayerCall) -> LayerCall:
    return replace(call, key=call.key[:1])


def no_cap(call: LayerCall) -> LayerCall:
    return replace(call, softcap=None)


def no_window(heads: StaticHeads) -> StaticHeads:
    """The text met as a whole where the layer sees a window of it."""
    return replace(heads, call=replace(heads.call, window=None))


@dataclass(frozen=True)
class AdditivePositions(StaticHeads):
    """Token mean plus position effect instead of the joint input."""

    def of_text(self, tokens: Any) -> LayerCall:
        from harness.attention.static_inputs import first_layer_inputs

        ids = torch.as_tensor(self.ids)
        places = torch.arange(len(tokens))
        every = first_layer_inputs(self.model, ids[:, None].expand(-1, len(places)), places[None].expand(len(ids), -1))
        mean = every.mean(dim=(0, 1))
        hidden = every.mean(dim=1)[torch.as_tensor(tokens)] + every.mean(dim=0) - mean
        return capture.ask(self.model, self.call, hidden, np.arange(len(tokens)))


def additive(heads: StaticHeads) -> StaticHeads:
    return AdditivePositions(heads.model, heads.call, heads.ids, heads.inputs, heads.effect, heads.at_start)


ROTARY = [
    "llama",
    "gpt_neox",
    "mistral",
    "qwen2",
    "qwen3",
    "phi",
    "phi3",
    "stablelm",
    "olmo2",
    "gemma2",
    "gemma3",
    "falcon",
]
GROUPED = ["llama", "mistral", "qwen2", "qwen3", "phi3", "stablelm", "olmo2", "gemma2", "gemma3"]
MUTANTS = [
    *((change, name) for change in (no_rotation, wrong_way, half_speed) for name in (*ROTARY, "smollm2")),
    *((misread(change), name) for change in (interleaved, one_key_head) for name in (*GROUPED, "smollm2")),
    (misread(no_cap), "gemma2"),
    *((no_window, name) for name in ("mistral", "gemma2", "gemma3", "gpt_neo")),
    *((additive, name) for name in ("gpt2", "opt", "gpt_neo")),
]
LABELS = (
    [f"{change}-{name}" for change in ("no_rotation", "wrong_way", "half_speed") for name in (*ROTARY, "smollm2")]
    + [f"{change}-{name}" for change in ("interleaved", "one_key_head") for name in (*GROUPED, "smollm2")]
    + ["no_cap-gemma2"]
    + [f"no_window-{name}" for name in ("mistral", "gemma2", "gemma3", "gpt_neo")]
    + [f"additive-{name}" for name in ("gpt2", "opt", "gpt_neo")]
)


@pytest.mark.weights
@pytest.mark.parametrize(("change", "name"), MUTANTS, ids=LABELS)
def test_a_head_that_is_read_wrongly_is_seen(change: Change, name: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(AssertionError):
        check_first_layer(case(name, request), change)


@pytest.mark.parametrize("name", ["qwen3", "olmo2", "stablelm", "gemma3"])
def test_leaving_out_the_norm_of_queries_and_keys_is_seen(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = case(name, request)
    original = capture.ask

    def without_norms(model: Any, call: LayerCall, hidden: torch.Tensor, positions: Any) -> LayerCall:
        norms = {
            n: m for n, m in call.module.named_children() if n in {"q_norm", "k_norm", "q_layernorm", "k_layernorm"}
        }
        assert len(norms) == 2
        for norm in norms:
            setattr(call.module, norm, torch.nn.Identity())
        try:
            return original(model, call, hidden, positions)
        finally:
            for norm, module in norms.items():
                setattr(call.module, norm, module)

    monkeypatch.setattr("harness.attention.static_inputs.ask", without_norms)
    with pytest.raises(AssertionError):
        check_first_layer(of, unchanged)
