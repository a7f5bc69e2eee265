"""Bigrams of training texts as base transitions, cross-fitted twice.

Texts of the judged fold are predicted with the bigram of all other texts. Texts that a fold is fitted to are counted
themselves, so that each has the bigram of all texts but the judged fold and its own part: else P0 has seen what it is
to predict, and its fitted weight is too large. Parts are the folds where there are three or more; else groups are dealt
out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ccmc import BaseTransition, fit_bigram

IntArray = np.ndarray[Any, np.dtype[np.int64]]

BIGRAM = "bigram"
"""Its name among base transitions, where all others are named by their neutral context, and that of the surrogate."""
PARTS = 4


def expected_name(fold: int) -> str:
    """What expected logs under the bigram for a judged fold are called in files."""
    return f"{BIGRAM}/{fold}"


class Bigrams:
    """All bigrams of some texts, made as they are needed.

    Args:
        texts: prompt, group, fold (-1: of none) and tokens of each.
        vocab_size: V.
        top: how many tokens a row keeps.
    """

    def __init__(self, texts: Iterable[tuple[str, str, int, IntArray]], vocab_size: int, top: int) -> None:
        given = sorted(texts, key=lambda text: text[0])
        self.vocab_size, self.top = vocab_size, top
        self._tokens = {prompt: tokens for prompt, _, _, tokens in given}
        self._folds = {prompt: fold for prompt, _, fold, _ in given}
        dealt = {group: place % PARTS for place, group in enumerate(sorted({group for _, group, _, _ in given}))}
        folds = len(set(self._folds.values())) > 2
        self._parts = {prompt: fold if folds else dealt[group] for prompt, group, fold, _ in given}
        self._made: dict[frozenset[str], BaseTransition] = {}

    @property
    def judged(self) -> list[int]:
        """The folds whose texts are judged."""
        return sorted(set(self._folds.values()) - {-1})

    def counted(self, fold: int, prompt: str | None = None) -> frozenset[str]:
        """Whose texts are counted for a judged fold: to judge with, or to fit to the text of a prompt."""
        part = None if prompt is None else self._parts[prompt]
        return frozenset(
            other for other, own in self._folds.items() if own != fold and (part is None or self._parts[other] != part)
        )

    def to_judge(self, fold: int) -> BaseTransition:
        """Of all texts but those of a fold, which it predicts."""
        return self._of(self.counted(fold))

    def to_fit(self, fold: int, prompt: str) -> BaseTransition:
        """For the text of a prompt in the fit that judges a fold: of all texts but that fold and the text's part.

        Raises:
            ValueError: the text is of the fold.
        """
        if self._folds[prompt] == fold:
            raise ValueError(f"prompt {prompt!r} is judged in fold {fold}, which is not fitted to it")
        return self._of(self.counted(fold, prompt))

    def along(self, prompt: str) -> dict[str, BaseTransition]:
        """Those that are fitted to the text of a prompt, by `expected_name`."""
        return {expected_name(fold): self.to_fit(fold, prompt) for fold in self.judged if fold != self._folds[prompt]}

    def _of(self, prompts: frozenset[str]) -> BaseTransition:
        if prompts not in self._made:
            texts = [tokens for prompt, tokens in self._tokens.items() if prompt in prompts]
            self._made[prompts] = fit_bigram(texts, self.vocab_size, self.top)
        return self._made[prompts]
