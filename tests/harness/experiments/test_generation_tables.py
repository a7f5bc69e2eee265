"""Tables of generation: figures worked out by hand from made-up rows, their shape, and how wide the headline is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_rows import generation_rows

from harness.core.records import Interval, Table
from harness.core.rows import Rows
from harness.experiments.generation.parts import CEILING, FLOOR, parts
from harness.experiments.generation.recovered import ALL, NO_ROOM, errors, recovered
from harness.experiments.generation.tables import (
    correlation_with_model,
    difference_to_model,
    tables,
)
from harness.report.render.layout import layout, plain
from harness.stats.explained import complement
from harness.stats.grouped import group_mean


def small_rows() -> pd.DataFrame:
    rows = Rows(experiment="generation", model="m", strategy="greedy", split="held_out")
    rng = np.random.default_rng(0)
    for index in range(8):
        prompt, real = f"p{index}", float(index)
        rows.add("in_context_mass", 0.5, surrogate="model", prompt=prompt, seed=0)
        rows.add("seq_rep_1", real, surrogate="model", prompt=prompt, seed=0)
        rows.add("winner_size", 3, surrogate="model", prompt=prompt, seed=0)
        for seed in range(2):
            rows.add("seq_rep_1", real + 1 + seed + 0.1 * rng.random(), surrogate="counts", prompt=prompt, seed=seed)
            rows.add("winner_jaccard", 0.25 if index % 2 else 0.75, surrogate="counts", prompt=prompt, seed=seed)
            rows.add("winner_size", 5, surrogate="counts", prompt=prompt, seed=seed)
    rows.add("seq_rep_1", None, missing="too short", surrogate="counts", prompt="p8", seed=0)
    rows.add("seq_rep_1", 0.5, surrogate="model", prompt="p8", seed=0)
    return rows.frame()


def named(found: list[Table]) -> dict[str, Table]:
    return {table.name: table for table in found}


def values(table: Table, column: str) -> list[Any]:
    return [cell.value if isinstance(cell, Interval) else cell for cell in table.column(column)]


def test_agreement_is_paired_by_prompt() -> None:
    (part,) = parts(small_rows())
    found = difference_to_model(part, "counts", "seq_rep_1")
    assert found.n == 8  # the prompt without a value on one side is in neither mean
    assert found.value == pytest.approx(1.55, abs=0.05)
    assert correlation_with_model(part, "counts", "seq_rep_1").value == pytest.approx(1.0)
    assert difference_to_model(part, "counts", "loop_onset").value is None
    assert correlation_with_model(part, "counts", "loop_onset").value is None


def test_a_difference_stands_beside_the_smallest_that_would_have_been_found() -> None:
    table = named(tables(small_rows()))["generation.agreement"]
    (found,) = [
        (difference, least)
        for difference, least in zip(table.column("it - model"), table.column("findable"), strict=True)
        if isinstance(difference, Interval) and difference.low is not None and difference.value > 1
    ]
    difference, least = found
    assert least == pytest.approx((difference.high - difference.low) / 2 / 1.96 * 2.8)
    assert all(
        (one is None) == (not isinstance(other, Interval) or other.low is None)
        for one, other in zip(table.column("findable"), table.column("it - model"), strict=True)
    )
    assert "findable: the smallest true difference" in table.caption
    narrow = [plain(line) for line in layout(table, 60)]
    assert not any("findable  " in line for line in narrow[:3])


def test_winners_show_the_overlap_beside_the_sizes() -> None:
    table = named(tables(small_rows()))["generation.winners"]
    assert table.column("surrogate") == ["model", "counts"]
    assert values(table, "jaccard") == [None, pytest.approx(0.5)]
    assert table.column("size") == [3.0, 5.0]
    assert [column.name for column in table.columns] == [
        "winners", "surrogate", "jaccard", "precision", "recall", "size",
    ]  # fmt: skip


def test_every_cell_is_typed_and_every_column_named_once() -> None:
    for table in tables(generation_rows(("m", "n"), ("greedy", "temperature=1"))):
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names), table.name
        for row in table.rows:
            assert len(row) == len(names)
            for cell in row:
                assert cell is None or isinstance(cell, (str, int, float, Interval)), table.name
                assert not isinstance(cell, str) or ("\n" not in cell and "[" not in cell), cell


def test_names_are_unique_and_one_is_the_headline() -> None:
    found = tables(generation_rows())
    names = [table.name for table in found]
    assert len(set(names)) == len(names)
    assert [table.headline for table in found] == [True] + [False] * (len(found) - 1)
    assert names[:3] == ["generation.best", "generation.in-context", "generation.next-token"]
    assert tables(generation_rows().iloc[:0]) == []


@pytest.mark.parametrize("models", [("smollm2-135m",), ("smollm2-135m", "iglm-s")])
def test_the_headline_fits(models: tuple[str, ...]) -> None:
    rows = generation_rows(models, ("greedy", "temperature=0.7", "temperature=1"))
    headline = tables(rows)[0]
    assert len(headline.rows) == 3 * len(models)
    assert len(headline.columns) <= 7
    lines = [plain(line) for line in layout(headline, 100)]
    assert max(map(len, lines)) <= 100
    assert not any("not shown" in line for line in lines)  # nothing had to be left out


def test_the_headline_has_twelve_rows_at_most() -> None:
    strategies = tuple(f"temperature={t}" for t in range(1, 14))
    headline = tables(generation_rows(strategies=strategies, prompts=5))[0]
    assert len(headline.rows) == 12
    assert "1 more" in headline.caption


def test_what_does_not_vary_is_in_the_title() -> None:
    one = tables(generation_rows())[0]
    assert "m, temperature=1" in one.title
    assert one.columns[0].name == "best"
    two = tables(generation_rows(("m", "n")))[0]
    assert "2 models, temperature=1" in two.title
    assert two.columns[0].name == "model"


def test_recovered_shares_of_known_errors() -> None:
    """Errors of `near` are a quarter of the floor's, those of `far` the floor's own; the ceiling has none."""
    (part,) = parts(generation_rows())
    found = recovered(part)
    assert [share.surrogate for share in found.shares] == ["near", "counts", "far"]
    near, far = found.of("near"), found.of("far")
    assert near is not None
    assert far is not None
    assert near.all.value == pytest.approx(0.75, abs=0.06)
    assert far.all.value == pytest.approx(0.0, abs=0.1)
    assert near.against_counts is not None
    assert near.against_counts < 0.05
    assert found.ties == []
    assert all(found.of(name) is None for name in ("model-shuffled", "model"))
    table = named(tables(generation_rows()))["generation.recovered"]
    assert table.column("surrogate") == ["near", "counts", "far"]
    assert table.column("vs best")[0] is None
    assert table.column("vs counts")[1] is None


def test_shares_of_grouped_prompts_count_groups() -> None:
    """Prompts that are copies of each other say no more than one of them: the interval is that of one copy."""
    rows = generation_rows()
    copies = [rows.assign(prompt=rows["prompt"] + f"-{copy}", group=rows["prompt"]) for copy in range(3)]
    (one,), (many,) = parts(rows), parts(pd.concat(copies, ignore_index=True))
    plain, grouped = recovered(one), recovered(many)
    assert (grouped.prompts, plain.prompts) == (3 * plain.prompts, plain.prompts)
    assert grouped.room.low == pytest.approx(plain.room.low)
    for mine, theirs in zip(grouped.shares, plain.shares, strict=True):
        assert mine.all.value == pytest.approx(theirs.all.value)
        assert mine.all.low == pytest.approx(theirs.all.low)


def test_without_room_there_is_no_share() -> None:
    (part,) = parts(generation_rows(ceiling=1.0))
    found = recovered(part)
    assert {share.all.missing for share in found.shares} == {NO_ROOM}
    of = errors(part)
    rooms = of[ALL, FLOOR].at(of[ALL, FLOOR].units), of[ALL, CEILING].at(of[ALL, FLOOR].units)
    assert rooms[0] is not None
    assert rooms[1] is not None
    by_t = group_mean(rooms[0].numerators - rooms[1].numerators).interval()  # draws nothing, so no seed decides
    assert (found.room.value, found.room.low, found.room.high) == (by_t.value, by_t.low, by_t.high)
    assert NO_ROOM in tables(generation_rows(ceiling=1.0))[0].caption


def test_errors_pair_each_continuation_with_its_real_one() -> None:
    rows = Rows(experiment="generation", model="m", strategy="s", split="held_out")
    for prompt in ("a", "b"):
        for seed, value in ((0, 0.2), (1, 0.8)):
            rows.add("seq_rep_4", value, surrogate="model", prompt=prompt, seed=seed)
            for name in ("model-shuffled", "counts", "model-reseeded"):
                pair: dict[str, Any] = {
                    "surrogate": name, "prompt": prompt, "seed": 5, "condition": {"real_seed": seed},
                }  # fmt: skip
                rows.add("seq_rep_4", 0.5 if name == "counts" else value, **pair)
                rows.add("winner_jaccard", 0.4, **pair)
                rows.add("dominance_area", 0.1, **pair)
    (part,) = parts(rows.frame())
    found = errors(part)
    assert found["how much", "counts"].value == pytest.approx(0.3)  # the mean real value is .5: no error at all
    assert found["how much", "model-reseeded"].value == 0.0
    assert found["who", "counts"].value == pytest.approx(0.6)
    assert found["all", "counts"].value == pytest.approx(0.3 + 0.6 + 0.1)


def test_leaving_shows_the_model_first() -> None:
    rows = Rows(experiment="generation", model="m", strategy="s", split="held_out")
    for index in range(6):
        rows.add("in_context_mass", 0.7 + 0.01 * index, surrogate="model", prompt=f"p{index}", seed=0)
        rows.add("escape", 0.4, surrogate="counts", prompt=f"p{index}", seed=0)
        rows.add("kl_with_escape", 1.5, surrogate="counts", prompt=f"p{index}", seed=0)
    table = named(tables(rows.frame()))["generation.leaving"]
    assert table.column("surrogate") == ["model", "counts"]
    assert values(table, "leaves") == [pytest.approx(0.275), pytest.approx(0.4)]
    assert complement(Interval(0.2, 0.1, 0.4, 9)) == Interval(0.8, 0.6, 0.9, 9)


def test_a_ceiling_by_construction_is_seen_in_the_rows_not_in_a_name() -> None:
    for once, strategy in ((True, "temperature=1"), (False, "greedy")):
        (part,) = parts(generation_rows(strategies=(strategy,), one_continuation=once))
        assert part.one_continuation is once
        caption = tables(generation_rows(strategies=(strategy,), one_continuation=once))[0].caption
        assert ("perfect by construction" in caption) is once
