"""The rule that chooses a rung, the chosen ladder in the rows, and what tables and answers say of it: known truths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_repetition import CHOSEN, ENERGIES, LOSSES, NULL, RUNGS, SEEN, repetition_rows

from harness.core.records import Answer, Table
from harness.core.rows import Rows
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.choosing import RULE, choose, choose_rungs
from harness.experiments.repetition.chosen import Chosen, choices, with_chosen
from harness.experiments.repetition.parts import parts
from harness.experiments.repetition.tables import tables
from harness.experiments.repetition.vectors import energy_of, spreads
from harness.runs.units import Work
from harness.stats.proper import energy_score

TWO = {0: "followed-by-1", 1: "counts", 2: "followed-by-1"}
QUESTION = "Does one rung, chosen on training prompts, repeat as the model does?"


def scores(*means: float, n: int = 30, spread: float = 0.3) -> np.ndarray[Any, Any]:
    """[rungs, n] with exactly these means."""
    drawn = np.random.default_rng(0).standard_normal((len(means), n))
    middle = drawn.sum(axis=1)[:, None] / max(n, 1)
    found: np.ndarray[Any, Any] = np.array(means)[:, None] + spread * (drawn - middle)
    return found


def table(rows: pd.DataFrame, name: str) -> Table:
    (found,) = [one for one in tables(rows) if one.name == name]
    return found


def lines(found: Table, **where: Any) -> list[dict[str, Any]]:
    every = [dict(zip([column.name for column in found.columns], row, strict=True)) for row in found.rows]
    return [one for one in every if all(one[key] == value for key, value in where.items())]


def said(rows: pd.DataFrame) -> Answer:
    return next(answer for answer in answers(rows) if answer.question == QUESTION)


def test_the_rung_with_the_least_energy_is_chosen() -> None:
    groups = np.arange(30)
    choice = choose(scores(3.0, 3.0, 1.02, 1.0, 1.01), groups, np.arange(5.0))
    assert choice.place == 3
    assert choice.means.tolist() == pytest.approx([3.0, 3.0, 1.02, 1.0, 1.01])
    assert choice.p[3] is None
    assert max(choice.p[0] or 0, choice.p[1] or 0) < 0.001
    assert min(choice.p[2] or 0, choice.p[4] or 0) > 0.5
    assert choose(scores(1.0, 2.0, 3.0), groups, np.zeros(3)).place == 0
    assert choose(scores(3.0, 2.0, 1.0), groups, np.zeros(3)).place == 2
    assert choose(scores(5.0), groups, np.zeros(1)).place == 0


def test_how_many_prompts_there_are_does_not_favour_a_side() -> None:
    """Copies of the same prompts choose as they do, unlike what is significant."""
    energies = scores(2.0, 1.0, 1.5, n=8, spread=3.0)
    few = choose(energies, np.arange(8), np.zeros(3))
    many = choose(np.tile(energies, 20), np.arange(160), np.zeros(3))
    assert few.place == many.place == 1
    assert (few.p[0] or 0) > 0.05 > (many.p[0] or 1)


def test_groups_are_what_is_tested() -> None:
    """A difference that 30 prompts show is not shown by 6 groups of five that are alike."""
    drawn = np.random.default_rng(1).standard_normal(6)
    alike = np.repeat(drawn - drawn.mean(), 5)
    energies = np.stack([1.4 + alike, np.ones(30)])
    grouped, apart = (choose(energies, of, np.zeros(2)).p[0] for of in (np.repeat(np.arange(6), 5), np.arange(30)))
    assert (apart or 1) < 0.05 < (grouped or 0)


def test_equal_means_are_told_apart_by_the_log_loss() -> None:
    worse, one = scores(9.0, 1.0)
    energies = np.stack([worse, one, one])
    assert choose(energies, np.arange(30), np.array([3.0, 2.0, 1.0])).place == 2
    assert choose(energies, np.arange(30), np.array([3.0, 1.0, 2.0])).place == 1


def test_a_rung_can_be_chosen_where_nothing_can_be_tested() -> None:
    choice = choose(scores(3.0, 1.0, n=4), np.arange(4), np.zeros(2))
    assert (choice.place, choice.p) == (1, (None, None))


@pytest.mark.parametrize(
    ("energies", "losses", "said"),
    [
        (np.zeros((2, 0)), np.zeros(2), "must be"),
        (np.ones((2, 3)), np.zeros(3), "must be"),
        (np.array([[1.0, np.nan]]), np.zeros(1), r"energies\[0, 1\] is not finite"),
        (np.ones((1, 2)), np.array([np.inf]), r"losses\[0\] is not finite"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(energies: Any, losses: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(energies, np.arange(energies.shape[1]), losses)


def unit(folder: Path, strategies: dict[str, dict[str, float]], n: int = 30, held_out: float = 0.0) -> pd.DataFrame:
    """The rows of the unit from folds 0 and 1 with these mean energy scores by strategy and rung."""
    inputs = []
    rungs = list(next(iter(strategies.values())))
    for place, (strategy, means) in enumerate(strategies.items()):
        for fold in (0, 1):
            rows = Rows(experiment="repetition", model="m", strategy=strategy, fold=fold, surrogate="context-logit")
            for rung, drawn in zip(rungs, scores(*means.values(), n=n), strict=True):
                condition = {"law": "decoded", "rung": rung}
                rows.add("training_loss", LOSSES[rung], split="train", condition=condition)
                rows.add("training_loss", 99.0, split="train", condition={"law": "raw", "rung": rung})
                for prompt, value in enumerate(drawn):
                    where: dict[str, Any] = {"prompt": f"p{prompt}", "group": f"g{prompt}", "condition": condition}
                    rows.add("training_energy", value, split="train", **where)
                    rows.add("energy_score", held_out, split="held_out", **where)
            if place == 0:  # a prompt that one strategy lacks is left out of all
                rows.add("training_energy", 99.0, split="train", prompt="p99", group="g99", condition=condition)
            path = folder / f"{place}-{fold}"
            path.mkdir(parents=True)
            rows.frame().to_parquet(path / "rows.parquet")
            inputs.append(path)
    settings = {"model": "m", "revision": None, "strategies": list(strategies), "rungs": rungs, "folds": [0, 1]}
    return choose_rungs(Work(settings, {}, inputs, folder, lambda share, what: None))


def test_strategies_are_summed_and_every_fold_chooses(tmp_path: Path) -> None:
    greedy = dict(zip(RUNGS, (1.0, 1.0, 1.0, 3.0), strict=True))
    warm = dict(zip(RUNGS, (9.0, 9.0, 2.0, 1.9), strict=True))
    found = unit(tmp_path, {"greedy": greedy, "temperature=1": warm})
    chosen = choices(found)["m"]
    assert chosen.folds == {0: "followed-by-1", 1: "followed-by-1"}
    assert chosen.rungs == RUNGS
    assert chosen.prompts == (30, 30)
    energies = found[(found["metric"] == "choice_energy") & (found["fold"] == 0)]["value"]
    assert energies.tolist() == pytest.approx([10.0, 10.0, 3.0, 4.9])
    losses = found[(found["metric"] == "choice_loss") & (found["fold"] == 1)]["value"]
    assert losses.tolist() == pytest.approx([2 * LOSSES[rung] for rung in RUNGS])


def test_the_rule_reads_no_row_of_judged_prompts(tmp_path: Path) -> None:
    means = {"greedy": ENERGIES}
    one, other = (unit(tmp_path / str(value), means, held_out=value) for value in (0.0, 50.0))
    pd.testing.assert_frame_equal(one, other)


def test_without_a_common_prompt_nothing_is_chosen(tmp_path: Path) -> None:
    found = unit(tmp_path, {"greedy": ENERGIES}, n=0)
    assert found["metric"].tolist() == ["chosen_rung"] * 2
    assert found["value"].isna().all()
    assert choices(found) == {}


def test_the_chosen_ladder_has_the_figures_of_each_folds_rung() -> None:
    rows = repetition_rows(chosen=TWO)
    held = rows[rows["split"] == "held_out"]
    more = with_chosen(held, choices(rows)).iloc[len(held) :]
    walks = more[(more["metric"] == "seq_rep_4") & more["condition"].str.contains('"chosen"', regex=False)]
    assert len(walks) == 2 * 2 * 24  # strategies, laws, prompts: every one once
    for fold, rung in TWO.items():
        own = walks[(walks["fold"] == fold) & (walks["strategy"] == "greedy") & walks["condition"].str.contains("raw")]
        condition = f'{{"law": "raw", "rung": "{rung}"}}'
        same = held[(held["fold"] == fold) & (held["strategy"] == "greedy")]
        same = same[(same["condition"] == condition).fillna(False)]
        same = same[same["metric"] == "seq_rep_4"]
        assert own["value"].tolist() == same["value"].tolist()
        assert own["prompt"].tolist() == same["prompt"].tolist()
    below = more[more["condition"].str.contains("one less")]
    assert set(below["metric"]) == {"energy_score"}
    assert set(below["fold"]) == {0, 2}  # no rung is below the first one, which fold 1 chose
    part = parts(rows)[0]
    assert part.rungs == RUNGS
    assert part.shown is not None
    assert part.shown.rung == "chosen"
    every = [part.sample("seq_rep_4", part.rung(rung)).value or 0.0 for rung in RUNGS]
    assert min(every) < (part.sample("seq_rep_4", part.shown).value or 0.0) < max(every)


def test_rungs_are_counted_over_folds() -> None:
    def words(folds: dict[int, str]) -> tuple[str, str]:
        found = Chosen(folds, RUNGS, (16, 16))
        return found.words, found.brief

    assert words(CHOSEN) == ("up to followed-by-1 in all 3 folds", "up to followed-by-1")
    assert words(TWO) == ("up to followed-by-1 in 2 of 3 folds and counts in 1", "followed-by-1 (2 of 3 folds)")
    assert words({0: "counts"}) == ("counts", "counts")


def test_the_chosen_rung_is_judged_in_every_measure_within_its_margin() -> None:
    rows = repetition_rows(margins={}, spread=0.001)
    found = table(rows, "repetition.chosen")
    assert RULE in found.caption
    assert "16 training prompts" in found.caption
    for strategy, margin, word in (("greedy", 0.05, "agrees"), ("temperature=1", 0.01, "differs")):
        (one,) = lines(found, strategy=strategy, measure="seq_rep_4")
        assert (one["margin"], one["verdict"]) == (margin, word)  # the gap is .01: within .05, and no less than .01
        assert one["walks - model"].value == pytest.approx(-0.01)
        (onset,) = lines(found, strategy=strategy, measure="loop_onset")
        assert (onset["margin"], onset["verdict"]) == (16.0, "agrees")
    best = table(rows, "repetition.best")
    assert "within 0.05 (temperature=1: 0.01)" in best.caption
    assert best.column("verdict") == ["agrees", "differs"]


def test_the_chosen_rung_is_held_against_its_rivals() -> None:
    found = table(repetition_rows(), "repetition.rivals")
    words = {one["against"]: one["verdict"] for one in lines(found, strategy="greedy")}
    assert words == {
        "never repeats": "better", "constant law": "better", "the rung below": "better", "the rung above": "undecided",
    }  # fmt: skip
    (below,) = lines(found, strategy="greedy", against="the rung below")
    assert below["chosen - other"].value == pytest.approx(-2.0)
    first = table(repetition_rows(chosen=dict.fromkeys(range(3), "counts")), "repetition.rivals")
    assert {one["against"] for one in lines(first, strategy="greedy")} == set(words) - {"the rung below"}


def test_the_table_of_the_choice_shows_what_the_fits_gained_from_prompts_they_saw() -> None:
    rows = repetition_rows(chosen=TWO)
    found = table(rows, "repetition.choice")
    assert found.column("chosen") == [1, 0, 2, 0]
    assert found.column("above it") == [3, 3, 0, 0]
    assert found.column("energy, training") == pytest.approx([2 * (ENERGIES[rung] - SEEN) for rung in RUNGS])
    for rung, judged, gain in zip(RUNGS, found.column("energy, judged"), found.column("seen - judged"), strict=True):
        assert judged.value == pytest.approx(2 * ENERGIES[rung])  # type: ignore[union-attr]
        assert gain.value == pytest.approx(-2 * SEEN)  # type: ignore[union-attr]


def test_the_answer_says_rung_gaps_and_rivals() -> None:
    answer = said(repetition_rows())
    assert answer.answered
    assert answer.text.startswith("m, greedy: yes. Walks of context-logit, up to followed-by-1 in all 3 folds, agree")
    for measure in ("seq_rep_4 (-0.010", "above_half (-0.010", "loop_share", "loop_onset", "loop_period", "new_tokens"):
        assert measure in answer.text
    assert "better than that of never repeats (-7" in answer.text
    assert "not shown to differ from that of the rung above" in answer.text
    assert answer.estimate is not None
    assert answer.estimate.value == pytest.approx(-0.01)


def test_the_answer_is_no_where_the_chosen_rung_differs() -> None:
    answer = said(repetition_rows(chosen=dict.fromkeys(range(3), "counts"), energies={**ENERGIES, "counts": NULL}))
    assert answer.answered
    assert "greedy: no. Walks of context-logit, counts in all 3 folds, agree" in answer.text
    assert "differ from it in seq_rep_1 (-0.300" in answer.text
    assert "worse than that of the rung above" in answer.text


def test_without_a_choice_or_enough_groups_nothing_is_answered() -> None:
    assert "no rung of context-logit was chosen" in said(repetition_rows(chosen=None)).text
    few = said(repetition_rows(groups=2))
    assert not few.answered
    assert "nothing is decided about" in few.text


def test_spreads_and_energy_scores_of_vectors_are_those_of_the_figures_that_all_have() -> None:
    known = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, np.nan], [5.0, 5.0, 6.0]])
    assert spreads(known) == pytest.approx([np.std([1.0, 3.0, 5.0]), 1.0, 2.0])
    x, y = known[[0, 2]], known[[1]]
    scale = np.array([2.0, 1.0, 4.0])
    assert energy_of(x, y, scale) == energy_score(x[:, :2], y[:, :2], scale[:2])
