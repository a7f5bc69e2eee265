"""Repeated sentences: what the theory predicts, curves by hand, the model's own, and what rows say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import torch
from pydantic import ValidationError

from ccmc import CCMC
from harness.core.rows import MODEL, Rows
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.ladder import rungs
from harness.experiments.self_reinforcement.answers import answers
from harness.experiments.self_reinforcement.curves import add_curve, places
from harness.experiments.self_reinforcement.figures import figures
from harness.experiments.self_reinforcement.model_curves import log_along
from harness.experiments.self_reinforcement.parts import AGAINST, UNDECIDED, WITHIN, closed, parts
from harness.experiments.self_reinforcement.sentences import Repeated
from harness.experiments.self_reinforcement.settings import SelfReinforcement
from harness.experiments.self_reinforcement.surrogate_curves import chain_along
from harness.experiments.self_reinforcement.tables import tables
from harness.experiments.self_reinforcement.theory import doublings, largest_slope, slope_of, steepest
from harness.surrogates.base import Ingredients
from harness.surrogates.make import make

SIZE = 7


def repeated(sentence: list[int], times: int, before: tuple[int, ...] = (), **more: Any) -> Repeated:
    given = {"prompt": "p", "group": "g", "kind": "natural", "preamble": len(before), **more}
    return Repeated(before=np.array(before, dtype=np.int64), sentence=np.array(sentence), times=times, **given)


def chain_curve(chain: CCMC, text: Repeated) -> Any:
    """[K + 1, L] log-probabilities by a chain, context by context from its counts and query."""
    came = []
    for t in range(text.first, len(text.tokens)):
        counts = np.bincount(text.tokens[:t], minlength=SIZE).astype(float)
        came.append(chain.next_token(counts, int(text.tokens[t - 1]))[text.tokens[t]])
    with np.errstate(divide="ignore"):
        return text.table(np.log(np.array(came)))


def test_scaling_counts_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        chain, counts = CCMC(rng.normal(0, 2, (SIZE, SIZE))), rng.integers(0, 4, SIZE).astype(float)
        counts[2] += 1
        for k in (1, 2, 5, 12):
            assert chain.next_token(k * counts, 2) == pytest.approx(chain.next_token(counts, 2), abs=1e-14)


def test_no_chain_is_steeper_than_the_bound_and_some_come_near() -> None:
    rng, steep = np.random.default_rng(1), 0.0
    for draw in range(60):
        times, length = int(rng.integers(3, 9)), int(rng.integers(2, 6))
        chain = CCMC(rng.normal(0, rng.choice([0.3, 3.0, 12.0]), (SIZE, SIZE)))
        log_p = chain_curve(chain, repeated(rng.integers(0, SIZE, length).tolist(), times))[1:]
        slopes = [slope_of(column) for column in log_p.T]
        assert slopes[0] == pytest.approx(0, abs=1e-12), draw  # the first token of a repetition
        assert np.abs(slopes).max() <= steepest(times - 1) + 1e-12
        assert abs(slope_of(log_p.mean(axis=1))) <= largest_slope(times - 1, length) + 1e-12
        steep = max(steep, float(np.abs(slopes).max()) / steepest(times - 1))
    assert steep > 0.9
    # all attention on a token that is behind: its count is twice that of others at k = 1
    logits = np.full((SIZE, SIZE), -30.0)
    logits[:, 0] = 30.0
    worst = chain_curve(CCMC(logits), repeated([0, 1, 2], 13))[1:]
    assert slope_of(worst[:, 2]) == pytest.approx(steepest(12), rel=1e-6)


def test_a_preamble_makes_the_curve_of_a_chain_saturate() -> None:
    rng = np.random.default_rng(2)
    chain, sentence = CCMC(rng.normal(0, 1, (SIZE, SIZE))), [0, 1, 2]
    curve = np.exp(chain_curve(chain, repeated(sentence, 200, (3, 4, 5, 6, 3))))[:, 0]
    s, m0 = np.bincount(sentence, minlength=SIZE), np.bincount([3, 4, 5, 6, 3], minlength=SIZE)
    for k in (1, 4, 50):
        assert curve[k] == pytest.approx(chain.next_token((m0 + k * s).astype(float), 2)[0], rel=1e-12)
    limit = chain.next_token(s.astype(float), 2)[0]
    assert (np.diff(curve[1:]) > 0).all()
    assert abs(curve[-1] - limit) < 0.05 * abs(curve[1] - limit)


def test_fitted_chains_are_read_at_the_right_places() -> None:
    text = repeated([4, 2, 4, 1], 4, (6, 2))
    vocabulary = LocalVocabulary([text.tokens])
    counts = make("counts", "next-token", Ingredients(0)).fit(None)
    assert np.exp(chain_along(counts, text, vocabulary)) == pytest.approx(
        np.exp(chain_curve(CCMC(np.zeros((7, 7))), text))
    )
    alone = chain_along(counts, repeated([4, 2, 4, 1], 4), vocabulary)
    assert np.isnan(alone[0, 0])
    assert np.isneginf(alone[0, [1, 3]]).all()
    assert np.exp(alone[2]) == pytest.approx([4 / 8, 2 / 9, 5 / 10, 2 / 11])


@pytest.mark.parametrize("before", [(), (3, 9)])
def test_the_model_is_read_at_the_right_places(before: tuple[int, ...]) -> None:
    model, text = small_models.llama(2), repeated([5, 20, 7], 4, before)
    found = log_along(model, text)
    assert found.shape == (4, 3)
    assert np.isnan(found[0, 0]) == (not before)
    for t in range(text.first, len(text.tokens)):
        with torch.inference_mode():
            logits = model(torch.as_tensor(text.tokens[:t])[None]).logits[0, -1]
        expected = float(torch.log_softmax(logits.double(), -1)[int(text.tokens[t])])
        place = divmod(t - len(before), 3)
        assert found[place] == pytest.approx(expected, abs=1e-4)


def test_slopes_are_per_doubling() -> None:
    assert slope_of(0.2 + 0.05 * doublings(12)) == pytest.approx(0.05)
    assert slope_of(np.array([1.0, 3.0])) == pytest.approx(2.0)


def test_rows_of_a_curve_by_hand() -> None:
    p = np.array([[np.nan, 0.5, 0.2, 0.1], [0.1, 0.6, 0.2, 0.05], [0.3, 0.8, 0.4, 0.2]])
    rows = Rows(experiment="self-reinforcement", model="m", surrogate=MODEL)
    add_curve(rows, repeated([1, 2, 3, 4], 3), np.log(p))
    (part,) = parts(pd.concat([rows.frame(), margin("m")]))
    assert part.last == 2
    assert part.length == 4

    def value(metric: str, k: int = -1, position: str = "all") -> float:
        return float(part.cells[metric, MODEL, "natural", 0, k, position]["value"].iloc[0])

    assert value("sentence_probability", 0) == pytest.approx(0.8 / 3)
    assert value("sentence_probability", 1) == pytest.approx(0.95 / 4)
    assert value("sentence_probability", 2, "first") == pytest.approx(0.3)
    assert value("sentence_probability", 1, "early") == pytest.approx(0.6)
    assert value("sentence_log_probability", 0) == pytest.approx(np.log([0.5, 0.2, 0.1]).mean())
    assert value("winning_rate", 1) == pytest.approx(1 / 3)
    assert value("winning_rate", 2) == pytest.approx(1.0)
    assert value("probability_slope") == pytest.approx((1.7 - 0.95) / 4)
    assert value("probability_slope", position="first") == pytest.approx(0.2)
    assert value("log_probability_slope") == pytest.approx(np.log(p[2] / p[1]).mean())
    assert ("sentence_probability", MODEL, "natural", 0, 0, "first") not in part.cells


def test_what_is_ruled_out_has_no_log_probability() -> None:
    rows = Rows(experiment="self-reinforcement", model="m", surrogate="counts")
    add_curve(
        rows,
        repeated([1, 2], 3),
        np.log(np.array([[np.nan, 1e-300], [0.5, 0.5], [0.5, 0.5]])) - np.array([[0, np.inf], [0, 0], [0, 0]]),
    )
    frame = rows.frame()
    missing = frame[frame["value"].isna()]
    assert set(missing["metric"]) == {"sentence_log_probability", "sentence_probability"}
    assert missing[missing["metric"] == "sentence_log_probability"]["missing"].str.startswith("infinite").all()
    probability = frame[(frame["metric"] == "sentence_probability") & frame["condition"].str.contains('"k": 0')]
    assert probability["value"].dropna().eq(0).all()


@pytest.mark.parametrize("length", [2, 3, 4, 16])
def test_places_are_the_sentence_in_parts(length: int) -> None:
    found = places(length)
    parts_of = np.concatenate([place for name, place in found.items() if name != "all"])
    assert parts_of.tolist() == found["all"].tolist() == list(range(length))


def margin(model: str, starts_with: int = 0) -> pd.DataFrame:
    rows = Rows(experiment="self-reinforcement", model=model, surrogate=MODEL, split="held_out")
    rows.add("margin_probability_slope", 0.01, n=1, condition={"starts_with": starts_with})
    return rows.frame()


def made(
    rise: dict[str, float], noise: float, prompts: int = 20, starts_with: int = 0, replaced: bool = False
) -> pd.DataFrame:
    """Rows of a model whose probability rises by so much per doubling, and of flat counts."""
    rng = np.random.default_rng(3)
    rows = Rows(experiment="self-reinforcement", model="m")
    for kind, slope in rise.items():
        for index in range(prompts):
            text = repeated([1, 2, 3, 4, 5], 9, prompt=f"p{index}", group=f"g{index}", kind=kind)
            own = np.full((9, 5), 0.05)
            own[1:] = 0.2 + (slope + noise * rng.normal()) * doublings(8)[:, None] + 0.001 * rng.normal()
            add_curve(rows, text, np.log(np.clip(own, 0.001, 0.999)), surrogate=MODEL)
            flat = np.full((9, 5), 0.2)
            add_curve(rows, text, np.log(flat), surrogate="counts")
            near = np.clip(own - 0.02, 0.001, 1)
            add_curve(rows, text, np.log(near), surrogate="context-logit", condition={"rung": "counts"})
            half, heads = 0.2 + (own - 0.2) / 2, {"order": "pccmc-fit", "share": 0.25, "heads": 9}
            for name in ("pccmc-fit", "counts") if replaced else ():
                add_curve(rows, text, np.log(half), surrogate=name, condition=heads)
    return pd.concat([margin("m", starts_with), rows.frame()], ignore_index=True)


def test_a_curve_that_rises_is_evidence_against_closed_chains() -> None:
    rows = made({"natural": 0.15, "random": 0.0, "self-written": 0.0}, 0.002)
    (part,) = parts(rows)
    assert [one.kind for one in part.tested] == ["natural", "random", "self-written"]
    assert [one.verdict for one in part.tested] == [AGAINST, WITHIN, WITHIN]
    assert [one.word for one in part.tested] == [AGAINST, WITHIN, WITHIN]
    rises, chain, closest = answers(rows)
    assert "+0.150" in rises.text
    assert "with 1 of 3 kinds" in chain.text
    assert chain.answered
    assert "context-logit: + counts is closest" in closest.text
    assert "closest closed chain is counts" in closest.text


def test_what_is_neither_is_undecided() -> None:
    rows = made({"natural": 0.01}, 0.05, prompts=6)
    (part,) = parts(rows)
    assert [one.verdict for one in part.tested] == [UNDECIDED]
    chain = answers(rows)[1]
    assert not chain.answered
    assert "Undecided" in chain.text
    assert "could have found" in chain.text


def test_many_kinds_need_more_evidence() -> None:
    """A slope whose own p-value is just below 5 % differs alone, and does not among three."""
    for noise in np.linspace(0.02, 0.2, 60):
        alone = parts(made({"natural": 0.03}, float(noise), prompts=8))[0].tested[0].first
        if alone.p_differs is not None and 0.02 < alone.p_differs < 0.05:
            break
    else:
        raise AssertionError("no noise makes such a p-value")
    assert alone.word == "differs"
    three = parts(made({"natural": 0.03, "random": 0.0, "self-written": 0.0}, float(noise), prompts=8))[0].tested
    assert three[0].first.interval == alone.interval
    assert three[0].verdict == UNDECIDED


def test_a_model_that_begins_texts_with_a_token_of_its_own_is_not_tested() -> None:
    rows = made({"natural": 0.15}, 0.002, starts_with=1)
    assert parts(rows)[0].tested == []
    chain = answers(rows)[1]
    assert not chain.answered
    assert "begins with a token of its own" in chain.text


def test_differences_are_of_the_same_sentences() -> None:
    (part,) = parts(made({"natural": 0.1}, 0.02))
    found = part.against_model("probability_slope", "context-logit: + counts", "natural", 0)
    assert found.value == pytest.approx(0, abs=2e-3)  # clipped here and there
    assert found.high is None or found.high - found.low < 0.01  # the noise of sentences is gone
    assert part.mean_distance("context-logit: + counts", "natural", 0).value == pytest.approx(0.02, abs=2e-3)


def test_tables_and_figures_hold_every_arm() -> None:
    rows = made({"natural": 0.1, "random": 0.05}, 0.02)
    found = {table.name: table for table in tables(rows)}
    assert list(found) == [f"self-reinforcement.{name}" for name in ("model", "theory", "arms", "positions", "curves")]
    assert [table.headline for table in found.values()] == [True, False, False, False, False]
    arms = found["self-reinforcement.arms"]
    assert arms.column("arm") == 2 * [MODEL, "counts", "context-logit: + counts"]
    assert len(found["self-reinforcement.curves"].rows) == 2 * 3 * 9
    assert len(found["self-reinforcement.positions"].rows) == 2 * 3 * 5
    (figure,) = figures(rows, pd.DataFrame())
    drawn = figure.draw()
    assert [axis.get_title() for axis in drawn.axes] == ["natural, no preamble", "random, no preamble"]
    assert len(drawn.axes[0].containers) == 3
    assert answers(rows[:0])[0].answered is False
    assert tables(rows[:0]) == []
    assert figures(rows[:0], pd.DataFrame()) == []


def test_heads_that_are_replaced_are_arms_of_their_own() -> None:
    rows = made({"natural": 0.1}, 0.01, replaced=True)
    (part,) = parts(rows)
    loop = ["9 heads as pccmc-fit", "9 heads as counts, those of pccmc-fit"]
    assert part.arms == [MODEL, "counts", "context-logit: + counts", *loop]
    assert not any(map(closed, loop))
    change = part.against_model("probability_slope", loop[0], "natural", 0).value
    slope = part.mean("probability_slope", MODEL, "natural", 0).value
    assert change is not None
    assert slope is not None
    assert change == pytest.approx(-slope / 2, abs=1e-6)
    heads = answers(rows)[-1]
    assert "With 9 heads as pccmc-fit the slope per doubling changes by natural -0.0" in heads.text
    assert "9 heads" not in answers(rows)[-2].text
    curves, of_heads = figures(rows, pd.DataFrame())
    assert len(curves.draw().axes[0].containers) == len(of_heads.draw().axes[0].containers) == 3


def test_closed_chains_are_those_that_read_counts_and_query() -> None:
    assert [name for name in ("counts", "ccmc-fit", "context-logit-closed: + counts") if not closed(name)] == []
    assert not any(closed(name) for name in (MODEL, "in-context-bigram", "suffix", "unigram-cache", "bigram"))


def test_rungs_add_up() -> None:
    assert rungs(("counts", "recency + followed-by-1")) == {
        "counts": ("counts",),
        "recency + followed-by-1": ("counts", "recency", "followed-by-1"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": ["natural", "natural"]}, "listed twice"),
        ({"preambles": [-1]}, "at least 0"),
        ({"surrogates": ["context-logti"]}, "context-logit"),
        ({"chains": ["ccmc-mixture"]}, "no such one"),
        ({"chains": ["bigram"]}, "no such one"),
        ({"statistics": ["counts", "counts"]}, "named twice"),
        ({"heads": ["pccmc-fitt"]}, "pccmc-fit"),
        ({"head_nulls": ["count"]}, "counts"),
        ({"head_shares": [0.0]}, "above 0"),
        ({"repetitions": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SelfReinforcement.model_validate({"kind": "self-reinforcement", **change})
