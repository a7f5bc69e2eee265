"""Attention in blocks of queries against whole squares, for every architecture and every measure."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from dense_heads import bucket_matrix, distance_mass, rows_without_sink, score_scale, text_scores
from float32 import FLOAT64, FUNCTION, assert_close32, assert_within, in_float64, tolerance
from random_heads import K, static_heads
from scipy.special import expit

from harness.attention import block_rows, blocks, capture
from harness.attention.block_rows import Rows, softmax_, sum_, weigh_
from harness.attention.blocks import Asked, Block, View
from harness.attention.capture import LayerCall
from harness.attention.eager import eager_rows
from harness.attention.log_weights import NO_VALUES, LogWeights
from harness.attention.windows import head_text
from harness.data.texts import LocalVocabulary, Text
from harness.experiments._shared.head_scores import score_text
from harness.experiments._shared.head_sums import LayerSums, PriorSums, sum_text
from harness.measures.block_fidelity import _judge, judge
from harness.measures.fidelity import kl, top_token, total_variation
from harness.surrogates._fitting.buckets import BUCKETS, bucket_sums
from harness.surrogates.heads.ccmc_weights import CCMCWeights
from harness.surrogates.heads.counts import Counts
from harness.surrogates.heads.distance import Distance
from harness.surrogates.heads.exact_keys import ExactKeys
from harness.surrogates.heads.exact_queries import ExactQueries
from harness.surrogates.heads.pccmc_weights import PCCMCWeights
from harness.surrogates.heads.shuffled_weights import ShuffledWeights
from harness.surrogates.observations import pair_mass


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven queries at once, so that texts of a few dozen tokens are cut."""
    monkeypatch.setattr(blocks, "MOST_QUERIES", 7)


KEYS = 40
# Roundings of a weight of a row: an exponential, a sum over keys, a division; and a logarithm of it, times it.
WEIGHT, FACT = KEYS + FUNCTION + 2, KEYS + 2 * FUNCTION + 3
LOGS = 1 + np.log(KEYS)  # at least the logarithm of a normaliser, in units of the largest weight, and any entropy


def random_call(length: int = KEYS, window: int | None = None, softcap: float | None = None) -> LayerCall:
    """Queries and keys in eighths, whose scores float32 holds exactly, in whatever order they are summed."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(n, length, 6, generator=generator).mul(8).round().div(8) for n in (4, 2))
    return LayerCall(1, torch.nn.Identity(), query, key, 1.25, softcap, window)


def of_scores() -> float:
    """How far scores of the static heads, of 6 channels, may lie apart."""
    return float(tolerance(score_scale(static_heads().at_start), 6 + 1))


def of_divergence(expected: Any) -> Any:
    """How far a mean divergence may lie apart: normaliser, entropy and cross-entropy, and twice what scores are off."""
    return 2 * of_scores() + tolerance(3 * LOGS + np.abs(expected), FACT)


def of_sink(call: LayerCall) -> Any:
    """The same of a share of the first position, which moves by a quarter of its log odds at most."""
    return (tolerance(score_scale(call) + LOGS, 3) + tolerance(1.0, WEIGHT)) / 4


def assert_no_near_tie(rows: Any) -> None:
    """The two largest entries of a row are equal, or so far apart that no rounding of float32 swaps them."""
    second, first = np.sort(rows, axis=-1)[:, -2:].T if rows.shape[-1] > 1 else np.zeros((2, 1))
    apart = (first - second) / np.maximum(first, 1e-300)
    assert ((apart < 1e-12) | (apart > 2 * of_divergence(0.0))).all()


def random_text(length: int = 40, window: int | None = None, seed: int = 0) -> Text:
    return Text(np.random.default_rng(seed).integers(0, K, length), start=1, first=1, window=window)


CASES = pytest.mark.parametrize("window", [None, 3, 11, 33])


@CASES
def test_blocks_cover_every_query_once_and_know_their_contexts(window: int | None) -> None:
    text = random_text(window=window)
    seen, at = np.zeros(text.visible.shape, dtype=int), 1
    for block in View(text).blocks(4):
        assert block.start == at
        at = block.stop
        part = slice(block.start - 1, block.stop - 1)
        np.testing.assert_array_equal(block.view.by_type(block.counts[None])[0].numpy().T, text.counts[part])
        np.testing.assert_array_equal(block.view.types[block.queries], text.tokens[block.start : block.stop])
        assert block.met == len(set(text.tokens[1 : block.stop].tolist()))
        shown = block.hide(torch.ones(1, block.stop - block.low, block.stop - block.start), 0.0)[0]
        seen[part, block.low - 1 : block.stop - 1] += shown.numpy().T.astype(int)
        expected = text.positions[part] < (window or 99)
        np.testing.assert_array_equal(block.sees_sink.numpy(), expected)
    assert at == len(text.tokens)
    np.testing.assert_array_equal(seen, text.visible)


@CASES
def test_sums_over_tokens_and_distances_are_those_of_the_square(window: int | None) -> None:
    text = random_text(window=window)
    square = np.random.default_rng(1).normal(size=(3, *text.visible.shape)) * text.visible
    profile = torch.as_tensor(np.random.default_rng(2).normal(size=(3, 40)))
    found = torch.zeros(3, 40, dtype=torch.float64)
    for block in View(text).blocks(3):
        part, keys = slice(block.start - 1, block.stop - 1), slice(block.low - 1, block.stop - 1)
        values = torch.as_tensor(square[:, part, keys].transpose(0, 2, 1).copy())
        per_token = block.view.by_type(block.per_token(values)).numpy().transpose(0, 2, 1)
        np.testing.assert_allclose(per_token, text.per_token(square)[:, part], atol=1e-12)
        np.testing.assert_array_equal(block.spread(block.per_token(values)), block.per_token(values)[:, block.columns])
        found += block.by_distance(values)
        distance = np.arange(block.start, block.stop)[None, :] - np.arange(block.low, block.stop)[:, None]
        seen = distance >= 0
        looked_up = block.of_distance(profile).numpy()[:, seen]
        np.testing.assert_array_equal(looked_up, profile.numpy()[:, distance[seen]])
    np.testing.assert_allclose(bucket_sums(found.numpy()), distance_mass(text, square), atol=1e-12)


@CASES
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_sums_of_a_text_are_those_of_its_rows(window: int | None, softcap: float | None) -> None:
    call, text = random_call(window=window, softcap=softcap), random_text(window=window)
    rows, sink = rows_without_sink(call)
    tokens = text.per_token(rows)
    found = sum_text(call, View(text))
    off = 0.0 if softcap is None else tolerance(softcap, FUNCTION + 2)  # of scores; they are exact without a cap

    def check(found: Any, expected: Any, scale: Any, operations: int, what: str) -> None:
        assert_within(found, expected, tolerance(scale, operations) + 4 * off * scale, what)
        with pytest.raises(AssertionError):  # of all these sums, an error of 5e-4 is seen
            assert_within(found * (1 + 5e-4), expected, tolerance(scale, operations) + 4 * off * scale)

    pairs, distance = pair_mass(text, tokens, K).mass, distance_mass(text, rows)
    check(found.pairs, pairs, pairs, WEIGHT + KEYS, "pairs")  # whose weights are added over the queries
    check(bucket_sums(found.distance), distance, distance, WEIGHT + KEYS, "distances")
    for name, of, values in (("entropy", rows, found.entropy), ("token entropy", tokens, found.token_entropy)):
        expected = -(of * np.log(np.where(of > 0, of, 1.0))).sum((1, 2))
        check(values, expected, expected + len(text), FACT, name)
    expected = (tokens * np.log(np.maximum(text.counts, 1.0))).sum((1, 2))
    check(found.log_counts, expected, expected, FACT, "log counts")
    assert_within(expit(found.sink_odds), sink, of_sink(call) + off)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_rows_in_blocks_are_those_of_eager_attention(name: str) -> None:
    model, ids = families.build(families.FAMILIES[name]).double(), small_models.random_ids(50)
    vocabulary, calls = LocalVocabulary([ids]), list[LayerCall]()
    with in_float64():
        truth = eager_rows(model, ids)
        capture.listen(model, ids, list(range(len(truth))), calls.append)
    assert [call.layer for call in calls] == list(range(len(truth)))
    for call in calls:
        # queries and keys are cast to float32, multiplied, scaled and capped: what a score is off, and its log odds
        off = tolerance(score_scale(call), call.query.shape[-1] + 3) + tolerance(call.softcap or 0.0, FUNCTION + 2)
        odds, sums = 2 * off + tolerance(score_scale(call), 3), tolerance(1.0, len(ids) + 2 * FUNCTION + 4)
        view, asked = View(head_text(ids, vocabulary, call.window)), Asked.of(call)
        for block in view.blocks(len(truth[0])):
            rows = block_rows.rows(asked, block)
            sink = torch.sigmoid(rows.sink_odds)
            whole = rows.weight * (1.0 - sink)[:, None]
            of_eager = truth[call.layer][:, block.start : block.stop].transpose(1, 2)
            # p (1 - p) is the slope of p in its log odds; a share near 1 is rounded, and then subtracted from 1
            allowed = of_eager * ((1 - of_eager) * odds + sums) + tolerance(1.0, FUNCTION + 1)
            assert_within(sink, of_eager[:, 0], allowed[:, 0])
            assert_within(whole, of_eager[:, block.low : block.stop], allowed[:, block.low : block.stop])


def surrogates() -> list[Any]:
    heads, profile = static_heads(), Distance()
    profile.profile_ = np.random.default_rng(3).normal(size=(4, BUCKETS))
    return [Counts(), profile, CCMCWeights(heads), PCCMCWeights(heads), ShuffledWeights(heads, 0)]


def elsewhere(block: Block, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`weigh_` as on any device but a processor."""
    weight, normaliser, entropy = softmax_(block.hide(scores))
    token = block.per_token(weight)
    token_entropy = torch.special.entr(token).sum(1)
    mean_log = (token * block.counts.clamp(min=1.0).log()).sum(1)
    return weight, token, torch.stack([normaliser, entropy, token_entropy, mean_log, token.amax(1)], 1)


@CASES
def test_compiled_passes_give_what_torch_gives(window: int | None) -> None:
    """Any device but a processor takes the way through torch, its plain twin."""
    rng, view = torch.Generator().manual_seed(7), View(random_text(window=window))
    size = len(view.types)
    pairs, expected_pairs = torch.zeros(2, 3, size, size).unbind()
    distance, expected_distance = torch.zeros(2, 3, view.length, dtype=torch.float64).unbind()
    for block in view.blocks(3):
        heads = block.heads.stop - block.heads.start
        scores = 4.0 * torch.randn(heads, block.stop - block.low, block.stop - block.start, generator=rng)
        plain = elsewhere(block, scores.clone())
        for found, expected, most in zip(weigh_(scores.clone(), block), plain, (0.0, 0.0, 1.0), strict=True):
            assert_close32(found, expected, scale=expected.abs() + most, operations=FACT)
        weight, token, facts = plain
        found = sum_(scores.clone(), block, pairs[block.heads], distance[block.heads])
        assert_close32(found, facts, scale=facts.abs() + 1, operations=FACT)
        expected_pairs[block.heads, :, : block.met].index_add_(1, block.queries, token.transpose(1, 2))
        expected_distance[block.heads] += block.by_distance(weight)
        of_types = torch.randn(token.shape, generator=rng)
        profile, change = torch.randn(3, 40, generator=rng), torch.randn(3, size, size, generator=rng)
        place = torch.randn(heads, 40, generator=rng)
        parts = {"profile": profile[block.heads], "place": place, "change": change[block.heads]}
        rows = Rows(weight, token, facts, facts[:, 0])
        for given in (
            LogWeights(of_types, True),
            LogWeights(of_types[:1], True),
            LogWeights(of_types, True, change=change[block.heads]),
            LogWeights(of_types[:1], True, change=change[block.heads]),
            LogWeights(scores, False),
            LogWeights(scores[:1], False),
            LogWeights(NO_VALUES, False, profile=parts["profile"]),
            LogWeights(NO_VALUES, False, place=place),
            LogWeights(scores, False, scale=torch.rand(heads, generator=rng), **parts),
            LogWeights(-90.0 * scores.abs(), False, **parts),
        ):
            expected, summed = _judge(given, rows, block), given.summed(block)
            shifted = (summed - summed.amax(1, keepdim=True)).double().exp()
            for rated in (token, shifted if given.by_token else block.per_token(shifted)):
                assert_no_near_tie(rated.transpose(1, 2).flatten(0, 1).double().numpy())
            largest = float(summed[summed > -1e5].abs().max())  # of the log weights, sums of up to four parts
            allowed = tolerance(expected.abs() + LOGS, FACT) + 2 * tolerance(largest, 4)
            assert_within(judge(given, rows, block), expected, allowed)
    assert_close32(pairs, expected_pairs, scale=expected_pairs, operations=WEIGHT + KEYS)
    assert_close32(distance, expected_distance, scale=expected_distance, operations=WEIGHT + KEYS)


@CASES
@pytest.mark.parametrize("surrogate", surrogates(), ids=lambda s: s.name)
def test_scores_of_a_text_are_the_measures_of_its_rows(surrogate: Any, window: int | None) -> None:
    call, text = random_call(window=window), random_text(window=window)
    if window is not None and surrogate.name == "pccmc-weights":
        of_text = surrogate.heads.of_text(text.tokens)
        assert of_text.window is None  # the window comes from the text
    truth = text.per_token(rows_without_sink(call)[0])
    flat = truth.reshape(-1, truth.shape[-1])
    predicted = np.broadcast_to(surrogate.predict(text), truth.shape).reshape(flat.shape)
    sink, found = score_text(call, View(text), {"it": surrogate})
    assert_no_near_tie(flat)
    assert_no_near_tie(predicted)
    for metric, measure in (("kl", kl), ("total_variation", total_variation), ("top_token", top_token)):
        expected = measure(flat, predicted).reshape(4, -1).mean(1)
        assert_within(found["it"][metric], expected, of_divergence(expected), metric)
        with pytest.raises(AssertionError):
            assert_within(found["it"][metric] + 100 * of_divergence(expected), expected, of_divergence(expected))
    assert_within(sink, rows_without_sink(call)[1].mean(1), of_sink(call))


def test_controls_take_one_side_of_every_score_from_the_model() -> None:
    call, text, heads = random_call(), random_text(), static_heads()
    static = heads.of_text(text.tokens)
    mixtures = {ExactKeys(heads): replace(static, key=call.key), ExactQueries(heads): replace(call, key=static.key)}
    truth, share = rows_without_sink(call)
    for control, mixed in mixtures.items():
        rows, sink = rows_without_sink(mixed)
        of_mixture = 2 * tolerance(score_scale(mixed), 6 + 1)
        _, found = score_text(call, View(text), {"it": control})
        apart = np.where(text.visible, np.log(np.where(text.visible, truth / np.where(rows > 0, rows, 1.0), 1.0)), 0.0)
        expected = (truth * apart).sum(-1).mean(1)
        assert_within(found["it"]["kl_position"], expected, of_mixture + of_divergence(expected))
        tokens, others = (text.per_token(of).reshape(-1, len(text.types)) for of in (truth, rows))
        of_sink = share * np.log(share / sink) + (1 - share) * np.log((1 - share) / (1 - sink))
        with_sink = of_sink + (1 - share) * kl(tokens, others).reshape(4, -1)
        assert_within(found["it"]["kl_with_sink"], with_sink.mean(1), of_mixture + of_divergence(with_sink.mean(1)))
    with pytest.raises(ValueError, match="own queries and keys"):
        ExactKeys(heads).along(View(text))


@CASES
def test_positions_and_sink_are_scored_as_they_are_defined(window: int | None) -> None:
    call, text = random_call(window=window), random_text(window=window)
    rows, sink = rows_without_sink(call)
    log_rows = np.log(np.where(text.visible, rows, 1.0))
    heads, profile = static_heads(), surrogates()[1]
    log_counts = np.log(np.maximum(text.counts, 1.0))[:, text.key_index]
    with np.errstate(divide="ignore"):
        log_token = np.log(CCMCWeights(heads).predict(text))[:, :, text.key_index] - log_counts
    score = profile.profile_[:, bucket_matrix(text)]
    score = np.where(text.visible, score, -np.inf)
    log_position = score - np.log(np.exp(score).sum(-1, keepdims=True))
    _, found = score_text(call, View(text), {"token": CCMCWeights(heads), "position": profile, "counts": Counts()})
    for name, logs in (("token", log_token), ("position", log_position)):
        expected = np.sum(rows * (log_rows - np.where(text.visible, logs, 0.0)), axis=-1).mean(-1)
        assert_within(found[name]["kl_position"], expected, of_divergence(expected))
        assert (found[name]["kl_position"] >= found[name]["kl"] - of_divergence(expected)).all()
    assert "kl_with_sink" not in found["position"]  # it was told nothing about the first position
    # counts: the first position is one more token
    truth = np.concatenate([sink[..., None], (1 - sink)[..., None] * text.per_token(rows)], -1)
    seen = (text.positions < (window or 99)).astype(float)
    flat = np.concatenate([seen[:, None], text.counts], -1)
    flat = np.broadcast_to(flat / flat.sum(-1, keepdims=True), truth.shape)
    expected = kl(truth.reshape(-1, truth.shape[-1]), flat.reshape(-1, truth.shape[-1])).reshape(4, -1).mean(1)
    assert_within(found["counts"]["kl_with_sink"], expected, of_divergence(expected))


def test_a_prediction_that_float32_cannot_hold_is_scored_all_the_same() -> None:
    call, text = random_call(), random_text()

    class Sharp:
        def along(self, view: View) -> Any:
            def of(block: Any) -> LogWeights:
                far = block.of_distance(-40.0 * torch.arange(view.length)[None].float())
                return LogWeights(far.expand(4, -1, -1).clone(), by_token=False)

            return of

    rows = rows_without_sink(call)[0]
    distance = text.positions[:, None] - np.arange(1, len(text.tokens))[None, :]
    score = np.where(text.visible, -40.0 * distance, -np.inf)
    per_token = text.per_token(np.exp(score - score.max(-1, keepdims=True)))
    truth = text.per_token(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(truth > 0, truth * (np.log(truth) - np.log(per_token)), 0.0).sum(-1).mean(-1)
    _, found = score_text(call, View(text), {"it": Sharp()})
    assert_within(found["it"]["kl"], expected, of_divergence(expected))


def test_rows_do_not_depend_on_how_a_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    call, view = random_call(), View(random_text())
    few, (_, scored) = sum_text(call, view), score_text(call, view, {"it": PCCMCWeights(static_heads())})
    monkeypatch.setattr(blocks, "MOST_QUERIES", 64)
    whole, (_, at_once) = sum_text(call, view), score_text(call, view, {"it": PCCMCWeights(static_heads())})
    assert_close32(few.pairs, whole.pairs, scale=whole.pairs, operations=WEIGHT + KEYS)
    for metric, values in scored["it"].items():
        assert_within(values, at_once["it"][metric], of_divergence(values), metric)


def test_sums_that_went_to_disk_come_back() -> None:
    call, view = random_call(), View(random_text())
    with tempfile.TemporaryFile() as file:
        kept, spilled = LayerSums(K), LayerSums(K, file)
        for _ in range(2):
            kept.add(call, view)
            spilled.add(call, view)
        for one, other in zip(kept.wins, spilled.wins, strict=True):
            assert one.heads == other.heads == 4
            np.testing.assert_array_equal(one.mass, other.mass)
        file.truncate(8)
        with pytest.raises(OSError, match="shorter than they were written"):
            _ = spilled.wins[1].mass


def test_scores_of_the_weights_are_summed_with_attention() -> None:
    call, text = random_call(), random_text()
    of_layer = static_heads()
    sums = PriorSums([CCMCWeights(of_layer), PCCMCWeights(of_layer)])
    sums.add(call, View(text))
    parts = rows_without_sink(call)[0] * text_scores(static_heads(), text)
    allowed = tolerance(np.abs(parts).sum((1, 2)), WEIGHT + KEYS) + len(text) * of_scores()
    assert_within(sums.score[0], parts.sum((1, 2)), allowed)


def test_a_score_that_is_not_finite_is_named() -> None:
    call = random_call()
    query = call.query.clone()
    query[2, 17, 0] = float("nan")
    with pytest.raises(ValueError, match="layer 1, head 2, position 17: the attention scores are not finite"):
        sum_text(replace(call, query=query), View(random_text()))


@in_float64()
def test_predictions_are_those_of_single_rows() -> None:
    text, heads = random_text(), static_heads(dtype=torch.float64)
    rows, _ = rows_without_sink(heads.of_text(text.tokens))
    np.testing.assert_allclose(PCCMCWeights(heads).predict(text), text.per_token(rows), rtol=0, atol=FLOAT64)
