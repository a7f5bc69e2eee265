"""Surrogates over the whole vocabulary: what they give sums to 1, follows its definition, and is drawn by walks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ccmc import BaseTransition
from ccmc.context_logit import statistics_weights
from harness.core import registry
from harness.surrogates._fitting.cut_walks import cut_walks
from harness.surrogates._fitting.mixing import mixture_weights
from harness.surrogates.vocabulary_base import Law, ScoredText, VocabularyObservations

V = 9


def scored(tokens, start, name="p", group="g"):
    """A text with a made-up law along it."""
    tokens = np.asarray(tokens, dtype=np.int64)
    text = ScoredText(name, group, 0, tokens, start, {})
    p = np.random.default_rng(len(tokens)).dirichlet(np.ones(V), len(text))
    inside = np.where(text.known, p[:, text.numbered.types], 0.0)
    log = BASE.log_row
    of_base = {"b": np.array([(p[n] * log(int(q))).sum() for n, q in enumerate(tokens[start - 1 : -1])])}
    law = Law(inside, -(p * np.log(p)).sum(axis=1), np.log(p[np.arange(len(text)), tokens[start:]]), of_base)
    return ScoredText(name, group, 0, tokens, start, {"raw": law, "decoded": law})


BASE = BaseTransition.from_transition(np.random.default_rng(0).dirichlet(np.ones(V), V))


@pytest.fixture(scope="module")
def observations():
    rng = np.random.default_rng(1)
    texts = [scored(np.resize(rng.integers(0, 6, 7), 30), 5, f"p{k}", f"g{k // 2}") for k in range(6)]
    texts += [scored(rng.integers(0, 8, 30), 5, f"q{k}", f"h{k}") for k in range(4)]
    return VocabularyObservations(texts, "decoded", {"b": BASE}, V)


@pytest.fixture(scope="module", params=["unigram", "unigram-cache", "bigram", "suffix", "context-logit"])
def fitted(request, observations):
    made = registry.surrogate(request.param, "vocabulary")
    given = {"bigram": ("b",), "context-logit": (("counts", "followed-by-1"), "b")}.get(request.param, ())
    return made(*given).fit(observations)


def test_along_a_text_it_gives_what_its_walks_draw(fitted):
    """The distribution after a context, from texts that differ in their last token, is that of one step of a walk."""
    context = [0, 3, 1, 0, 3, 1, 0, 3]
    along = [fitted.along(scored([*context, token], len(context))) for token in range(V)]
    p = np.exp([one.log_next[0] for one in along])
    assert p.sum() == pytest.approx(1.0, abs=1e-9)
    for token in (0, 1, 3):
        column = [0, 3, 1].index(token)
        assert np.exp(along[5].log_inside[0, column]) == pytest.approx(p[token])
    assert along[5].new[0] == pytest.approx(1 - p[[0, 1, 3]].sum())
    drawn = np.bincount(fitted.rollout([np.array(context)] * 4000, 1, 0)[:, 0], minlength=V)
    assert stats.chisquare(drawn, 4000 * p).pvalue > 1e-4


LADDER = ("counts", "recency", "followed-by-1", "log-longest-match")


@pytest.mark.parametrize("name", ["context-logit", "context-logit-closed"])
def test_rungs_that_share_what_is_computed_are_those_fitted_alone(observations, name):
    made = registry.surrogate(name, "vocabulary")
    shared = VocabularyObservations(observations.texts, "raw", {"b": BASE}, V)
    table = shared.contexts("b", statistics_weights(LADDER))
    judged, start = scored([0, 3, 1, 0, 3, 1, 0, 3, 2], 4), None
    judged.contexts(BASE, statistics_weights(LADDER))
    for law in ("raw", "decoded"):
        for rungs in (1, 2, 4):
            alone = made(LADDER[:rungs], "b").fit(VocabularyObservations(observations.texts, law, {"b": BASE}, V))
            found = made(LADDER[:rungs], "b", start=start).fit(shared.under(law))
            assert list(found.weights_) == list(alone.weights_)
            np.testing.assert_allclose(list(found.weights_.values()), list(alone.weights_.values()), rtol=1e-6)
            np.testing.assert_allclose(found.loss_, alone.loss_, rtol=1e-12)
            own = alone.along(scored([0, 3, 1, 0, 3, 1, 0, 3, 2], 4))
            np.testing.assert_allclose(found.along(judged).log_next, own.log_next, rtol=1e-6)
            start = found.weights_
    assert shared.contexts("b", ()) is table
    assert shared.under("decoded").contexts("b", LADDER[1:2]) is table


def test_targets_outside_the_context_have_their_mass_and_expected_log(observations):
    for text, (inside, beyond) in zip(observations.texts, observations.targets("b"), strict=True):
        p = np.random.default_rng(len(text.tokens)).dirichlet(np.ones(V), len(text))  # as in `scored`
        log = np.stack([BASE.log_row(int(query)) for query in text.tokens[text.start - 1 : -1]])
        out = np.stack([~np.isin(np.arange(V), text.tokens[:n]) for n in range(text.start, len(text.tokens))])
        np.testing.assert_allclose(beyond, np.column_stack([(p * out).sum(1), (p * log * out).sum(1)]), atol=1e-12)
        np.testing.assert_array_equal(inside, text.laws["decoded"].inside)


def test_walks_belong_to_their_prompts(fitted):
    prompts = [np.array([1, 2, 3]), np.array([4, 1]), np.array([1, 2, 3])]
    paths = fitted.rollout(prompts, 12, 5)
    np.testing.assert_array_equal(paths[1:2], fitted.rollout(prompts[1:2], 12, 5))
    np.testing.assert_array_equal(paths[[0, 2]], fitted.rollout([prompts[0], prompts[2]], 12, 5))
    assert (fitted.rollout(prompts, 12, 6) != paths).any()


def test_greedy_and_tempered_walks(fitted):
    context = np.array([0, 3, 1, 0, 3, 1, 0, 3])
    p = np.exp([fitted.along(scored([*context, token], len(context))).log_next[0] for token in range(V)])
    assert fitted.rollout([context], 1, 0, None)[0, 0] == p.argmax()
    drawn = np.bincount(fitted.rollout([context] * 4000, 1, 0, 0.5)[:, 0], minlength=V)
    assert stats.chisquare(drawn, 4000 * p**2 / (p**2).sum()).pvalue > 1e-4


def test_suffix_follows_the_longest_match(observations):
    fitted = registry.surrogate("suffix", "vocabulary")().fit(observations)
    _, after, cache, _ = fitted._parts(scored([1, 2, 5, 3, 2, 6, 1, 2, 0], 8))
    types = [1, 2, 5, 3, 6, 0]
    assert dict(zip(types, after[0], strict=True)) == {1: 0, 2: 0, 5: 1, 3: 0, 6: 0, 0: 0}  # 1 2 was followed by 5
    assert cache[0, types.index(2)] == pytest.approx(3 / 8)


def test_mixture_weights_are_the_likeliest():
    rng = np.random.default_rng(0)
    laws = rng.dirichlet(np.ones(20), 3)
    parts = laws[:, rng.choice(20, 800, p=np.array([0.2, 0.3, 0.5]) @ laws)].T
    weight = mixture_weights(parts)
    best = np.log(parts @ weight).sum()
    for change in np.random.default_rng(1).dirichlet(weight * 400, 50):
        assert np.log(parts @ change).sum() <= best + 1e-6
    with pytest.raises(ValueError, match="observation 1 has probability 0"):
        mixture_weights(np.array([[0.5, 0.5], [0.0, 0.0]]))


def test_the_fit_is_less_surprised_by_its_texts_with_every_statistic(observations):
    made = registry.surrogate("context-logit", "vocabulary")
    losses = [
        made(statistics, "b").fit(observations).loss_
        for statistics in (("counts",), ("counts", "recency"), ("counts", "recency", "followed-by-1"))
    ]
    assert losses[0] >= losses[1] - 1e-9 >= losses[2] - 2e-9
    flat = made(("counts",), "none").fit(
        VocabularyObservations(observations.texts, "raw", {"none": BaseTransition.flat(V)}, V)
    )
    assert tuple(flat.weights_) == ("present", "log-count")  # the weight of a flat base is not determined


def test_targets_outside_the_context_count_by_their_expected_log():
    """The cross-entropy of a fit is that of the law over the whole vocabulary, summed over all tokens."""
    text = scored(np.random.default_rng(3).integers(0, 6, 20), 4)
    surrogate = registry.surrogate("context-logit", "vocabulary")(("counts", "recency"), "b")
    surrogate.fit(VocabularyObservations([text], "raw", {"b": BASE}, V))
    p = np.random.default_rng(len(text.tokens)).dirichlet(np.ones(V), len(text))  # the law that `scored` made up
    q = surrogate.model_.next_token([text.tokens[:n] for n in range(4, 20)])
    assert surrogate.loss_ == pytest.approx(float(-(p * np.log(q)).sum(axis=1).mean()), rel=1e-5)


@pytest.mark.parametrize("options", [{"top_p": 0.7}, {"min_p": 0.97}, {"top_k": 2}])
def test_walks_with_cuts_follow_the_cut_law(fitted, options):
    """By brute force: the law along each path, cut as the strategy cuts a model's, has every token that came."""
    prompts = [np.array([1, 2, 3]), np.array([4, 1]), np.array([1, 2, 3])]
    paths = cut_walks(fitted.reader, prompts, 40, 5, 0.8, options)
    assert paths.shape == (3, 40)
    kept = []
    for prompt, path in zip(prompts, paths, strict=True):
        for step, token in enumerate(path):
            law = np.exp(fitted.reader().read(np.concatenate([prompt, path[:step]]))[0] / 0.8)
            law /= law.sum()
            order = np.argsort(-law, kind="stable")
            if "top_p" in options:
                left = order[: int(np.searchsorted(np.cumsum(law[order]), 0.7)) + 1]
            else:
                left = np.flatnonzero(law >= 0.97 * law.max()) if "min_p" in options else order[:2]
            # the law of a token that is left out differs from that of one that is kept by more than round-off
            edge = law[left].min()
            assert token in left or law[token] == pytest.approx(edge, rel=1e-5)
            kept.append(len(left))
    assert min(kept) < V  # something was cut
    np.testing.assert_array_equal(paths[1:2], cut_walks(fitted.reader, prompts[1:2], 40, 5, 0.8, options))
    if min(kept[:40]) > 1:  # else there may be one walk
        assert (paths[0] != paths[2]).any()
        assert (cut_walks(fitted.reader, prompts, 40, 6, 0.8, options) != paths).any()


def test_walks_without_a_cut_have_the_law_of_the_reader(fitted):
    """A top-k of everything cuts nothing: first tokens come as often as the law says."""
    prompt, n = np.array([1, 2, 3]), 3000
    first = cut_walks(fitted.reader, [prompt] * n, 1, 3, 1.0, {"top_k": V})[:, 0]
    law = np.exp(fitted.reader().read(prompt)[0])
    seen = np.bincount(first, minlength=V) / n
    assert (np.abs(seen - law) <= 5 * np.sqrt(law * (1 - law) / n) + 1e-12).all()


def test_a_reader_gives_what_the_surrogate_gives_along_a_text(fitted):
    text = scored([0, 3, 1, 0, 3, 1, 0, 3, 2], 4)
    along = fitted.along(text)
    for row, end in enumerate(range(4, len(text.tokens))):
        law = fitted.reader().read(text.tokens[:end])[0]
        assert law[text.tokens[end]] == pytest.approx(along.log_next[row], rel=1e-9, abs=1e-9)
        known = np.isfinite(along.log_inside[row])
        np.testing.assert_allclose(law[text.numbered.types][known], along.log_inside[row][known], rtol=1e-7, atol=1e-9)
