"""Comparison of continuations, prompt by prompt: the real ones, those of surrogates, the ceiling and the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ccmc import CCMC, mean_field
from harness.core.rows import MODEL, RESEEDED, SHUFFLED, Rows
from harness.experiments._shared.continuations import Continuation
from harness.measures.agreement import jaccard, lock_in_error, precision, recall, top_agreement, winner_measures
from harness.measures.extra import measure_continuation
from harness.measures.measurement import Measurement
from harness.measures.repetition import repetition_measures
from harness.measures.sequences import trailing_length
from harness.measures.winners import loser_exponent_of_prompt, own_winner_measures, winner_set

IntArray = np.ndarray[Any, np.dtype[np.int64]]
SHUFFLES = 5


class Comparison:
    """Measures of real continuations and of what is compared with them, prompt by prompt.

    Args:
        rows: where the rows go.
        real: the held-out continuations.
        reseeded: prompt -> continuation with another seed; empty for greedy decoding, which has only one.
        seed: of the shuffles that make the floor.
        sizes: compare the most frequent tokens too, in sets of these sizes; with any, lock-in times and losers as well.
        about: the condition of every row.
        extra: names of measures that are applied to every continuation beside the usual ones.
    """

    def __init__(
        self,
        rows: Rows,
        real: list[Continuation],
        reseeded: dict[str, Continuation],
        seed: int,
        sizes: Sequence[int] = (),
        about: dict[str, Any] | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self.rows, self.real, self.reseeded, self.seed = rows, real, reseeded, seed
        self.sizes, self.about, self.extra = tuple(sizes), about or {}, tuple(extra)

    def _add(
        self,
        measures: dict[str, Measurement],
        surrogate: str,
        seed: int,
        c: Continuation,
        condition: dict[str, Any],
        n: int,
    ) -> None:
        for metric, found in measures.items():
            self.rows.add(
                metric,
                found.value,
                missing=found.missing,
                surrogate=surrogate,
                prompt=c.prompt,
                seed=seed,
                condition={**condition, **self.about} or None,
                n=n,
            )

    def _own(self, surrogate: str, seed: int, c: Continuation, tokens: IntArray, condition: dict[str, Any]) -> None:
        measures = {**repetition_measures(tokens), **own_winner_measures(tokens, c.prompt_tokens)}
        if self.sizes:
            measures["loser_exponent"] = loser_exponent_of_prompt(tokens, c.prompt_tokens)
        measures |= measure_continuation(self.extra, tokens)
        self._add(measures, surrogate, seed, c, condition, len(tokens))

    def _pair(self, surrogate: str, seed: int, c: Continuation, tokens: IntArray) -> None:
        """Compare one continuation with the real one, both cut to the shorter of the two."""
        length = min(len(tokens), len(c.continuation))
        other, condition = tokens[:length], {"real_seed": c.seed}
        self._own(surrogate, seed, c, other, condition)
        pair = winner_measures(c.continuation[:length], other, c.prompt_tokens)
        del pair["winner_size"]  # is among its own measures
        if self.sizes:
            pair |= top_agreement(c.continuation[:length], other, self.sizes)
            pair["lock_in_error"] = lock_in_error(c.continuation[:length], other, c.prompt_tokens)
        self._add(pair, surrogate, seed, c, condition, length)

    def frame_rows(self) -> None:
        """The real measures, the ceiling and the floor."""
        for c in self.real:
            self._own(MODEL, c.seed, c, c.continuation, {})
            other = self.reseeded.get(c.prompt, c)  # greedy decoding repeats itself: its ceiling is perfect
            self._pair(RESEEDED, other.seed, c, other.continuation)
        for seed in sorted({c.seed for c in self.real}):
            group = [c for c in self.real if c.seed == seed]
            order = np.random.default_rng(self.seed).permutation(len(group))
            for shift in range(1, min(SHUFFLES, len(group) - 1) + 1):
                for place, index in enumerate(order):
                    other = group[order[(place + shift) % len(group)]]
                    self._pair(SHUFFLED, shift, group[index], other.continuation)

    def add(self, surrogate: str, seed: int, made: dict[str, IntArray]) -> None:
        """Compare a surrogate's rollouts, prompt -> token ids, with every real continuation of the prompt."""
        for c in self.real:
            self._pair(surrogate, seed, c, made[c.prompt][: len(c.continuation)])

    def add_mean_field(self, surrogate: str, predict: Callable[[Continuation], IntArray] | str) -> None:
        """Compare the winner set that the mean field predicts with every real one.

        Args:
            surrogate: whose chain it is.
            predict: continuation -> the predicted set for its prompt and length; or why there is none.
        """
        for c in self.real:
            condition = {"real_seed": c.seed}
            if isinstance(predict, str):
                nothing = dict.fromkeys(MEAN_FIELD, Measurement(None, predict))
                self._add(nothing, surrogate, 0, c, condition, len(c.continuation))
                continue
            truth, guess = winner_set(c.continuation), predict(c)
            found = {
                "mean_field_jaccard": jaccard(truth, guess),
                "mean_field_precision": precision(truth, guess),
                "mean_field_recall": recall(truth, guess),
                "mean_field_size": Measurement(float(len(guess))),
            }
            self._add(found, surrogate, 0, c, condition, len(c.continuation))


MEAN_FIELD = ("mean_field_jaccard", "mean_field_precision", "mean_field_recall", "mean_field_size")


def mean_field_winners(chain: CCMC, prompt: IntArray, steps: int) -> IntArray:
    """The smallest set with 90 % of what the mean field writes into the trailing window: columns of the chain.

    Args:
        chain: over the types of the prompt.
        prompt: [L] columns; its counts are those at t0 = L.
        steps: length of the continuation.
    """
    counts = np.bincount(prompt, minlength=chain.vocab_size).astype(float)
    width = trailing_length(steps)
    if width == 0:
        return np.zeros(0, dtype=np.int64)
    path = mean_field(chain, counts, steps)
    totals = path.frequencies * path.times[:, None]  # [times, K]
    start = np.log(path.times[-1] - width)
    before = np.array([np.interp(start, np.log(path.times), total) for total in totals.T])
    written = np.maximum(totals[-1] - before, 0.0) / width
    order = np.argsort(-written, kind="stable")
    found: IntArray = order[: int(np.argmax(np.cumsum(written[order]) >= 0.9 * written.sum())) + 1]
    return found
