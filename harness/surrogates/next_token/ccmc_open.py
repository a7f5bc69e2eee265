"""`ccmc-open`: base transitions and counts over all tokens, so that the context may be left."""

from __future__ import annotations

from typing import Self

import numpy as np

from ccmc import BaseTransition, ContextLogit, context_rows, fit_context_logit
from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.markov import MarkovChain
from harness.surrogates.base import NextTokenSurrogate
from harness.surrogates.observations import NextTokenObservations

WEIGHTS = ("present", "log-count")
RIDGE = 1e-3  # of the whole fit: keeps the weight of `present` finite where the model never leaves its context
LARGEST = 2048  # tokens: P0 is a dense table


@register.surrogate(
    "ccmc-open",
    of="next-token",
    sees=("counts", "query"),
    parameters="K(K-1) + 3",
    rollout=True,
    open=True,
    rung=95,
    about="a chain over all tokens: fitted transitions, counts, and a bonus for tokens of the context",
    cost="seconds, for up to 2,048 tokens",
    source="this project",
)
class CCMCOpen(NextTokenSurrogate):
    """u_j = a log P0[i, j] + [j in context] (b0 + b1 log m_j) for every token j, where i is the query.

    P0 is that of `bigram`: the mean of the model's next-token distributions after each query, shrunk to that of all
    queries. The three weights are fitted to the model's whole distributions along the same texts. a = b1 = 1 and a
    large b0 is the closed chain with base transitions P0.

    Args:
        seed: of the inner split that chooses the shrinkage of P0.

    Attributes:
        chain_: the fitted chain whose rows are P0.
        model_: the fitted `ContextLogit`.
    """

    chain_: MarkovChain
    model_: ContextLogit

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, observations: NextTokenObservations) -> Self:
        """Fit P0, then the weights.

        Raises:
            ValueError: the local vocabulary has more than 2,048 tokens.
        """
        size = self.vocab_size_ = observations.vocab_size
        if size > LARGEST:
            raise ValueError(
                f"ccmc-open keeps a dense table of base transitions: at most {LARGEST:,} tokens, and the texts have "
                f"{size:,}; leave ccmc-open out, or give fewer or shorter texts"
            )
        chain = self.chain_ = MarkovChain(self.seed).fit(observations)
        base = BaseTransition.from_transition(np.stack([chain.row(query) for query in range(size)]))
        self._log_base = np.stack([base.log_row(query) for query in range(size)])
        targets = [self._targets(observations, index) for index in range(len(observations.texts))]
        texts, starts = [], []
        for text in observations.texts:
            read = text.tokens[text.first : text.positions[-1] + 1]
            texts.append(np.append(read, read[-1]))  # any token: the last context is chosen from, too
            starts.append(int(text.positions[0]) - text.first + 1)
        rows = context_rows(texts, WEIGHTS, base, starts, targets=targets)
        self.model_ = ContextLogit.from_fit(fit_context_logit(rows, ridge=RIDGE), base)
        return self

    def _targets(self, observations: NextTokenObservations, index: int) -> tuple[FloatArray, FloatArray]:
        """Of a text, as `context_rows` takes them: [n, U] in the context, and [n, 2] elsewhere.

        The mass that the model gives to tokens outside the observations goes where its other mass outside the context
        goes, in proportion, so that the share of leaving stays.
        """
        text, target = observations.texts[index], observations.targets[index]
        inside, beyond = np.ones(len(text)), np.zeros((len(text), 2))
        if observations.outside:
            outside = observations.outside[index].toarray()
            mass = outside.sum(axis=1)
            inside = np.where(mass > 0, observations.in_context_mass[index], 1.0)
            beyond[:, 0] = 1.0 - inside
            log = (outside * self._log_base[text.types[text.query]]).sum(axis=1)
            beyond[:, 1] = log * beyond[:, 0] / np.where(mass > 0, mass, 1.0)
        types, first = np.unique(text.tokens[text.first : text.positions[-1] + 1], return_index=True)
        columns = np.searchsorted(text.types, types[np.argsort(first)])
        return (target * inside[:, None])[:, columns], beyond

    def _whole(self, query: IntArray, counts: FloatArray) -> FloatArray:
        """[n, K] distributions over all tokens, for queries [n] and counts [n, K]."""
        base, present, log_count = self.model_.vector
        known = counts > 0
        utility = base * self._log_base[query]
        utility += np.where(known, present + log_count * np.log(np.where(known, counts, 1.0)), 0.0)
        p: FloatArray = np.exp(utility - utility.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return p

    def _along(self, text: Text) -> tuple[FloatArray, FloatArray]:
        """[n, K] distributions over all tokens along a text, and the counts."""
        counts = np.zeros((len(text), self.vocab_size_))
        counts[:, text.types] = text.counts
        return self._whole(text.types[text.query], counts), counts

    def predict(self, text: Text) -> FloatArray:
        whole, counts = self._along(text)
        inside = np.where(counts > 0, whole, 0.0)[:, text.types]
        restricted: FloatArray = inside / inside.sum(axis=1, keepdims=True)
        return restricted[None]

    def leaving(self, text: Text) -> FloatArray:
        """[n] what it gives to tokens outside the context along a text."""
        whole, counts = self._along(text)
        left: FloatArray = np.where(counts > 0, 0.0, whole).sum(axis=1)
        return left

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        """One distribution over some tokens while a text grows: [U]; see `NextTokenSurrogate.next_token`."""
        every = np.zeros((1, self.vocab_size_))
        every[0, types] = counts
        whole = self._whole(types[history[-1:]], every)[0, types]
        possible: FloatArray = whole / whole.sum()
        return possible
