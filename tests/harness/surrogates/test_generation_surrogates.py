"""Surrogates of generation, their escape and their decoding against plain twins written from the definitions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from float32 import assert_close32, in_float64
from scipy import sparse
from scipy.optimize import minimize

from ccmc import CCMC
from harness.attention.capture import LayerCall
from harness.attention.static_inputs import StaticHeads
from harness.core import noise
from harness.data.texts import Text, stack
from harness.surrogates._fitting.chain_walk import walk
from harness.surrogates._fitting.decoding import Decoding, continue_one, followers_of_tail
from harness.surrogates._fitting.escape import Escape
from harness.surrogates._fitting.head_chains import head_chains, single_losses
from harness.surrogates._fitting.head_mixture import em_weights
from harness.surrogates.base import chain_rows
from harness.surrogates.next_token.bigram import Bigram
from harness.surrogates.next_token.bigram_restricted import BigramRestricted
from harness.surrogates.next_token.ccmc_bilinear import CCMCBilinear, _Problem, features
from harness.surrogates.next_token.ccmc_fit import CCMCFit
from harness.surrogates.next_token.ccmc_head import CCMCHead
from harness.surrogates.next_token.ccmc_mixture import CCMCMixture
from harness.surrogates.next_token.counts import Counts
from harness.surrogates.next_token.n_gram import NGram
from harness.surrogates.observations import NextTokenObservations, pair_mass
from harness.surrogates.statistics import Statistics

K = 9


def text(seed: int, length: int = 24) -> Text:
    return Text(np.random.default_rng(seed).integers(0, K - 1, length), start=2)  # token K - 1 is in no text


def observations(count: int = 8) -> NextTokenObservations:
    """Texts of a chain, which gives a part of its mass to tokens outside the context."""
    chain = CCMC(np.random.default_rng(0).normal(size=(K, K)))
    texts = [text(seed) for seed in range(count)]
    targets, masses, outsides = [], [], []
    for index, of in enumerate(texts):
        contexts = stack([of], K)
        dense = np.asarray(contexts.counts.todense())
        targets.append(chain.next_token(dense, contexts.query)[:, of.types])
        rng = np.random.default_rng([7, index])
        masses.append(rng.uniform(0.5, 0.9, len(of)))
        out = np.where(dense > 0, 0.0, rng.random(dense.shape) * (np.arange(K) < K - 1))
        full = out.sum(axis=1) > 0
        masses[-1][~full] = 1.0 - 1e-9
        out[full] *= ((1.0 - masses[-1][full]) / out[full].sum(axis=1))[:, None]
        outsides.append(sparse.csr_array(out))
    wins = [pair_mass(t, target[None], K) for t, target in zip(texts, targets, strict=True)]
    groups = [f"p{i}" for i in range(count)]
    return NextTokenObservations(texts, groups, wins, K, targets, masses, outsides)


OBSERVED = observations()


def static_layers() -> dict[int, StaticHeads]:
    found = {}
    for layer in (0, 3):
        generator = torch.Generator().manual_seed(layer)
        query, key = (torch.randn(n, K, 6, generator=generator).double() for n in (4, 2))
        call = LayerCall(layer, torch.nn.Identity(), query, key, 0.4, 2.0 if layer else None, None)
        found[layer] = StaticHeads(None, call, np.arange(K), torch.empty(0), None, call)
    return found


def test_longer_histories_by_hand() -> None:
    of = Text([1, 2, 3, 1, 2, 4, 1, 2], start=1)
    rows = Statistics(of).followed(2)
    assert rows[of.positions.tolist().index(4)].tolist() == [0, 0, 1, 0]  # after 1 2 came 3
    assert rows[-1].tolist() == [0, 0, 1, 1]  # after 1 2 came 3 and 4
    assert followers_of_tail(np.array([1, 2, 3, 1, 2, 4, 1, 2]), 2).tolist() == [3, 4]
    assert followers_of_tail(np.array([5, 5]), 1).tolist() == [5]
    assert followers_of_tail(np.array([5]), 1).tolist() == []


def test_n_gram_backs_off_order_by_order() -> None:
    made = NGram().fit(OBSERVED)
    of = text(3)
    for row, position in enumerate(of.positions):
        context = of.tokens[: position + 1].tolist()
        p = np.bincount(context, minlength=K) / len(context)
        for n, alpha in zip((2, 3, 4), made.alpha_, strict=True):
            tail = context[len(context) - n + 1 :]
            table = np.zeros(K)
            for start in range(len(context) - n + 1):
                if context[start : start + n - 1] == tail:
                    table[context[start + n - 1]] += 1
            p = (table + alpha * p) / (table.sum() + alpha)
        np.testing.assert_allclose(made.predict(of)[0, row], p[of.types], atol=1e-12)


def test_the_bigram_is_the_shrunken_mean_of_the_distributions_after_a_query() -> None:
    made = Bigram(0).fit(OBSERVED)
    total = np.zeros((K, K))
    for index, of in enumerate(OBSERVED.texts):
        for row, position in enumerate(of.positions):
            whole = np.asarray(OBSERVED.outside[index].todense())[row].copy()
            whole[of.types] += OBSERVED.in_context_mass[index][row] * OBSERVED.targets[index][row]
            total[of.tokens[position]] += whole
    overall = total.sum(axis=0) + 0.01
    expected = total + made.shrinkage_ * overall / overall.sum()
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([made.row(i) for i in range(K)]), expected, atol=1e-12)
    of = text(20)
    restricted = np.where(of.counts > 0, expected[of.types[of.query]][:, of.types], 0.0)
    np.testing.assert_allclose(made.leaving(of), 1 - restricted.sum(axis=1), atol=1e-12)
    restricted /= restricted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(made.predict(of)[0], restricted, atol=1e-12)


def test_the_escape_leaves_as_often_as_the_training_texts() -> None:
    escape = Escape(0).fit(OBSERVED)
    left, times = np.zeros(K), np.zeros(K)
    for index, of in enumerate(OBSERVED.texts):
        for row, position in enumerate(of.positions):
            left[of.tokens[position]] += 1 - OBSERVED.in_context_mass[index][row]
            times[of.tokens[position]] += 1
    mean = left.sum() / times.sum()
    expected = (left + escape.shrinkage_ * mean) / (times + escape.shrinkage_)
    np.testing.assert_allclose(escape.rate_, expected, atol=1e-12)
    counts = np.array([2.0, 1, 0, 0, 0, 0, 0, 0, 0])
    inside = np.array([0.75, 0.25, 0, 0, 0, 0, 0, 0, 0])
    mixed = escape.mix(inside, counts, 1)
    assert mixed.sum() == pytest.approx(1.0)
    assert mixed[:2].tolist() == pytest.approx((inside[:2] * (1 - escape.rate_[1])).tolist())
    assert (mixed[2 : K - 1] > 0).all()
    assert mixed[K - 1] == 0.0  # no training text holds it
    np.testing.assert_allclose(mixed[2:] / mixed[2:].sum(), escape.where(1)[2:] / escape.where(1)[2:].sum())


def test_rollouts_leave_the_prompt_only_with_an_escape() -> None:
    prompts, steps = [np.array([1, 2, 1]), np.array([3, 4, 3, 5])], [60, 60]
    escape = Escape(0).fit(OBSERVED)
    for made in (Counts(), NGram().fit(OBSERVED), BigramRestricted(0).fit(OBSERVED)):
        stay = made.rollout(prompts, steps, 1, Decoding(1.0))
        assert all(set(c.tolist()) <= set(p.tolist()) for c, p in zip(stay, prompts, strict=True))
        leave = made.rollout(prompts, steps, 1, Decoding(1.0), escape)
        assert all(set(c.tolist()) - set(p.tolist()) for c, p in zip(leave, prompts, strict=True))
        assert all(K - 1 not in c for c in leave)
    free = Bigram(0).fit(OBSERVED).rollout(prompts, steps, 1, Decoding(1.0))
    assert all(set(c.tolist()) - set(p.tolist()) for c, p in zip(free, prompts, strict=True))


def test_the_first_step_of_rollouts_has_the_law_of_the_escape() -> None:
    escape = Escape(0).fit(OBSERVED)
    prompt = np.array([1, 2, 1])
    drawn = Counts().rollout([prompt] * 8000, [1] * 8000, 5, Decoding(1.0), escape)
    counts = np.bincount(prompt, minlength=K).astype(float)
    expected = 8000 * escape.mix(counts / 3, counts, 1)
    found = np.bincount([int(c[0]) for c in drawn], minlength=K)
    kept = expected > 0
    assert found[~kept].sum() == 0
    assert float(np.sum((found[kept] - expected[kept]) ** 2 / expected[kept])) < 24.3  # chi-square, 7 df, 1e-3


def test_cuts_and_penalties_of_surrogates() -> None:
    p = np.array([0.4, 0.3, 0.2, 0.06, 0.04])
    assert Decoding(1.0, top_k=2).cut(p).tolist() == [0.4, 0.3, 0, 0, 0]
    assert Decoding(1.0, top_p=0.5).cut(p).tolist() == [0.4, 0.3, 0, 0, 0]
    assert Decoding(1.0, top_p=0.05).cut(p).tolist() == [0.4, 0, 0, 0, 0]
    assert Decoding(1.0, min_p=0.12).cut(p).tolist() == [0.4, 0.3, 0.2, 0.06, 0]
    history = np.array([0, 1, 2, 0, 1])
    penalised = Decoding(None, repetition_penalty=2.0).penalised(p, history)
    np.testing.assert_allclose(penalised, [0.16, 0.09, 0.04, 0.06, 0.04])
    assert Decoding(None, no_repeat_ngram=3).penalised(p, history).tolist() == [0.4, 0.3, 0, 0.06, 0.04]
    assert Decoding(None).penalised(p, history) is p


def test_beams_find_the_likeliest_sequence() -> None:
    """With enough beams the search is exhaustive; the twin tries every sequence of three tokens."""
    made = BigramRestricted(0).fit(OBSERVED)
    prompt = np.array([1, 2, 1, 4])
    found = made.rollout([prompt], [3], 0, Decoding(None, beams=27))[0]
    types = np.array([1, 2, 4])

    def log_probability(sequence: tuple[int, ...]) -> float:
        history, total = prompt.tolist(), 0.0
        for token in sequence:
            row = made.row(history[-1])[types]
            total += float(np.log(row[list(types).index(token)] / row.sum()))
            history.append(token)
        return total

    every = [(a, b, c) for a in types for b in types for c in types]
    assert tuple(found.tolist()) == max(every, key=log_probability)


def test_the_bilinear_gradient_and_optimum() -> None:
    x = features(np.random.default_rng(3).normal(size=(K, 12)), 3)
    assert x.shape == (K, 4)
    assert (x[:, :3] ** 2).sum(axis=1).mean() == pytest.approx(1.0)
    problem = _Problem(OBSERVED, x)
    W = 0.3 * np.random.default_rng(1).normal(size=16)

    def plain(flat: Any, ridge: float) -> float:
        theta = (x @ flat.reshape(4, 4) @ x.T).T
        loss = 0.5 * ridge * float(flat @ flat)
        for of, target in zip(OBSERVED.texts, OBSERVED.targets, strict=True):
            p = chain_rows(of.counts, theta[of.types[of.query]][:, of.types])
            held = target > 0
            # the problem leaves out the part of the log counts that no W changes
            loss -= float(target[held] @ (np.log(p[held]) - np.log(of.counts[held])))
        return loss

    value, gradient = problem(W, 2.0)
    assert value == pytest.approx(plain(W, 2.0), rel=1e-10)
    for index in range(16):
        step = np.eye(16)[index] * 1e-5
        slope = (plain(W + step, 2.0) - plain(W - step, 2.0)) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-6)
    made = CCMCBilinear(x, 0, steps=500).fit(OBSERVED)
    best = minimize(lambda w: plain(w, made.ridge_), np.zeros(16), method="BFGS")
    assert plain(made.W_.ravel(), made.ridge_) == pytest.approx(float(best.fun), rel=1e-6)


def test_head_chains_are_those_of_the_weights() -> None:
    from harness.surrogates.heads.ccmc_weights import CCMCWeights

    layers = static_layers()
    chains = head_chains(layers)
    assert [(c.layer, c.head) for c in chains] == [(layer, head) for layer in (0, 3) for head in range(4)]
    of = Text(text(5).tokens, start=1, first=1)
    with in_float64():
        expected = np.concatenate([CCMCWeights(layers[layer]).predict(of) for layer in (0, 3)])
    # block by block, logarithms of counts are in float32: three roundings of at most log(20)
    assert_close32(np.stack([c.predict(of) for c in chains]), expected, scale=np.log(20), operations=3)
    losses = single_losses(chains, OBSERVED.texts, OBSERVED.targets)
    queries = sum(len(t) for t in OBSERVED.texts)
    for chain, loss in zip(chains, losses, strict=True):
        plain = sum(
            float(target[r, u] * np.log(chain.predict(t)[r, u]))
            for t, target in zip(OBSERVED.texts, OBSERVED.targets, strict=True)
            for r, u in zip(*np.nonzero(target), strict=True)
        )
        assert loss == pytest.approx(-plain / queries, rel=1e-9)


def test_em_finds_the_weights_of_a_mixture() -> None:
    rng = np.random.default_rng(0)
    terms = rng.dirichlet(np.ones(6) * 0.5, size=(3, 500)).reshape(3, -1)
    truth = np.array([0.6, 0.0, 0.4])
    found = em_weights(terms, truth @ terms)
    np.testing.assert_allclose(found, truth, atol=2e-3)


def test_a_mixture_predicts_the_weighted_mean_and_rolls_out_what_it_predicts() -> None:
    made = CCMCMixture(head_chains(static_layers())[:3]).fit(OBSERVED)
    assert made.weights_.sum() == pytest.approx(1.0)
    of = text(11)
    terms = [c.predict(of) for c in made.chains] + [of.counts / of.counts.sum(axis=1, keepdims=True)]
    expected = sum(w * t for w, t in zip(made.weights_, terms, strict=True))
    np.testing.assert_allclose(made.predict(of)[0], expected, atol=1e-12)
    single = CCMCHead(head_chains(static_layers())).fit(OBSERVED)
    np.testing.assert_allclose(single.predict(of)[0], terms[0], atol=1e-12)


@cache
def every_surrogate() -> list[Any]:
    x = features(np.random.default_rng(3).normal(size=(K, 12)), 3)
    chains = head_chains(static_layers())
    made = [NGram(), BigramRestricted(0), CCMCBilinear(x, 0), CCMCMixture(chains[:3])]
    return [s.fit(OBSERVED) for s in made]


@pytest.mark.parametrize("which", range(4))
def test_growing_texts_get_the_predictions_of_finished_ones(which: int) -> None:
    made = every_surrogate()[which]
    of = text(30)
    predicted = made.predict(of)[0]
    for row, position in enumerate(of.positions):
        found = made.next_token(of.types, of.counts[row], of.key_index[: position + 1])
        np.testing.assert_allclose(found, predicted[row], atol=1e-10)
    assert (predicted[of.counts == 0] == 0).all()
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0)


STRATEGIES = [
    Decoding(None),
    Decoding(1.0),
    Decoding(0.6),
    Decoding(1.3, top_k=3),
    Decoding(0.8, top_p=0.7),
    Decoding(1.0, min_p=0.2),
    Decoding(0.9, top_k=5, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    Decoding(None, repetition_penalty=1.5),
    Decoding(None, no_repeat_ngram=3),
    Decoding(1.0, no_repeat_ngram=2),
]


def chains_of_all_kinds() -> list[Any]:
    heads = head_chains(static_layers())
    capped = [replace(chain, softcap=0.5) for chain in heads[:2]]
    made = [
        Counts(),
        BigramRestricted(0),
        CCMCFit(0),
        CCMCHead(heads[1:]),
        CCMCMixture([*heads[:3], *capped]),
        CCMCBilinear(features(np.random.default_rng(3).normal(size=(K, 12)), 3), 0),
    ]
    return [surrogate.fit(OBSERVED) for surrogate in made]


@pytest.mark.parametrize("escaping", [False, True])
@pytest.mark.parametrize("made", chains_of_all_kinds(), ids=lambda s: s.name)
def test_compiled_rollouts_are_those_step_by_step(made: Any, escaping: bool) -> None:
    """The twin asks `next_token` and `Escape.mix` at every step and chooses with `Decoding`."""
    escape = Escape(0).fit(OBSERVED) if escaping else None
    prompts = [np.array(p) for p in ([1, 2, 1], [3, 4, 3, 5, 0], [7], [2, 6, 6, 2, 5, 1, 0])]
    types = np.arange(K)
    for decoding in STRATEGIES:
        found = made.rollout(prompts, [40, 25, 30, 0], 3, decoding, escape)
        for index, (prompt, length) in enumerate(zip(prompts, [40, 25, 30, 0], strict=True)):

            def follow(counts: Any, history: Any) -> Any:
                inside = made.next_token(types, counts, history)
                return inside if escape is None else escape.mix(inside, counts, int(history[-1]))

            uniforms = noise.uniforms(3, np.array([index]), length)[:, 0]
            expected = continue_one(follow, prompt, K, uniforms, decoding)
            assert found[index].tolist() == expected.tolist(), decoding


def test_beams_are_no_walk() -> None:
    with pytest.raises(ValueError, match="beam search"):
        walk(Counts().chain_terms(3), [np.array([1])], [np.zeros(2)], Decoding(None, beams=2))
