"""What a plugin relies on: a surrogate of a few lines is made, fitted, predicts, is scored and continues prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_heads import K, static_heads, text

from harness.attention.blocks import Once, View
from harness.attention.log_weights import NO_VALUES, LogWeights
from harness.core.registry import register, surrogates
from harness.data.texts import Text
from harness.experiments._shared.head_scores import score_text
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates.base import HeadSurrogate, Ingredients, NextTokenSurrogate
from harness.surrogates.make import make, needed
from harness.surrogates.observations import NextTokenObservations, pair_mass
from harness.surrogates.statistics import Statistics


@register.surrogate("recency", of="heads", sees=("distance",))
class Recency(HeadSurrogate):
    def along(self, view: View) -> Any:
        profile = -torch.log1p(torch.arange(view.length, dtype=torch.float32))[None]
        return lambda block: LogWeights(NO_VALUES, by_token=False, profile=profile)


@register.surrogate("recency-by-position", of="heads", sees=("distance",))
class RecencyByPosition(HeadSurrogate):
    def log_weights(self, text: Text) -> Any:
        return -np.log1p(np.abs(text.positions[:, None] - text.keys[None, :]))


class RecencyByHead(RecencyByPosition):
    def log_weights(self, text: Text) -> Any:
        return np.arange(4)[:, None, None] * super().log_weights(text)


@register.surrogate("recent-token", of="next-token", sees=("order",), rollout=True)
class RecentToken(NextTokenSurrogate):
    rate_ = 0.5

    def next_token(self, types: Any, counts: Any, history: Any) -> Any:
        weight = np.bincount(history, self.rate_ ** np.arange(len(history))[::-1], minlength=len(types))
        return weight / weight.sum()


def by_hand(of: Text, power: float = 1.0) -> Any:
    """[n, U] attention of 1 / (1 + distance)^power, key by key."""
    found = np.zeros(of.counts.shape)
    for row, position in enumerate(of.positions):
        for place in range(max(of.first, position + 1 - (of.window or position + 1)), position + 1):
            found[row, of.key_index[place - of.first]] += (1.0 + position - place) ** -power
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("kind", [Recency, RecencyByPosition])
def test_a_plugin_of_heads_predicts_and_is_scored(kind: type[HeadSurrogate], window: int | None) -> None:
    made = kind.make(Ingredients(0))
    of = Text(text(3, 150).tokens, start=1, first=1, window=window)
    np.testing.assert_allclose(made.predict(of)[0], by_hand(of), atol=1e-6)
    call = static_heads().of_text(of.tokens)
    _, found = score_text(call, View(of), {"one": made, "other": RecencyByPosition()})
    for metric in ("kl", "kl_position", "total_variation", "top_token"):
        np.testing.assert_allclose(found["one"][metric], found["other"][metric], atol=1e-5)
        assert np.isfinite(found["one"][metric]).all()


def test_each_head_may_have_its_own_log_weights() -> None:
    of = Text(text(3, 150).tokens, start=1, first=1)
    predicted = RecencyByHead().predict(of)
    for head in range(4):
        np.testing.assert_allclose(predicted[head], by_hand(of, head), atol=1e-5)
    _, found = score_text(static_heads().of_text(of.tokens), View(of), {"it": RecencyByHead(), "one": Recency()})
    assert found["it"]["kl"][1] == pytest.approx(found["one"]["kl"][1], abs=1e-5)
    assert abs(found["it"]["kl"][3] - found["one"]["kl"][3]) > 1e-3


def test_a_plugin_of_next_tokens_predicts_and_rolls_out() -> None:
    made = RecentToken.make(Ingredients(0))
    of = Text([3, 5, 3, 9, 5], start=0)
    np.testing.assert_allclose(made.predict(of)[0][2], np.array([5, 2, 0]) / 7)
    target = of.counts / of.counts.sum(axis=1, keepdims=True)
    observed = NextTokenObservations([of], ["p"], [pair_mass(of, target[None], 10)], 10, [target])
    held = target > 0
    assert made.loss(observed) == pytest.approx(-float(target[held] @ np.log(made.predict(of)[0][held])) / 5)
    (tokens,) = made.rollout([np.array([3, 5, 3])], [20], 0, Decoding(1.0))
    assert len(tokens) == 20
    assert set(tokens.tolist()) <= {3, 5}


def test_a_class_that_says_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="Silent defines neither log_weights nor along"):
        type("Silent", (HeadSurrogate,), {})
    with pytest.raises(TypeError, match="Silent defines neither next_token nor predict"):
        type("Silent", (NextTokenSurrogate,), {})


def test_every_declared_surrogate_is_made_from_what_it_needs() -> None:
    given = Ingredients(3, static_heads(), np.random.default_rng(0).normal(size=(K, 9)), [object()])
    for of in ("heads", "next-token"):
        for name, declared in surrogates(of).items():
            made = make(name, of, given)  # type: ignore[arg-type]
            assert (made.name, made.declaration.of) == (name, of)
            if declared.needs:
                with pytest.raises(ValueError, match=f"{name}.* needs '{declared.needs[0]}'"):
                    make(name, of, Ingredients(3))  # type: ignore[arg-type]
    assert needed(["counts", "ccmc-mixture", "ccmc-bilinear"], "next-token") == {"chains", "embeddings"}


def test_what_belongs_to_an_object_is_computed_once() -> None:
    once, mine, other, calls = Once(), [1], [1], []
    for owner in (mine, mine, other):
        once.get(owner, "sum", lambda owner=owner: calls.append(owner))  # type: ignore[misc]
    assert [id(owner) for owner in calls] == [id(mine), id(other)]
    once.keep(mine, "sum", 7)
    assert once.get(mine, "sum", lambda: 0) == 7


@pytest.mark.parametrize("window", [None, 4])
def test_statistics_of_a_context_by_hand(window: int | None) -> None:
    of = Text(text(6, 30).tokens, start=3, first=1, window=window)
    found = Statistics(of)
    for row, position in enumerate(of.positions):
        seen = range(max(1, position + 1 - window) if window else 1, position + 1)
        for column, token in enumerate(of.types):
            ages = [position - place for place in seen if of.tokens[place] == token]
            assert found.age[row, column] == (min(ages) if ages else np.inf)
            for length in (1, 2):
                tail = of.tokens[position + 1 - length : position + 1].tolist()
                followed = sum(
                    of.tokens[place - length : place].tolist() == tail and of.tokens[place] == token
                    for place in range(1 + length, position + 1)
                )
                assert found.followed(length)[row, column] == followed


def test_a_part_keeps_every_field_of_its_prompts() -> None:
    texts = [text(seed) for seed in range(3)]
    targets = [t.counts / t.counts.sum(axis=1, keepdims=True) for t in texts]
    whole = NextTokenObservations(
        texts, ["a", "b", "a"], [pair_mass(t, x[None], K) for t, x in zip(texts, targets, strict=True)], K, targets
    )
    part = whole.part({"a"})
    assert (part.texts, part.targets, part.outside) == ([texts[0], texts[2]], [targets[0], targets[2]], ())
    assert part.pair_wins.sum() == pytest.approx(len(texts[0]) + len(texts[2]))
