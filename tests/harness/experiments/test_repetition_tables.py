"""Tables of `repetition`: figures known from made-up rows, the rule that picks a rung, and what fits 80 columns."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from made_up_repetition import CEILING, GAPS, NULL, RAW_GAP, REMOVED, RUNGS, repetition_rows

from harness.core import registry
from harness.core.records import Interval, Table
from harness.core.rows import Rows
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.chosen import short_rung
from harness.experiments.repetition.margins import MARGINS, margins_at
from harness.experiments.repetition.parts import parts
from harness.experiments.repetition.settings import Repetition
from harness.experiments.repetition.tables import tables
from harness.experiments.repetition.vectors import FIGURES
from harness.report.render.layout import layout, plain

LAST = "followed-by-2,3"


@pytest.fixture(scope="module")
def made() -> dict[str, Table]:
    return named(tables(repetition_rows(starts=(0, 8), ceiling=CEILING)))


def named(found: list[Table]) -> dict[str, Table]:
    return {table.name: table for table in found}


def shown(table: Table, width: int) -> list[str]:
    """The lines of a table in a terminal."""
    return [plain(one) for one in layout(table, width)]


def lines(table: Table, **where: Any) -> list[dict[str, Any]]:
    """Rows of a table as mappings, those that match."""
    names = [column.name for column in table.columns]
    found = [dict(zip(names, row, strict=True)) for row in table.rows]
    return [line for line in found if all(line[name] == value for name, value in where.items())]


def line(table: Table, **where: Any) -> dict[str, Any]:
    (found,) = lines(table, **where)
    return found


def test_the_rung_that_training_prompts_chose_is_shown(made: dict[str, Table]) -> None:
    table = made["repetition.best"]
    assert table.headline
    assert "up to followed-by-1" in table.title
    assert table.column("strategy") == ["greedy", "temperature=1"]
    assert table.column("verdict") == ["agrees", "agrees"]
    assert table.column("walks") == [pytest.approx(0.49), pytest.approx(0.49)]
    assert table.column("model's") == [pytest.approx(0.5), pytest.approx(0.5)]
    for found in table.column("walks - model"):
        assert isinstance(found, Interval)
        assert found.value == pytest.approx(GAPS["followed-by-1"])
        assert found.n == 12  # groups, not prompts
    assert "24 held-out prompts in 12 groups" in table.caption
    assert "chosen by the fold's training prompts" in table.caption
    assert "up to followed-by-1 in all 3 folds" in table.caption


def test_the_ladder_falls_by_what_each_rung_adds(made: dict[str, Table]) -> None:
    table = made["repetition.ladder"]
    of = {"strategy": "greedy", "law": "decoded"}
    assert line(table, surrogate="model", **of)["log_loss"].value == pytest.approx(2.0)  # its entropy
    assert line(table, surrogate="model", strategy="greedy", law="raw")["log_loss"].value == pytest.approx(0.25)
    falls = {name: line(table, surrogate=short_rung(name), **of)["fall"] for name in RUNGS}
    assert falls["counts"] is None
    assert [falls[name].value for name in RUNGS[1:]] == [pytest.approx(each, abs=1e-9) for each in (0.1, 0.5, 0.0)]
    assert falls["followed-by-1"].low > 0
    assert line(table, surrogate="suffix", **of)["fall"] is None


def test_what_is_left_out_is_worth_what_the_loss_rises_by(made: dict[str, Table]) -> None:
    assert "repetition.worth" not in made
    given = repetition_rows(removed=True, starts=(4, 8))
    found = named(tables(given))
    table = found["repetition.worth"]
    of = {"strategy": "greedy"}
    names = [*map(short_rung, RUNGS), "base transitions"]
    assert [each["statistics"] for each in lines(table, **of)] == names
    added = [line(table, statistics=name, **of)["when added"] for name in names[:-1]]
    assert [each.value for each in added] == [pytest.approx(each, abs=1e-9) for each in (0.9, 0.1, 0.5, 0.0)]
    assert line(table, statistics="base transitions", **of)["when added"].value is None
    removed = [line(table, statistics=name, **of)["when removed"] for name in names]
    assert [each.value for each in removed] == [pytest.approx(each, abs=1e-9) for each in (*REMOVED.values(), 1.0)]
    assert removed[2].low > 0.2  # by prompt: the prompts' own spread is not in it
    assert removed[2].n == 12
    assert removed[1].low < 0 < removed[1].high
    ladder = found["repetition.ladder"]
    assert len(lines(ladder, strategy="greedy", law="decoded")) == len(RUNGS) + 3  # they are no rungs of their own
    rest = named(tables(given[~given["condition"].str.contains("without", na=False)]))
    assert {name: one.rows for name, one in found.items() if name != "repetition.worth"} == {
        name: one.rows for name, one in rest.items()
    }


def test_an_infinite_loss_is_no_mean_of_the_others() -> None:
    rows = repetition_rows()
    more = Rows(experiment="repetition", model="m", strategy="greedy", split="held_out", surrogate="suffix")
    more.add("log_loss", None, missing="infinite: 1 tokens", prompt="p24", group="g12", condition={"law": "decoded"})
    table = named(tables(pd.concat([rows, more.frame()], ignore_index=True)))["repetition.ladder"]
    assert line(table, strategy="greedy", law="decoded", surrogate="suffix")["log_loss"] == "infinite"


def test_walks_are_judged_within_their_margins_together(made: dict[str, Table]) -> None:
    table = made["repetition.walks"]
    of = {"strategy": "greedy", "law": "decoded", "measure": "seq_rep_4"}
    words = {name: line(table, surrogate=short_rung(name), **of)["verdict"] for name in RUNGS}
    assert list(words.values()) == ["differs", "differs", "agrees", "agrees"]
    raw = line(table, strategy="greedy", law="raw", measure="seq_rep_4", surrogate="counts")
    assert raw["it - model"].value == pytest.approx(GAPS["counts"] + RAW_GAP)
    assert 0 < raw["findable"] < 0.05
    model = lines(table, strategy="greedy", surrogate="model")
    assert [each["measure"] for each in model] == list(MARGINS)
    assert all(each["verdict"] is None for each in model)


def test_scores_are_framed_by_another_prompt_and_the_model(made: dict[str, Table]) -> None:
    table = made["repetition.scores"]
    one = line(table, strategy="greedy", law="decoded", source="followed-by-1")
    assert one["energy_score"].value == pytest.approx(1.0)
    assert one["skill"].value == pytest.approx(1 - 1 / NULL)
    assert one["recovered"].value == pytest.approx((NULL - 1) / (NULL - CEILING))
    assert one["recovered"].low < one["recovered"].value < one["recovered"].high
    others = [each["source"] for each in lines(table, strategy="greedy", law="–")]
    assert others == ["other prompt (floor)", "constant law", "never repeats", "other seed (ceiling)"]
    assert line(table, strategy="greedy", source="never repeats")["recovered"] is None


def test_without_room_nothing_is_recovered() -> None:
    table = named(tables(repetition_rows(ceiling=NULL, groups=6, laws=("decoded",))))["repetition.scores"]
    found = line(table, strategy="greedy", law="decoded", source="counts")["recovered"]
    assert found.value is None
    assert "None with greedy: no room between null and ceiling" in table.caption
    assert "one continuation" not in table.caption


def test_one_continuation_is_named_where_it_is_one() -> None:
    table = named(tables(repetition_rows(strategies=("greedy",), ceiling=0.0)))["repetition.scores"]
    assert "With greedy the model has one continuation" in table.caption


def test_new_tokens_stand_beside_the_models(made: dict[str, Table]) -> None:
    table = made["repetition.open"]
    one = line(table, strategy="greedy", law="decoded", surrogate="counts")
    assert one["next token"].value == pytest.approx(0.2)
    assert one["it - model"].value == pytest.approx(-0.05)
    assert one["walks - model"].value == pytest.approx(0.0, abs=1e-9)
    assert not any("closed" in str(each) for each in table.column("surrogate"))


def test_a_closed_ladder_is_called_closed_and_chooses_nothing() -> None:
    rows = repetition_rows(strategies=("greedy",), groups=5, laws=("decoded",))
    twin = rows[rows["surrogate"] == "context-logit"].assign(surrogate="context-logit-closed")
    both = named(tables(pd.concat([rows, twin], ignore_index=True)))
    assert {"counts", "counts (closed)"} <= set(both["repetition.open"].column("surrogate"))
    assert line(both["repetition.ladder"], surrogate="recency (closed)")["fall"].value == pytest.approx(0.1)
    only = pd.concat([rows[rows["surrogate"] != "context-logit"], twin], ignore_index=True)
    assert "none was chosen" in named(tables(only))["repetition.best"].caption
    assert not any(answer.answered for answer in answers(only))


def test_warm_starts_are_compared_only_where_there_are_several(made: dict[str, Table]) -> None:
    table = made["repetition.warm"]
    found = lines(table, strategy="greedy", law="decoded", source="counts")
    assert [each["t0"] for each in found] == [0, 8]
    assert found[1]["seq_rep_4 - model"].value == pytest.approx(GAPS["counts"])
    assert "repetition.warm" not in named(tables(repetition_rows()))


def test_weights_are_means_over_folds_with_the_largest_error(made: dict[str, Table]) -> None:
    one = line(made["repetition.weights"], strategy="greedy", law="decoded", statistic="log-count")
    assert (one["weight"], one["largest error"], one["folds"]) == (2.0, 0.2, 2)


def one_law_rows() -> pd.DataFrame:
    """At temperature 1 both laws are one: the model has the same entropy under both, and only one was fitted."""
    rows = repetition_rows(starts=(0, 8))
    tempered, model = rows["strategy"] == "temperature=1", rows["surrogate"] == "model"
    raw = rows["condition"].fillna("").str.contains("raw")
    entropy = tempered & model & (rows["metric"] == "entropy")
    rows.loc[entropy & raw, "value"] = rows.loc[entropy & ~raw, "value"].to_numpy()
    return rows[~(tempered & raw & ~model)]


def test_a_strategy_whose_laws_are_one_says_so_and_has_no_empty_lines() -> None:
    rows = one_law_rows()
    greedy, tempered = parts(rows)
    assert (greedy.one_law, tempered.one_law) == (False, True)
    assert (greedy.laws, tempered.laws) == (["decoded", "raw"], ["decoded"])
    found = named(tables(rows))
    said = "With temperature=1 both laws are one distribution: lines of the decoded law are those of the raw one."
    for name in ("ladder", "walks", "scores", "how-much", "open", "weights"):
        table = found[f"repetition.{name}"]
        assert said in table.caption
        assert not lines(table, strategy="temperature=1", law="raw")
        assert lines(table, strategy="greedy", law="raw")
    (law,) = [one for one in answers(rows) if one.question.startswith("Does fitting") and "temperature=1" in one.text]
    assert "both laws are one" in law.text
    assert not law.answered
    assert said not in named(tables(repetition_rows()))["repetition.ladder"].caption
    assert (
        said not in named(tables(rows[~rows["condition"].fillna("").str.contains("raw")]))["repetition.ladder"].caption
    )


def test_a_law_that_is_walked_from_the_first_start_alone_is_not_compared_by_start() -> None:
    rows = repetition_rows(starts=(0, 8))
    condition = rows["condition"].fillna("")
    table = named(tables(rows[~(condition.str.contains("raw") & condition.str.contains("t0"))]))["repetition.warm"]
    assert "raw" not in table.column("law")
    assert [one["t0"] for one in lines(table, strategy="greedy", law="decoded", source="counts")] == [0, 8]


def test_walks_of_a_law_that_has_none_are_left_out() -> None:
    rows = repetition_rows(strategies=("temperature=0.8,top_p=0.9",))
    found = named(tables(rows))
    assert set(found["repetition.walks"].column("law")) == {"–", "decoded"}
    assert line(found["repetition.open"], law="raw", surrogate="counts")["walks - model"] is None


@pytest.mark.parametrize("models", [("m",), ("org/a-model-with-a-long-name", "n")])
def test_every_table_fits_80_columns(models: tuple[str, ...]) -> None:
    rows = repetition_rows(models, ("greedy", "temperature=0.8,top_p=0.9"), starts=(0, 8), groups=6)
    for table in tables(rows):
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names), table.name
        assert max(len(text) for text in shown(table, 80)) <= 80, table.name
        assert all(len(row) == len(names) for row in table.rows)


def test_the_headline_has_a_dozen_lines_and_fits() -> None:
    strategies = tuple(f"temperature={place}" for place in range(7))
    table = tables(repetition_rows(("a", "b"), strategies, groups=5, laws=("decoded",)))[0]
    assert len(table.rows) == 12
    assert "2 more lines are in repetition.walks" in table.caption
    assert "new, model's" in " ".join(shown(table, 100))


@pytest.mark.parametrize("groups", [1, 2])
def test_few_prompts_give_tables_without_intervals(groups: int) -> None:
    for table in tables(repetition_rows(groups=groups, starts=(0, 8))):
        assert shown(table, 80)


def test_no_rows_no_tables() -> None:
    assert tables(repetition_rows().iloc[:0]) == []


def test_without_a_choice_the_last_rung_is_shown() -> None:
    found = named(tables(repetition_rows(chosen=None)))
    assert "repetition.chosen" not in found
    assert "none was chosen: the last rung is shown" in found["repetition.best"].caption
    assert found["repetition.best"].column("walks") == [pytest.approx(0.5)] * 2
    assert f"up to {LAST}" in found["repetition.best"].title


@pytest.mark.parametrize(
    ("rung", "short"),
    [
        ("counts", "counts"),
        ("followed-by-4 + followed-by-6 + followed-by-8", "followed-by-4,6,8"),
        ("recency + followed-by-2", "recency + followed-by-2"),
        ("recency-squared + match-squared + suffix", "recency-squared + 2 more"),
        ("log-followed-by-1 + log-followed-by-2 + log-longest-match", "log-followed-by-1,2 + 1 more"),
        ("suffix + recent-8 + recent-32 + unigram", "suffix + 3 more"),
    ],
)
def test_names_of_rungs_are_short(rung: str, short: str) -> None:
    assert short_rung(rung) == short


def test_every_measure_is_declared() -> None:
    names = set(repetition_rows()["metric"]) | {f"crps_{name}" for name in FIGURES} | {"training_loss", "kept_mass"}
    assert [name for name in names if registry.measure(name) is None] == []
    headline = registry.headline("repetition")
    assert headline is not None
    assert (headline.name, headline.better) == ("energy_score", "lower")


def test_default_margins_are_those_of_the_tables() -> None:
    margins = Repetition(kind="repetition").margins
    assert margins.of("greedy") == MARGINS
    assert margins.of("temperature=1") == margins_at("temperature=1")
    assert margins_at("temperature=1") == {**MARGINS, "seq_rep_4": 0.01, "above_half": 0.01}


def test_refinements_are_compared_with_their_rung() -> None:
    refined = {"on policy": -0.1, "gate": 0.0}
    rows = repetition_rows(starts=(0, 8), refined=refined)
    found = named(tables(rows))
    table = found["repetition.refinements"]
    for name, more in refined.items():
        moved = line(table, strategy="greedy", refinement=name, measure="seq_rep_4")
        assert moved["model's"] == pytest.approx(0.5)
        assert moved["without"] == pytest.approx(0.5)
        assert moved["with"] == pytest.approx(0.5 + more)
        assert isinstance(moved["with - without"], Interval)
        assert moved["with - without"].value == pytest.approx(more)
        assert moved["with - without"].n == 12
        loss = line(table, strategy="greedy", refinement=name, measure="log_loss")
        assert loss["with - without"].value == pytest.approx(more / 10)
        energy = line(table, strategy="greedy", refinement=name, measure="energy_score")
        assert energy["with - without"].value == pytest.approx(5 * more)
        assert energy["model's"] == pytest.approx(CEILING)
    plain = named(tables(rows[~rows["condition"].fillna("").str.contains("refined")]))
    assert "repetition.refinements" not in plain
    for name, other in plain.items():  # no other table counts them
        assert [list(row) for row in other.rows] == [list(row) for row in found[name].rows]


def test_an_answer_says_what_refinements_remove() -> None:
    (said, _) = [one for one in answers(repetition_rows(refined={"on policy": -0.1, "gate": 0.0}))
                 if one.question == "What do refinements of the ladder remove?"]  # fmt: skip
    assert said.answered
    assert "on policy changes it by −0.1" in said.text or "on policy changes it by -0.1" in said.text
    assert "gate is not shown to change it" in said.text
    assert "(Holm, 2 refinements)" in said.text
    assert not [one for one in answers(repetition_rows()) if one.question.startswith("What do refinements")]
