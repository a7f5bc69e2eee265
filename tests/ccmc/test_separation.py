"""Whether an open context logit has finite weights: against the same choices with every token of the vocabulary written
out as a candidate, whose question has no tokens beyond."""

from __future__ import annotations

import numpy as np
import pytest

from ccmc import BaseTransition, ChoiceRows, NoMaximumLikelihoodEstimate, context_rows, fit_context_logit

V = 20


def texts_of(seed: int, count: int, length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, length) for _ in range(count)]


def made_base(seed: int) -> BaseTransition:
    p = np.random.default_rng(1000 + seed).dirichlet(np.full(V, 0.5), V) + 1e-4
    return BaseTransition.from_transition(p / p.sum(axis=1, keepdims=True))


def written_out(rows: ChoiceRows, texts: list[np.ndarray]) -> ChoiceRows:
    """Every token a candidate, log P0 a feature like any other."""
    outside = rows.outside
    assert outside is not None
    following = np.concatenate([text[1:] for text in texts])
    features = np.zeros((len(rows), V, 1 + len(rows.names)))
    for choice, (query, text) in enumerate(zip(outside.query.tolist(), outside.texts.tolist(), strict=True)):
        features[choice, :, 0] = outside.bases[text].log_row(query)
        own = slice(rows.ptr[choice], rows.ptr[choice + 1])
        features[choice, outside.token[own], 1:] = rows.features[own]
    return ChoiceRows.of(features, following, names=["base", *rows.names])


@pytest.mark.parametrize("names", [["present"], ["present", "log-count"], ["recency", "followed-by-1"]])
def test_the_same_as_with_every_token_written_out(names: list[str]) -> None:
    verdicts = []
    for seed in range(40):
        count, length = ((1, 3), (2, 4), (3, 6), (30, 12))[seed % 4]
        texts, base = texts_of(seed, count, length), made_base(seed)
        rows = context_rows(texts, names, base)
        try:
            expected = fit_context_logit(written_out(rows, texts))
        except NoMaximumLikelihoodEstimate:
            with pytest.raises(NoMaximumLikelihoodEstimate):
                fit_context_logit(rows)
            verdicts.append(False)
        except ValueError as error:  # a weight that is not determined
            with pytest.raises(ValueError, match="alike for all candidates"):
                fit_context_logit(rows)
            assert "alike for all candidates" in str(error)
        else:
            found = fit_context_logit(rows)
            assert found.converged
            assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-6)
            verdicts.append(True)
    assert 5 <= sum(verdicts) <= len(verdicts) - 5  # both happen


def test_new_tokens_that_are_always_the_likeliest_have_no_finite_weights() -> None:
    p = np.full((6, 6), 0.1)
    p[np.arange(6), (np.arange(6) + 1) % 6] = 0.5
    base = BaseTransition.from_transition(p)
    with pytest.raises(NoMaximumLikelihoodEstimate, match=r"\+1 base|base"):
        fit_context_logit(context_rows([np.arange(6)], ["present"], base))
    assert fit_context_logit(context_rows([np.arange(6)], ["present"], base), ridge=0.1).converged


def test_where_some_tokens_never_come_the_weight_of_the_base_stays_positive() -> None:
    """What came is always the least likely that can come: against P0 it gains for ever, but P0^a of 0 needs a > 0."""
    rng = np.random.default_rng(5)
    p, text = np.zeros((8, 8)), rng.integers(0, 8, 60)
    for query in range(8):
        p[query, rng.permutation(8)[:4]] = [0.5, 0.3, 0.15, 0.05]
    for place in range(1, 60):
        text[place] = np.flatnonzero(p[text[place - 1]] == 0.05)[0]
    base = BaseTransition.from_transition(p)
    fit = fit_context_logit(context_rows([text], ["present"], base), fixed={"present": 0.0})
    assert fit.full[0] > 0
    assert not fit.converged
