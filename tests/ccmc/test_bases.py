"""Bigrams of counts against their definition, and fits whose texts have base transitions of their own."""

from __future__ import annotations

import numpy as np
import pytest
from dense_bigram import dense_bigram

from ccmc import BaseTransition, ContextLogit, TextBases, context_rows, fit_bigram, fit_context_logit, smooth_unigram

V = 12
STATISTICS = ("present", "log-count", "unigram", "base-by-match", "followed-by-1")


def drawn(texts: int, length: int = 25) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [np.resize(rng.integers(0, V - 2, 9), length) for _ in range(texts - 1)] + [rng.integers(0, V - 2, length)]


def test_a_bigram_is_its_definition():
    texts = drawn(6)
    base = fit_bigram(texts, V)
    expected = dense_bigram(texts, V)
    np.testing.assert_allclose(np.exp([base.log_row(i) for i in range(V)]), expected, rtol=1e-11)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0, rtol=1e-12)
    assert base.row[V - 1] == -1  # it never came
    assert base.positive
    query, token = np.repeat(np.arange(V), V), np.tile(np.arange(V), V)
    np.testing.assert_allclose(base.log_at(query, token), np.log(expected).ravel(), rtol=1e-11)
    assert (np.diff(base.log_p, axis=1) <= 0).all()


def test_a_row_keeps_its_likeliest_and_sums_to_one():
    texts = drawn(6, 60)
    whole, short = dense_bigram(texts, V), fit_bigram(texts, V, top=3)
    assert short.tokens.shape[1] == 3
    dense = np.exp([short.log_row(i) for i in range(V)])
    np.testing.assert_allclose(dense.sum(axis=1), 1.0, rtol=1e-12)
    for query in np.flatnonzero(short.row >= 0):
        kept = short.tokens[short.row[query]]
        np.testing.assert_allclose(dense[query, kept], whole[query, kept], rtol=1e-11)
        assert len(set(kept.tolist())) == 3


def test_counts_do_not_depend_on_the_order_of_texts():
    texts = drawn(5)
    one, other = fit_bigram(texts, V, 4), fit_bigram(texts[::-1], V, 4)
    for name in ("row", "tokens", "log_p", "log_scale", "log_unigram"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_nothing_was_counted():
    base = fit_bigram([], V)
    np.testing.assert_allclose([base.log_row(i) for i in range(V)], -np.log(V))
    np.testing.assert_allclose(smooth_unigram(np.zeros(4)), 0.25)
    assert fit_bigram([[3]], V).row.max() == -1  # nothing followed anything


def test_wrong_texts_are_named():
    with pytest.raises(ValueError, match="text 1 has a token outside the vocabulary of 3"):
        fit_bigram([[0, 1], [3]], 3)
    with pytest.raises(ValueError, match="one for each of 3 texts, got 2"):
        TextBases.given([BaseTransition.flat(3)] * 2, 3)
    with pytest.raises(ValueError, match=r"one vocabulary, got \[3, 4\] tokens"):
        TextBases.given([BaseTransition.flat(3), BaseTransition.flat(4)], 2)


def without_one(texts: list[np.ndarray]) -> list[BaseTransition]:
    return [fit_bigram(texts[:k] + texts[k + 1 :], V) for k in range(len(texts))]


def test_rows_of_texts_are_those_of_each_text_alone():
    texts = drawn(4)
    bases = without_one(texts)
    joined = context_rows(texts, STATISTICS, bases, 5)
    alone = [context_rows([text], STATISTICS, base, 5) for text, base in zip(texts, bases, strict=True)]
    np.testing.assert_array_equal(joined.features, np.concatenate([rows.features for rows in alone]))
    np.testing.assert_array_equal(joined.log_p0, np.concatenate([rows.log_p0 for rows in alone]))
    beyond = [rows.outside.log_base for rows in alone if rows.outside is not None]
    np.testing.assert_array_equal(joined.terms.beyond, np.concatenate(beyond))
    a = 0.7
    of = joined.terms.moments(a)[joined.terms.row_of]
    apart = [rows.terms.moments(a)[rows.terms.row_of] for rows in alone]
    np.testing.assert_array_equal(of, np.concatenate(apart))


def test_a_fit_with_a_base_for_each_text_is_that_of_dense_probabilities():
    """The loss, written out over all tokens with each text's own dense P0, has its minimum at the fitted weights."""
    texts, names = drawn(7), ("present", "log-count", "followed-by-1")
    bases = without_one(texts)
    fit = fit_context_logit(context_rows(texts, names, bases, 5), ridge=0.3)
    assert fit.converged

    def loss(w: np.ndarray) -> float:
        total = 0.15 * float(((w - np.array([1.0, 0, 0, 0])) ** 2).sum())
        for k, text in enumerate(texts):
            p0 = BaseTransition.from_transition(dense_bigram(texts[:k] + texts[k + 1 :], V))
            model = ContextLogit(dict(zip(("base", *names), w.tolist(), strict=True)), p0)
            p = model.next_token([text[:n] for n in range(5, len(text))])
            total -= float(np.log(p[np.arange(len(p)), text[5:]]).sum())
        return total

    least = loss(fit.weights)
    assert least == pytest.approx(-fit.log_likelihood + 0.15 * float(((fit.weights - [1, 0, 0, 0]) ** 2).sum()))
    for place in range(4):
        step = np.zeros(4)
        step[place] = 1e-4
        slope = (loss(fit.weights + step) - loss(fit.weights - step)) / 2e-4
        assert abs(slope) < 1e-5
    one = fit_context_logit(context_rows(texts, names, fit_bigram(texts, V), 5), ridge=0.3)
    assert one.weights[0] > fit.weights[0]  # a base that has counted the texts is trusted too much
