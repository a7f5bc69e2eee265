"""A reader of a growing context gives the law of `ContextLogit.next_token`, however its tokens arrive."""

from __future__ import annotations

import numpy as np
import pytest

from ccmc import CCMC, BaseTransition, ContextLogit, ContextReader

V = 30
OPEN = {"base": 0.8, "present": 0.4, "log-count": 0.7, "recency": -0.3, "followed-by-1": 2.0, "followed-by-3": 1.0,
        "longest-match": 0.1, "recent-8": 0.2, "unigram": -0.2, "base-by-match": 0.05, "base-inside": -0.3,
        "suffix": 0.3}  # fmt: skip


@pytest.fixture(scope="module")
def base() -> BaseTransition:
    p = np.random.default_rng(3).dirichlet(np.full(V, 0.3), V) + 1e-5
    p /= p.sum(axis=1, keepdims=True)
    return BaseTransition.from_rows(np.arange(0, V, 2), p[::2], top=6)  # odd queries have the unigram


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 9, 150) * 3


@pytest.mark.parametrize(
    ("weights", "closed", "offset"),
    [(OPEN, False, "none"), (OPEN, True, "none"), ({}, False, "none"), ({"base": 0.0, "present": 2.0}, False, "none"),
     ({"followed-by-1": 1.0}, True, "followed-by-1"), ({"log-count": 0.5}, False, "counts")],
)  # fmt: skip
def test_laws_are_those_of_next_token(base, text, weights, closed, offset) -> None:
    model = ContextLogit(weights, base, closed, offset)
    expected = np.log(np.maximum(model.next_token([text[:n] for n in range(1, len(text) + 1)]), 1e-300))
    whole = ContextReader(model, room=4).read(text, laws=len(text))
    np.testing.assert_allclose(np.maximum(whole, np.log(1e-300)), expected, atol=1e-10)
    reader = ContextReader(model, room=1)
    for low, high in ((0, 1), (1, 40), (40, 41), (41, 150)):
        last = reader.read(text[low:high])
        np.testing.assert_allclose(last[0], whole[high - 1], atol=1e-12)
    assert len(reader) == 150
    np.testing.assert_array_equal(reader.tokens, text)


def test_the_chain_of_the_paper_is_read(text) -> None:
    chain = CCMC(np.random.default_rng(5).normal(size=(V, V)))
    model = ContextLogit({"log-count": 1.0}, BaseTransition.from_transition(chain.transition), closed=True)
    reader, m = ContextReader(model), np.zeros(V)
    for token in text[:40]:
        m[token] += 1
        np.testing.assert_allclose(np.exp(reader.read([token])[0]), chain.next_token(m, int(token)), atol=1e-12)


def test_copies_go_their_own_way(base, text) -> None:
    model = ContextLogit(OPEN, base)
    reader = ContextReader(model)
    reader.read(text[:30])
    other = reader.copy()
    one, two = reader.read([3])[0], other.read([6])[0]
    np.testing.assert_allclose(one, ContextReader(model).read([*text[:30], 3])[0], atol=1e-12)
    np.testing.assert_allclose(two, ContextReader(model).read([*text[:30], 6])[0], atol=1e-12)
    assert np.abs(one - two).max() > 0.01


def test_what_cannot_be_read_is_refused(base) -> None:
    reader = ContextReader(ContextLogit({}, base))
    for tokens, laws, message in (
        ([], 1, "at least one token"),
        ([V], 1, "outside the vocabulary"),
        ([1], 2, "at most"),
    ):
        with pytest.raises(ValueError, match=message):
            reader.read(tokens, laws)
    assert len(reader) == 0
