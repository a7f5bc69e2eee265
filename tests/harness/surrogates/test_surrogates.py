"""Surrogates against slow plain twins written from their definitions, and against what must hold for any of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from dense_heads import bucket_matrix, distance_mass
from float32 import FLOAT64, assert_within, in_float64, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import K, static_heads, text

from ccmc import CCMC, fit_mle
from ccmc import Observations as TokenObservations
from harness.data.texts import LocalVocabulary, Text, stack
from harness.surrogates._fitting.buckets import _EDGES, bucket_sums
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates._fitting.folds import inner_folds
from harness.surrogates.base import Ingredients
from harness.surrogates.heads import ccmc_fit as heads_ccmc_fit
from harness.surrogates.heads.ccmc_weights import CCMCWeights
from harness.surrogates.heads.counts import Counts as HeadCounts
from harness.surrogates.heads.distance import Distance
from harness.surrogates.heads.pccmc_weights import PCCMCWeights
from harness.surrogates.heads.shuffled_weights import ShuffledWeights
from harness.surrogates.make import make
from harness.surrogates.next_token.ccmc_fit import CCMCFit
from harness.surrogates.next_token.counts import Counts
from harness.surrogates.next_token.in_context_bigram import InContextBigram
from harness.surrogates.observations import HeadObservations, NextTokenObservations, pair_mass


def soft_targets(of: Text, chain: CCMC) -> Any:
    contexts = stack([of], K)
    return chain.next_token(np.asarray(contexts.counts.todense()), contexts.query)[:, of.types]


def groups(texts: list[Text]) -> list[str]:
    return [f"p{i}" for i in range(len(texts))]


def observations(texts: list[Text], targets: list[Any]) -> NextTokenObservations:
    """What a model gave to the tokens of contexts, targets [n, U]."""
    wins = [pair_mass(t, target[None], K) for t, target in zip(texts, targets, strict=True)]
    return NextTokenObservations(texts, groups(texts), wins, K, targets)


def head_observations(texts: list[Text], rows: list[Any]) -> HeadObservations:
    """What heads attended to: rows [H, n, m] over positions."""
    wins = [pair_mass(t, t.per_token(r), K) for t, r in zip(texts, rows, strict=True)]
    distance = [distance_mass(t, r) for t, r in zip(texts, rows, strict=True)]
    return HeadObservations(texts, groups(texts), wins, K, distance)


def test_contexts_of_a_text_by_hand() -> None:
    of = Text([5, 2, 2, 9], start=1, stop=3, first=1)
    assert of.types.tolist() == [2, 9]
    assert of.counts.tolist() == [[1, 0], [2, 0]]
    assert of.query.tolist() == [0, 0]
    assert of.visible.tolist() == [[True, False, False], [True, True, False]]
    assert of.per_token(np.array([[1.0, 2.0, 4.0]])).tolist() == [[3.0, 4.0]]
    with pytest.raises(ValueError, match="before the first key position"):
        Text([1, 2], start=0, first=1)


def test_a_window_lets_old_positions_go() -> None:
    of = Text([7, 1, 2, 1, 3, 1], start=1, first=1, window=3)
    assert of.types.tolist() == [1, 2, 3]
    assert of.counts.tolist() == [[1, 0, 0], [1, 1, 0], [2, 1, 0], [1, 1, 1], [2, 0, 1]]
    assert of.visible.sum(axis=1).tolist() == [1, 2, 3, 3, 3]
    np.testing.assert_array_equal(of.per_token(of.visible.astype(float)), of.counts)
    wide = Text([7, 1, 2, 1, 3, 1], start=1, first=1, window=99)
    np.testing.assert_array_equal(wide.counts, Text([7, 1, 2, 1, 3, 1], start=1, first=1).counts)


def test_stacked_contexts_are_those_of_the_texts() -> None:
    texts = [text(0), text(1, length=9)]
    contexts = stack(texts, K)
    dense = np.asarray(contexts.counts.todense())
    row = 0
    for of in texts:
        for position in of.positions:
            assert dense[row].tolist() == np.bincount(of.tokens[: position + 1], minlength=K).tolist()
            assert contexts.query[row] == of.tokens[position]
            row += 1
    assert row == len(dense)


def test_local_vocabulary_numbers_types_by_their_ids() -> None:
    vocabulary = LocalVocabulary([[900, 4], np.array([7, 900])])
    assert vocabulary.ids.tolist() == [4, 7, 900]
    assert vocabulary.local([900, 7]).tolist() == [2, 1]


def fitted(name: str) -> Any:
    chain = CCMC(np.random.default_rng(0).normal(size=(K, K)))
    texts = [text(seed) for seed in range(6)]
    return make(name, "next-token", Ingredients(0)).fit(observations(texts, [soft_targets(t, chain) for t in texts]))


@cache
def all_surrogates() -> list[Any]:
    heads = static_heads()
    texts = [text(seed, first=1, start=1) for seed in range(5)]
    rng = np.random.default_rng(0)
    rows = [rng.random((4, len(t), len(t.key_index))) * t.visible for t in texts]
    rows = [row / row.sum(-1, keepdims=True) for row in rows]
    of_heads = head_observations(texts, rows)
    made = [
        CCMCWeights(heads),
        PCCMCWeights(heads),
        ShuffledWeights(heads, 3),
        Distance(),
        heads_ccmc_fit.CCMCFit(CCMCWeights(heads), 0),
        HeadCounts(),
    ]
    return [fitted(name) for name in ("counts", "in-context-bigram", "ccmc-fit")] + [s.fit(of_heads) for s in made]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 30))
@pytest.mark.parametrize("which", range(9))
def test_predictions_are_distributions_on_the_context(which: int, seed: int, length: int) -> None:
    assert len(all_surrogates()) == 9
    surrogate = all_surrogates()[which]
    of = text(seed, length, first=1, start=1)
    predicted = surrogate.predict(of)
    assert predicted.shape[1:] == of.counts.shape
    np.testing.assert_allclose(predicted.sum(-1), 1.0, atol=1e-9)
    assert ((predicted > 0) <= (of.counts > 0)[None]).all()
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("softcap", [None, 0.7])
@in_float64()
def test_chains_read_off_weights_score_pair_by_pair(softcap: float | None) -> None:
    heads, of = static_heads(softcap, torch.float64), text(3, first=1, start=1)
    plain, positional = CCMCWeights(heads).predict(of), PCCMCWeights(heads).predict(of)
    counted = tolerance(np.log(20), 3)  # logarithms of counts stay in float32
    for head in (0, 3):
        for row in (0, 5, 18):
            position = int(of.positions[row])
            weight = {"plain": np.zeros(K), "positional": np.zeros(K)}
            for place in range(1, position + 1):
                q = heads.at_start.query[head, of.tokens[position]].double().numpy()
                k = heads.at_start.key[head // 2, of.tokens[place]].double().numpy()
                for name, turn in (("plain", 0.0), ("positional", float(position - place))):
                    angle = turn * np.array([1.0, 0.3, 0.05])  # only the distance counts
                    left, right = q[:3] * k[:3] + q[3:] * k[3:], q[:3] * k[3:] - q[3:] * k[:3]
                    score = 0.4 * float(np.sum(left * np.cos(angle) + right * np.sin(angle)))
                    score = score if softcap is None else softcap * np.tanh(score / softcap)
                    weight[name][of.tokens[place]] += np.exp(score)
            for name, found in (("plain", plain), ("positional", positional)):
                expected = weight[name] / weight[name].sum()
                allowed = FLOAT64 if name == "positional" else counted
                assert_within(found[head, row], expected[of.types], allowed, name)


def test_pair_logits_are_entries_of_logits() -> None:
    surrogate = CCMCWeights(static_heads(0.9, torch.float64))
    query, key = np.array([0, 3, 6]), np.array([6, 3, 1])
    square = surrogate.logits(np.arange(K), np.arange(K))
    np.testing.assert_allclose(surrogate.pair_logits(query, key, block=2), square[:, query, key], rtol=0, atol=FLOAT64)


def test_the_shuffled_control_keeps_sizes_and_loses_the_matching() -> None:
    heads = static_heads().at_start
    shuffled = ShuffledWeights(static_heads(), 0).heads.at_start
    assert torch.equal(shuffled.query.sort(-1).values, heads.query.sort(-1).values)
    assert torch.equal(shuffled.key.sort(-1).values, heads.key.sort(-1).values)
    assert not torch.allclose(shuffled.query, heads.query)
    assert torch.equal(ShuffledWeights(static_heads(), 0).heads.at_start.key, shuffled.key)


def test_distance_buckets_and_their_mass() -> None:
    of = text(1, length=60, first=1, start=1)
    buckets = bucket_matrix(of)
    rows = np.random.default_rng(0).random((2, len(of), len(of.key_index))) * of.visible
    expected = np.zeros((2, len(_EDGES) + 1))
    for row, position in enumerate(of.positions):
        for column, place in enumerate(range(1, position + 1)):
            bucket = sum(edge <= position - place for edge in _EDGES)
            assert buckets[row, column] == bucket
            expected[:, bucket] += rows[:, row, column]
    np.testing.assert_allclose(distance_mass(of, rows), expected)
    by_distance = np.stack([[np.trace(row, -d) for d in range(len(of))] for row in rows])
    np.testing.assert_allclose(bucket_sums(by_distance), expected)


def test_a_distance_profile_is_recovered() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=len(_EDGES) + 1)
    texts = [text(seed, length=48, first=1, start=1) for seed in range(200, 300)]
    rows = []
    for of in texts:
        weight = np.exp(truth[bucket_matrix(of)]) * of.visible
        rows.append((weight / weight.sum(-1, keepdims=True))[None])
    fit = Distance().fit(head_observations(texts, rows))
    of = text(99, length=48, first=1, start=1)
    weight = np.exp(truth[bucket_matrix(of)]) * of.visible
    np.testing.assert_allclose(fit.predict(of)[0], of.per_token(weight / weight.sum(-1, keepdims=True)), atol=0.01)


def test_pair_masses_hold_what_a_fit_needs() -> None:
    of = text(4, first=1, start=1)
    rng = np.random.default_rng(0)
    targets = rng.random((3, *of.counts.shape)) * (of.counts > 0)
    found = pair_mass(of, targets, K)
    expected = np.zeros((3, K, K))
    for row, column in enumerate(of.query):
        expected[:, of.types[column], of.types] += targets[:, row]
    query, key = np.divmod(found.pair, K)
    np.testing.assert_allclose(found.mass, expected[:, query, key])
    assert found.mass.sum() == pytest.approx(expected.sum())


def test_ccmc_fit_is_the_maximum_likelihood_fit_under_its_ridge() -> None:
    chain = CCMC(np.random.default_rng(5).normal(size=(K, K)))
    texts = [text(seed, length=40) for seed in range(8)]
    targets = [soft_targets(t, chain) for t in texts]
    surrogate = CCMCFit(seed=0, tol=1e-8)
    surrogate.fit(observations(texts, targets))
    contexts = stack(texts, K)
    dense = np.zeros((len(contexts.query), K))
    row = 0
    for of, target in zip(texts, targets, strict=True):
        dense[row : row + len(of), of.types] = target
        row += len(of)
    plain = fit_mle(TokenObservations(contexts, dense), ridge=float(surrogate.ridge_[0]), tol=1e-9).chain
    of = text(99, length=30)
    predicted = plain.next_token(np.asarray(stack([of], K).counts.todense()), of.types[of.query])
    # predictions take logits and log counts in float32: two roundings of each and of their sum; 1e-6 is the fits' own
    largest = np.abs(plain.logits).max() + np.log(30)
    assert_within(surrogate.predict(of)[0], predicted[:, of.types], tolerance(largest, 3) + 1e-6)


def test_the_ridge_is_chosen_by_kept_back_prompts() -> None:
    strong = CCMC(np.random.default_rng(5).normal(0, 3, (K, K)))
    texts = [text(seed, length=200) for seed in range(8)]
    sharp = CCMCFit(0).fit(observations(texts, [soft_targets(t, strong) for t in texts]))
    flat = CCMCFit(0).fit(observations(texts, [t.counts / t.counts.sum(-1, keepdims=True) for t in texts]))
    assert sharp.ridge_[0] < 1.0
    apart = np.abs(flat.predict(text(50)) - Counts().predict(text(50))).max()
    assert flat.ridge_[0] == np.inf or apart < tolerance(np.log(20), 3)  # log counts of 20 tokens in float32


def test_folds_never_cut_a_prompt() -> None:
    folds = inner_folds(["a", "b", "a", "c", "d", "b"], 3, 0)
    assert sorted(name for fold in folds for name in fold) == ["a", "b", "c", "d"]
    assert inner_folds(["a"], 3, 0) == [{"a"}]


def test_in_context_bigram_counts_followers() -> None:
    surrogate = fitted("in-context-bigram")
    of = Text([3, 5, 3, 5, 3, 6, 3], start=6)
    share = of.counts[0] / 7  # 3 x 4, 5 x 2, 6 x 1
    expected = (np.array([0.0, 2.0, 1.0]) + surrogate.alpha_ * share) / (3 + surrogate.alpha_)
    np.testing.assert_allclose(surrogate.predict(of)[0, 0], expected)


def test_alpha_minimises_the_training_loss() -> None:
    chain = CCMC(np.random.default_rng(0).normal(size=(K, K)))
    texts = [text(seed) for seed in range(6)]
    data = observations(texts, [soft_targets(t, chain) for t in texts])
    best = InContextBigram().fit(data)

    def loss(alpha: float) -> float:
        best.alpha_, kept = alpha, best.alpha_
        total = -sum(
            float(np.sum(y * np.log(best.predict(t)[0], where=y > 0, out=np.zeros_like(y))))
            for t, y in zip(texts, data.targets, strict=True)
        )
        best.alpha_ = kept
        return total

    assert loss(best.alpha_) <= min(loss(best.alpha_ * 1.1), loss(best.alpha_ / 1.1))


@pytest.mark.parametrize("name", ["counts", "in-context-bigram", "ccmc-fit"])
def test_a_growing_text_is_met_as_a_finished_one(name: str) -> None:
    surrogate = fitted(name)
    tokens = np.random.default_rng(8).integers(0, K, 15)
    finished = Text(tokens, start=14)
    types, columns = np.unique(tokens, return_inverse=True)
    grown = surrogate.next_token(types, np.bincount(columns).astype(float), columns)
    np.testing.assert_allclose(grown, surrogate.predict(finished)[0, 0], atol=1e-12)


@pytest.mark.parametrize("name", ["counts", "in-context-bigram", "ccmc-fit"])
def test_rollouts_stay_in_their_prompt_and_do_not_depend_on_each_other(name: str) -> None:
    surrogate = fitted(name)
    prompts = [np.array([1, 2, 2, 4]), np.array([6, 0, 6]), np.array([5])]
    for decoding in (Decoding(None), Decoding(1.0), Decoding(0.5)):
        found = surrogate.rollout(prompts, [30, 12, 4], 7, decoding)
        assert [len(tokens) for tokens in found] == [30, 12, 4]
        for prompt, tokens in zip(prompts, found, strict=True):
            assert set(tokens) <= set(prompt)
        alone = surrogate.rollout(prompts[:1], [30], 7, decoding)
        assert alone[0].tolist() == found[0].tolist()


@pytest.mark.parametrize("name", ["counts", "in-context-bigram", "ccmc-fit"])
def test_rollouts_with_the_ids_of_the_model_leave_other_prompts_and_their_order_out(name: str) -> None:
    surrogate = fitted(name)
    prompts = [np.array([1, 2, 2, 4]), np.array([6, 0, 6]), np.array([5, 1, 3]), np.array([2, 3])]
    ids = [prompt + 1000 for prompt in prompts]  # as the model numbers them
    found = surrogate.rollout(prompts, [20] * 4, 7, Decoding(1.0), keys=ids)
    for chosen in ([1, 2, 3], [3, 1, 0, 2], [2]):
        again = surrogate.rollout(
            [prompts[i] for i in chosen], [20] * len(chosen), 7, Decoding(1.0), keys=[ids[i] for i in chosen]
        )
        assert [a.tolist() for a in again] == [found[i].tolist() for i in chosen]
    other = surrogate.rollout(prompts, [20] * 4, 8, Decoding(1.0), keys=ids)
    assert any(a.tolist() != b.tolist() for a, b in zip(found, other, strict=True))


def test_samples_follow_their_distribution_and_temperature() -> None:
    rng = np.random.default_rng(0)
    probability, last_seen = np.array([0.5, 0.3, 0.2]), np.zeros(3, dtype=np.int64)
    for temperature in (1.0, 0.5):
        drawn = [Decoding(temperature).choose(probability, last_seen, float(u)) for u in rng.random(20_000)]
        expected = probability ** (1 / temperature)
        expected = expected / expected.sum()
        found = np.bincount(drawn, minlength=3)
        assert float(np.sum((found - 20_000 * expected) ** 2 / (20_000 * expected))) < 13.8  # chi-square, 2 df, 1e-3


def test_greedy_ties_go_to_the_most_recent() -> None:
    assert Decoding(None).choose(np.array([0.4, 0.4, 0.2]), np.array([1, 5, 9]), 0.9) == 1
    assert Decoding(None).choose(np.array([0.4, 0.4, 0.2]), np.array([6, 5, 9]), 0.0) == 0
