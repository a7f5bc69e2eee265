"""Rows of replaced heads against those that the surrogates give along a whole text, and what controls and rules do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64, FUNCTION, assert_within, tolerance
from loop_models import Trained, train
from scipy import sparse
from scipy.special import expit

from harness.attention import capture
from harness.attention.blocks import Asked
from harness.attention.log_weights import sink_odds
from harness.attention.loop_terms import EXACT, FLAT, LoopTerms, PairTable, mean_log_odds, uniform
from harness.attention.replacing import Replacement, mean_outputs, replace
from harness.attention.windows import Windows
from harness.core.errors import UsageError
from harness.models.language_model import generate
from harness.surrogates._fitting.buckets import BUCKETS
from harness.surrogates._fitting.sink_fit import SinkFit
from harness.surrogates.base import HeadSurrogate, Ingredients
from harness.surrogates.make import make

pytestmark = pytest.mark.usefixtures("in_doubles")

FITS = ("ccmc-fit", "pccmc-fit", "pccmc-scaled")
SURROGATES = (
    "counts", "distance", "ccmc-weights", "pccmc-weights", "shuffled-weights", "exact-keys", "exact-queries", *FITS
)  # fmt: skip
FAMILIES = ("llama", "gpt2", "gemma2", "gpt_neo", "deepseek_v2")  # rotary, learned, cap and window, scaling, bottleneck


@pytest.fixture(scope="module")
def made() -> dict[str, Trained]:
    """Models by family, trained before the tests turn to float64."""
    return {name: train(name, [0, 1], FITS) for name in (*FAMILIES, "mistral")}


def fitted(of: Trained, name: str, layer: int) -> HeadSurrogate:
    """Fitted; fits with many numbers get random ones instead, so that no term is 0."""
    if name not in FITS:
        return of.fitted(name, layer)
    made: Any = make(name, "heads", Ingredients(0, of.heads[layer]))
    rng, size = np.random.default_rng(layer), len(of.vocabulary)
    made.delta_ = [sparse.random_array((size, size), density=0.3, rng=rng, format="csr") for _ in range(6)]
    made.sink_ = SinkFit(rng.normal(size=6), rng.uniform(0.2, 1.0, 6), rng.normal(size=(6, size)))
    if name in ("pccmc-fit", "pccmc-scaled"):
        made.c_, made.a_, made.b_ = rng.uniform(0.2, 1.0, 6), *rng.normal(size=(2, 6, BUCKETS))
    if name == "pccmc-scaled":
        made.delta_ = [sparse.csr_array((size, size)) for _ in range(6)]
    if name == "pccmc-fit":
        made.effects_ = rng.normal(size=(6, made.features.size)) / 10
    found: HeadSurrogate = made
    return found


def logits(model: Any, ids: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.as_tensor(ids)[None], use_cache=False).logits[0]
    return found


def rows_along(of: Trained, surrogate: HeadSurrogate, layer: int, ids: Any) -> tuple[Any, Any]:
    """[H, T - 1, T - 1] rows without the first position, and [H, T - 1] its log odds or None: block by block."""
    calls: list[Any] = []
    capture.listen(of.model, ids, [layer], calls.append)
    view = Windows(ids, of.vocabulary).seen_by(calls[0]).apart(Asked.of(calls[0]))
    heads, weights, length = len(calls[0].query), surrogate.along(view), len(ids)
    rows, odds = np.zeros((heads, length - 1, length - 1)), np.zeros((heads, length - 1))
    says = True
    for block in view.blocks(None):
        given = weights(block)
        log = given.summed(block)
        log = block.hide(block.spread(log - block.log_counts)) if given.by_token else log
        at = slice(block.start - 1, block.stop - 1)
        rows[:, at, block.low - 1 : block.stop - 1] = torch.softmax(log.double(), 1).transpose(1, 2).numpy()
        found = given.sink_odds if given.sink_odds is not None else sink_odds(given, block)
        says = found is not None
        if found is not None:
            odds[:, at] = block.where_sink_is_seen(found).numpy()
    return rows, odds if says else None


def rows_in_loop(of: Trained, terms: LoopTerms, layer: int, ids: Any, **rule: Any) -> Any:
    found: list[torch.Tensor] = []
    with replace(of.model, [Replacement(layer, terms)], of.vocabulary.ids, **rule) as running:
        running.on_rows = lambda layer, heads, rows: found.append(rows[0])
        logits(of.model, ids)
    return found[0].numpy()


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_along_the_text(family: str, name: str, layer: int, made: dict[str, Trained]) -> None:
    of = made[family]
    surrogate = fitted(of, name, layer)
    ids = np.random.default_rng(9).choice(of.vocabulary.ids, 37)
    levels = np.linspace(-1.0, 1.0, 6)
    found = rows_in_loop(of, surrogate.loop_terms(), layer, ids, levels={layer: levels})
    expected, odds = rows_along(of, surrogate, layer, ids)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=0, atol=FLOAT64)
    np.testing.assert_array_equal(found[:, 0, 0], 1.0)
    rest = found[:, 1:, 1:] / found[:, 1:, 1:].sum(-1, keepdims=True)
    # along a text log counts (at most log 40) and tables of fitted pairs (forms of 2 d numbers) are in float32
    by_token = name in {"ccmc-weights", "shuffled-weights", "ccmc-fit"}
    allowed = FLOAT64 + tolerance(4.0, FUNCTION) * by_token + tolerance(50.0, 32) * (name in FITS)
    assert_within(rest, expected, allowed)
    if name == "counts" or odds is None:
        odds = np.broadcast_to(levels[:, None], (6, 36))
    window = of.heads[layer].call.window
    share = expit(odds)
    share = share if window is None else np.where(np.arange(1, 37) < window, share, 0.0)
    assert_within(found[:, 1:, 0], share, allowed)


@pytest.mark.parametrize("name", ["pccmc-weights", "ccmc-weights", "shuffled-weights"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_unseen_tokens_get_the_fall_back_of_the_vocabulary(family: str, name: str) -> None:
    """In the vocabulary without an occurrence, or outside it: the same input, and the same logits."""
    inside, outside = train(family, [1], more=range(2, 7)), train(family, [1])
    ids, found = small_models.random_ids(38, 5), []
    for of in (inside, outside):
        terms = of.fitted(name, 1).loop_terms()
        with replace(of.model, [Replacement(1, terms)], of.vocabulary.ids) as running:
            found.append(logits(of.model, ids))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=FLOAT64 * float(found[0].abs().max()))
    assert running.seen.kinds == set(ids.tolist()) - set(of.vocabulary.ids.tolist())
    assert running.seen.share == np.mean(~np.isin(ids, of.vocabulary.ids))


@pytest.mark.parametrize("name", [n for n in SURROGATES if n != "counts"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_generation_with_a_cache_is_generation_by_whole_passes(
    family: str, name: str, made: dict[str, Trained]
) -> None:
    of = made[family]
    replaced = [Replacement(layer, fitted(of, name, layer).loop_terms()) for layer in (0, 1)]
    prompts = [small_models.random_ids(n, n).tolist() for n in (4, 19, 11)]
    levels = {layer: np.zeros(6) for layer in (0, 1)}
    with replace(of.model, replaced, of.vocabulary.ids, levels=levels):
        tokenizer = small_models.tokenizer()
        found = generate(of.model, tokenizer, prompts, temperature=None, max_new_tokens=8, seed=0, ignore_eos=True)
        for prompt, continuation in zip(prompts, found, strict=True):
            ids = list(prompt)
            for _ in range(8):
                ids.append(int(logits(of.model, ids)[-1].argmax()))
            assert continuation.tolist() == ids[len(prompt) :]


def test_uniform_rows_are_means_over_visible_keys(made: dict[str, Trained]) -> None:
    of, ids = made["gemma2"], small_models.random_ids(30, 2)
    found = rows_in_loop(of, uniform(6), 0, ids)
    for t in range(30):
        seen = range(max(0, t - 15), t + 1)  # a window of 16
        expected = [1 / len(seen) if s in seen else 0.0 for s in range(30)]
        np.testing.assert_allclose(found[:, t], np.tile(expected, (6, 1)), rtol=0, atol=FLOAT64)


def test_rules_for_the_first_position(made: dict[str, Trained]) -> None:
    of, ids = made["llama"], small_models.random_ids(30, 2)
    levels = mean_log_odds(of.observations[1].sink_odds)
    given = np.concatenate(of.observations[1].sink_odds, axis=1).astype(np.float64)
    np.testing.assert_allclose(levels, given.mean(1), rtol=0, atol=FLOAT64)
    own = rows_in_loop(of, EXACT, 1, ids)
    for terms in (FLAT, EXACT, of.fitted("distance", 1).loop_terms()):
        by_level = rows_in_loop(of, terms, 1, ids, sink="levels", levels={1: levels})
        share = np.broadcast_to(expit(levels)[:, None], (6, 29))
        np.testing.assert_allclose(by_level[:, 1:, 0], share, rtol=0, atol=FLOAT64)
        real = rows_in_loop(of, terms, 1, ids, sink="real")
        np.testing.assert_allclose(real[:, :, 0], own[:, :, 0], rtol=0, atol=FLOAT64)
    flat = rows_in_loop(of, FLAT, 1, ids, sink="real")[:, 9, 1:10]
    np.testing.assert_allclose(flat, np.tile(flat[:, :1], (1, 9)), rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("family", ["llama", "gpt_neo", "gptj", "falcon"])
def test_mean_outputs(family: str) -> None:
    """Head outputs are caught again where the layer projects them back."""
    of = train(family, [1])
    names = {"llama": "o_proj", "gpt_neo": "out_proj", "gptj": "out_proj", "falcon": "dense"}
    module = capture.attention_modules(of.model)[1]
    inner = getattr(module, "attention", module)
    heard: list[torch.Tensor] = []
    hook = getattr(inner, names[family]).register_forward_pre_hook(lambda m, given: heard.append(given[0][0]))
    for ids in of.texts:
        logits(of.model, ids)
    expected = torch.cat([x[1:] for x in heard]).mean(0).reshape(6, -1)
    mean = mean_outputs(of.model, of.texts, [1])[1]
    np.testing.assert_allclose(mean.values, expected.numpy(), rtol=0, atol=FLOAT64)
    heard.clear()
    ids = small_models.random_ids(20, 0)
    logits(of.model, ids)
    with replace(of.model, [Replacement(1, mean, [2])], of.vocabulary.ids):
        logits(of.model, ids)
    hook.remove()
    plain, replaced = (x.reshape(20, 6, -1) for x in heard)
    np.testing.assert_allclose(replaced[:, 2], np.tile(mean.values[2], (20, 1)), rtol=0, atol=FLOAT64)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(replaced[:, others], plain[:, others], rtol=0, atol=FLOAT64)
    assert (replaced[:, 2] - plain[:, 2]).abs().max() > 0.01


def test_wrong_use_is_named(made: dict[str, Trained]) -> None:
    of, ids = made["llama"], small_models.random_ids(12, 2)
    vocabulary, weights = of.vocabulary.ids, of.fitted("pccmc-weights", 1).loop_terms()
    with pytest.raises(ValueError, match="layer 1, head 2 is replaced twice"):
        replace(of.model, [Replacement(1, EXACT, [2]), Replacement(1, weights)], vocabulary).__enter__()
    with pytest.raises(ValueError, match="layer 0 has no head 6"):
        replace(of.model, [Replacement(0, EXACT, [6])], vocabulary).__enter__()
    with pytest.raises(ValueError, match="no layer 7"):
        replace(of.model, [Replacement(7, EXACT)], vocabulary).__enter__()
    with pytest.raises(ValueError, match=r"needs its log odds, levels\[1\]"):
        replace(of.model, [Replacement(1, FLAT)], vocabulary).__enter__()
    with pytest.raises(ValueError, match="another vocabulary"):
        replace(of.model, [Replacement(1, weights)], vocabulary[1:]).__enter__()
    cache = of.model(torch.as_tensor(ids)[None], use_cache=True).past_key_values
    with replace(of.model, [Replacement(1, weights)], vocabulary):
        with pytest.raises(UsageError, match="filled while its heads were not replaced"):
            of.model(torch.tensor([[3]]), past_key_values=cache)
        first, second = (of.model(torch.as_tensor(ids)[None], use_cache=True).past_key_values for _ in range(2))
        with pytest.raises(UsageError, match="another than that of the pass before"):
            of.model(torch.tensor([[3]]), past_key_values=first)
        of.model(torch.tensor([[3]]), past_key_values=second)
        with pytest.raises(UsageError, match="replaced already"), replace(of.model, [], vocabulary):
            pass
    with pytest.raises(ValueError, match="a query and a key"):
        LoopTerms(key="model")


def test_a_table_of_pairs_has_the_pairs_of_every_head() -> None:
    tables = [sparse.csr_array(np.array(x, dtype=float)) for x in ([[0, 2], [0, 0]], [[0, 3], [4, 0]])]
    found = PairTable.of(tables)
    assert found.codes.tolist() == [1, 2]
    assert found.values.tolist() == [[2, 0], [3, 4]]
