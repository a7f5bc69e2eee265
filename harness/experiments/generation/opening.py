"""A surrogate over the tokens of a run's texts as a law over the model's whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from harness.hf.escape_law import OWN_ROWS, Elsewhere, EscapeLaw, Forms, Inside, Rows
from harness.surrogates._fitting import escape as escapes
from harness.surrogates._fitting import markov
from harness.surrogates._fitting.escape import Escape
from harness.surrogates.next_token.n_gram import ORDERS
from harness.surrogates.observations import NextTokenObservations

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Made = tuple[Inside, dict[str, float], Rows | Forms | None]
LEAST = 1e-9  # rate of leaving, and mass of tokens that are not known: no token is impossible


def open_law(
    name: str, fitted: Any, escape: Escape, observations: NextTokenObservations, ids: IntArray, vocab: int
) -> EscapeLaw:
    """A fitted surrogate with its escape over a whole vocabulary.

    Args:
        name: of `EXPORTED`.
        fitted: the surrogate, over K local tokens.
        escape: fitted to the same texts.
        observations: of training texts, with `in_context_mass` and `outside`.
        ids: [K] the token of each local id.
        vocab: V.
    """
    inside, weights, theta = _INSIDE[name](fitted, ids, vocab)
    mean = float(np.maximum(1.0 - np.concatenate(list(observations.in_context_mass)), 0.0).mean())
    rate = np.full(vocab, mean)
    rate[ids] = escape.rate_
    if inside in OWN_ROWS:
        chain = fitted.chain_ if inside == "open-chain" else fitted
        elsewhere = _elsewhere(chain.prior_, chain.sums_, markov.FLOOR, observations, ids, vocab)
    else:
        leaving = escape.leaving()
        elsewhere = _elsewhere(leaving.overall, leaving.pairs, escapes.FLOOR, observations, ids, vocab)
    rate, forms = np.clip(rate, LEAST, 1.0 - LEAST), None
    if isinstance(theta, Forms):
        theta, forms = None, theta
    return EscapeLaw(inside, weights, theta, rate, elsewhere, forms=forms)


def widened(table: sparse.csr_array, ids: IntArray, vocab: int) -> sparse.csr_array:
    """A table of local tokens [K, K] as one of all tokens [V, V]."""
    found = sparse.coo_array(table)
    row, column = found.coords
    wide = sparse.csr_array((found.data, (ids[row], ids[column])), shape=(vocab, vocab))
    wide.sum_duplicates()
    return wide


def _spread(values: FloatArray, ids: IntArray, vocab: int, fill: float) -> FloatArray:
    """[V] values of local tokens [K], and `fill` for all others."""
    wide = np.full(vocab, fill)
    wide[ids] = values
    return wide


def _elsewhere(
    overall: FloatArray, pairs: sparse.csr_array, floor: float, observations: NextTokenObservations, ids: IntArray,
    vocab: int,
) -> Elsewhere:  # fmt: skip
    """Mass [K] + [K, K] with a floor as one over all tokens.

    Those without a mass are one more type: it has the mass that the model gave them along the training texts, and the
    same floor and weight of the mean over all queries as every other type.
    """
    known = overall > 0
    unknown = unknown_mass(observations, known)  # [K] by query
    kept = sparse.csr_array(pairs * known[None, :])
    kept.eliminate_zeros()
    seen = float(kept.sum()) + floor * int(known.sum())
    common = float(overall.sum()) * (float(unknown.sum()) + floor) / seen if seen > 0 else 0.0
    rest = _spread(common + unknown, ids, vocab, common)
    everywhere = np.zeros(vocab, dtype=bool)
    everywhere[ids] = known
    mass = Rows(_spread(np.where(known, overall, 0.0), ids, vocab, 0.0), widened(kept, ids, vocab))
    return Elsewhere(mass, np.maximum(rest, LEAST), everywhere)


def unknown_mass(observations: NextTokenObservations, known: BoolArray) -> FloatArray:
    """[K] what the model gave after each query to tokens that are neither in the context nor known, over all texts."""
    total = np.zeros(observations.vocab_size)
    of_texts = zip(observations.texts, observations.in_context_mass, observations.outside, strict=True)
    for text, inside, outside in of_texts:
        left = 1.0 - inside - np.asarray(outside @ known.astype(np.float64))
        total += np.bincount(text.types[text.query], weights=np.maximum(left, 0.0), minlength=len(total))
    return total


def _counts(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "chain", {"log-count": 1.0}, None


def _ccmc_fit(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "chain", {"log-count": 1.0}, Rows(np.zeros(vocab), widened(fitted.delta_[0], ids, vocab))


def _bigram_restricted(fitted: Any, ids: IntArray, vocab: int) -> Made:
    # log(prior_j + sum_ij) = log prior_j + log(1 + sum_ij / prior_j); a token that is not known has the floor alone
    more = sparse.csr_array(fitted.sums_, copy=True)
    more.data = np.log1p(more.data / fitted.prior_[more.indices])
    log_prior = np.log(fitted.prior_)
    return "chain", {}, Rows(_spread(log_prior, ids, vocab, float(log_prior.min())), widened(more, ids, vocab))


def _bigram(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "bigram", {}, None


def _in_context_bigram(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "back-off", {"order-2": float(fitted.alpha_)}, None


def _n_gram(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "back-off", {f"order-{n}": float(mass) for n, mass in zip(ORDERS, fitted.alpha_, strict=True)}, None


def _ccmc_open(fitted: Any, ids: IntArray, vocab: int) -> Made:
    return "open-chain", dict(zip(("base", "present", "log-count"), fitted.model_.vector.tolist(), strict=True)), None


def _mixture(fitted: Any, ids: IntArray, vocab: int) -> Made:
    """Tables of the run's tokens [H, K, d], and one more row, their mean, for all others."""
    terms, k = fitted.chain_terms(len(ids)), len(ids)  # tables of heads may have a row for the first position beside
    queries, keys = (
        np.concatenate([table[:, :k], table[:, :k].mean(axis=1, keepdims=True)], axis=1)
        for table in (terms.queries, terms.keys)
    )
    place = np.full(vocab, k)
    place[ids] = np.arange(k)
    weights = {"counts": terms.counts_weight} if terms.counts_weight else {}
    return "mixture", weights, Forms(place, terms.weights, queries, keys, terms.softcap)


_INSIDE: dict[str, Callable[[Any, IntArray, int], Made]] = {
    "ccmc-fit": _ccmc_fit,
    "counts": _counts,
    "bigram": _bigram,
    "bigram-restricted": _bigram_restricted,
    "in-context-bigram": _in_context_bigram,
    "n-gram": _n_gram,
    "ccmc-open": _ccmc_open,
    "ccmc-bilinear": _mixture,
    "ccmc-head": _mixture,
    "ccmc-mixture": _mixture,
}
EXPORTED = tuple(_INSIDE)
