"""Heads replaced while the model runs: sets of heads, losses, mean rows, selection, and what rows say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from pydantic import ValidationError

from harness.attention.capture import IntArray
from harness.core.rows import Rows
from harness.experiments._shared.head_sets import make_sets, number_of, ordered
from harness.experiments._shared.loop_fits import divided
from harness.experiments._shared.mean_rows import OCCURRENCES, MeanRows
from harness.experiments.in_the_loop import selection
from harness.experiments.in_the_loop.answers import answers
from harness.experiments.in_the_loop.figures import figures, lines
from harness.experiments.in_the_loop.losses import Predicted, first_of_each
from harness.experiments.in_the_loop.parts import LOST, parts, smallest_margin
from harness.experiments.in_the_loop.settings import InTheLoop
from harness.experiments.in_the_loop.tables import tables
from harness.stats.equivalence import agreement_p
from harness.stats.grouped import group_mean
from harness.surrogates._fitting.buckets import BUCKETS, bucket_table


def made_heads(layers: int = 4, heads: int = 5) -> list[dict[str, Any]]:
    rng, kinds = np.random.default_rng(0), ("sink", "induction", "other")
    return [
        {
            "layer": layer,
            "head": head,
            "kl": {"a": float(rng.random()), "b": float(rng.random())},
            "kind": kinds[head % 3],
        }
        for layer in range(layers)
        for head in range(heads)
    ]


SETTINGS: dict[str, Any] = {"shares": [0.1, 0.5, 1.0], "random_draws": 2, "layer_0": [False, True], "seed": 0}


def test_shares_are_of_all_heads_with_layer_0_and_without() -> None:
    assert [number_of(x, 270) for x in (0.1, 0.25, 0.5, 1.0, 0.001)] == [27, 68, 135, 270, 1]
    heads = made_heads()
    sets = make_sets(heads, "a", ["share"], SETTINGS)
    kl = {(one["layer"], one["head"]): one["kl"]["a"] for one in heads}
    assert [(len(one.heads), one.condition["layer_0"]) for one in sets] == [
        (2, "out"), (10, "out"), (15, "out"), (2, "in"), (10, "in"), (20, "in"),
    ]  # fmt: skip
    for one in sets:
        inside = one.condition["layer_0"] == "in"
        free = [value for (layer, head), value in kl.items() if inside or layer > 0]
        assert sorted(kl[head] for head in one.heads) == sorted(free)[: len(one.heads)]
        assert sum(one.layers().values()) == len(one.heads)
        assert (0 in one.layers()) is False or inside
    assert ordered(heads, "a") != ordered(heads, "b")


def test_sets_by_harm_done_alone() -> None:
    alone = {(layer, head): abs(layer - 2) + 0.1 * head for layer in range(4) for head in range(5)}
    sets = make_sets(made_heads(), "a", ["alone"], SETTINGS, alone=alone)
    assert [(one.condition["layer_0"], len(one.heads)) for one in sets] == [
        ("out", 2), ("out", 10), ("out", 15), ("in", 2), ("in", 10), ("in", 20),
    ]  # fmt: skip
    assert sets[0].heads == ((2, 0), (2, 1))
    assert sets[1].heads[:6] == ((2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (1, 0))
    assert make_sets(made_heads(), "a", ["alone"], SETTINGS) == []  # nothing was measured


def test_texts_to_choose_on_share_no_group_with_those_that_fits_read() -> None:
    class Text:
        def __init__(self, group: str) -> None:
            self.group = group

    texts: list[tuple[Any, IntArray]] = [(Text(f"g{k // 3}"), np.array([k])) for k in range(30)]
    fitting, choosing = divided(texts, 0.25, 5)
    assert [len(fitting), len(choosing)] == [24, 6]  # two of ten groups
    assert not {c.group for c, _ in fitting} & {c.group for c, _ in choosing}
    assert divided(texts[::-1], 0.25, 5)[1] == choosing[::-1]  # whatever the order of texts
    assert divided(texts, 0.25, 6)[1] != choosing
    assert divided(texts[:3], 0.25, 5) == (texts[:3], texts[:3])  # one group alone
    assert len(divided(texts[:6], 0.01, 5)[1]) == 3


def test_random_sets_are_of_the_same_number_and_grow() -> None:
    sets = make_sets(made_heads(), "a", ["random"], {**SETTINGS, "layer_0": [False]})
    by = {(one.condition["draw"], one.condition["share"]): set(one.heads) for one in sets}
    assert {key: len(value) for key, value in by.items()} == {(0, 0.1): 2, (0, 0.5): 10, (1, 0.1): 2, (1, 0.5): 10}
    assert by[0, 0.1] < by[0, 0.5]
    assert by[0, 0.5] != by[1, 0.5]
    assert all(layer > 0 for chosen in by.values() for layer, _ in chosen)
    again = make_sets(made_heads(), "b", ["random"], {**SETTINGS, "layer_0": [False]})
    assert [set(one.heads) for one in again] == list(by.values())  # whoever orders them


def test_kinds_and_layers_are_parts_of_all_heads() -> None:
    heads = made_heads()
    for family in ("kind", "layer"):
        sets = make_sets(heads, "a", [family], {**SETTINGS, "layer_0": [True]})
        every = [head for one in sets for head in one.heads]
        assert sorted(every) == sorted((one["layer"], one["head"]) for one in heads)
    taken = make_sets(heads, "a", ["greedy"], SETTINGS, {False: [(3, 1), (2, 0), (1, 4)], True: []})
    assert [one.heads for one in taken] == [((3, 1), (2, 0))]


def test_losses_by_hand() -> None:
    rng = np.random.default_rng(1)
    p, q = (rng.dirichlet(np.ones(5), 3) for _ in range(2))
    came = np.array([4, 0, 2])
    base, other = (
        Predicted(torch.as_tensor(np.log(x)), torch.as_tensor(-np.log(x[np.arange(3), came]))) for x in (p, q)
    )
    found = other.against(base)
    assert found["nats_lost"].numpy() == pytest.approx(np.log(p[np.arange(3), came] / q[np.arange(3), came]))
    assert found["next_token_kl"].numpy() == pytest.approx((p * np.log(p / q)).sum(1))
    assert found["same_top_token"].tolist() == (p.argmax(1) == q.argmax(1)).astype(float).tolist()
    model, ids = small_models.llama(2), small_models.random_ids(9, 4)
    along = Predicted.along(model, ids)
    for t in range(1, 9):
        with torch.inference_mode():
            logits = model(torch.as_tensor(ids[:t])[None]).logits[0, -1]
        expected = -float(torch.log_softmax(logits.float(), -1)[int(ids[t])])
        assert float(along.loss[t - 1]) == pytest.approx(expected, abs=1e-4)


def test_mean_rows_are_means_over_occurrences_by_distance() -> None:
    """Against sums over single queries; the head's mean counts as some more occurrences."""
    rng, tokens = np.random.default_rng(2), np.array([9, 1, 0, 1, 2, 1, 0, 2, 1, 0])
    heads, length = 2, len(tokens)
    rows = np.zeros((heads, length, length))  # [H, key, query] without the first position
    for query in range(1, length):
        rows[:, 1 : query + 1, query] = rng.dirichlet(np.ones(query), heads)
    sums = MeanRows(3, heads)
    for part in (slice(0, 1), slice(1, 2)):
        weight = torch.as_tensor(rows[part, 1:, 1:])
        sums.add(np.where(tokens == 9, 0, tokens), None, weight, 1, 1, part)
    found, bucket = np.exp(sums.arrays()["mean_rows"]), bucket_table(length)
    for head in range(heads):
        mass, places = np.zeros((2, 4, BUCKETS))
        count = np.bincount(tokens[1:], minlength=3)
        for query in range(1, length):
            for key in range(1, query + 1):
                for who in (tokens[query], 3):
                    mass[who, bucket[query - key]] += rows[head, key, query]
                    places[who, bucket[query - key]] += 1
        mean, places_mean = mass[3] / count.sum(), places[3] / count.sum()
        reached = places[3] > 0
        for token in range(3):
            expected = (mass[token] + OCCURRENCES * mean) / np.maximum(places[token] + OCCURRENCES * places_mean, 1e-9)
            assert found[head, token][reached] == pytest.approx(expected[reached], rel=1e-5)
        assert found[head, 3][reached] == pytest.approx((mean / np.maximum(places_mean, 1e-9))[reached], rel=1e-5)
        assert (found[head, :, ~reached] == found[head, :, reached][-1]).all()


def test_selection_takes_what_costs_least_on_top_of_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {(1, 0): 0.5, (1, 1): 0.1, (2, 0): 0.3, (2, 1): 0.2, (3, 0): 0.05}

    def lost(arm: Any, texts: Any, base: Any, heads: Any, rule: str) -> float:
        both = 1.0 if {(1, 1), (2, 1)} <= set(heads) else 0.0  # these two do not go together
        return sum(cost[head] for head in heads) + both

    monkeypatch.setattr(selection, "_lost", lost)
    greedy = {"heads": 3, "candidates": 4, "step": 1, "texts": 1}
    steps = selection.forward(None, [], list(cost), greedy, "leader")  # type: ignore[arg-type]
    assert [taken for taken, _ in steps] == [[(1, 1)], [(1, 1), (3, 0)], [(1, 1), (3, 0), (2, 0)]]
    assert [value for _, value in steps] == pytest.approx([0.1, 0.15, 0.45])
    steps = selection.forward(None, [], list(cost), {**greedy, "step": 2}, "leader")  # type: ignore[arg-type]
    assert [len(taken) for taken, _ in steps] == [2, 3]


def test_texts_of_each_strategy_are_evenly_spread() -> None:
    class Text:
        def __init__(self, strategy: str) -> None:
            self.strategy = strategy

    texts: list[tuple[Any, IntArray]] = [(Text("ab"[k % 2]), np.array([k])) for k in range(10)]
    assert [int(ids[0]) for _, ids in first_of_each(texts, 3)] == [0, 4, 8, 1, 5, 9]
    assert first_of_each(texts, 0) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leaders": ["ccmc-fit"]}, "not among the surrogates"),
        ({"shares": [0.5, 1.5]}, "above 0 and at most 1"),
        ({"nulls": []}, "at least one"),
        ({"nulls": ["cuonts"]}, "counts"),
        ({"controls": ["uniform", "uniform"]}, "twice"),
        ({"layers": []}, "no layer"),
        ({"sets": ["shares"]}, "share"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InTheLoop(kind="in-the-loop", **settings)


def made_rows(room: float = 2.0) -> Any:
    """Two nulls, of which `distance` is the better one on training texts only; the chain loses a quarter of it."""
    rng = np.random.default_rng(3)
    rows = Rows(experiment="in-the-loop", model="m", strategy="greedy")
    for share, heads in ((0.25, 5), (0.5, 10)):
        at = {
            "order": "pccmc-fit",
            "set": "share",
            "share": share,
            "heads": heads,
            "layer_0": "out",
            "first_position": "leader",
        }
        for split, texts in (("train", 4), ("held_out", 12)):
            for k in range(texts):
                noise = float(rng.normal(0, 0.05))
                where = {
                    "split": split,
                    "prompt": f"{split}{k}",
                    "group": f"g{k // 2}" if split == "held_out" else None,
                }
                held = split == "held_out"
                values = {"counts": room * (0.9 if held else 1.1), "distance": room}
                if held:
                    values["pccmc-fit"] = 0.25 * room
                for arm, value in values.items():
                    rows.add(LOST, share * (value + noise), surrogate=arm, condition=at, **where)
                    for metric in ("nats_lost_written", "next_token_kl", "same_top_token"):
                        rows.add(metric, 0.5 + noise, surrogate=arm, condition=at, **where)
        for layer, count in ((1, heads - 2), (2, 2)):
            rows.add(
                "heads_in_layer", count, layer=layer, split="train", surrogate="pccmc-fit", condition=at, strategy=None
            )
        for k in range(12):
            where = {"split": "held_out", "prompt": f"held_out{k}", "group": f"g{k // 2}"}
            rows.add(
                "seq_rep_4", 0.4 + 0.012 * k + 0.02 * (k % 3), surrogate="pccmc-fit", condition=at, seed=0, **where
            )
    for k in range(12):
        where = {"split": "held_out", "prompt": f"held_out{k}", "group": f"g{k // 2}"}
        for seed in (0, 1):
            rows.add("seq_rep_4", 0.4 + 0.01 * k + 0.001 * seed * k, surrogate="model", seed=seed, **where)
    rows.add("margin_seq_rep_4", 0.05, surrogate="model", n=1, strategy=None)
    return rows.frame()


def test_recovered_is_against_the_null_that_was_best_on_training_texts() -> None:
    (part,) = parts(made_rows())
    assert part.leaders == ["pccmc-fit"]
    one, two = part.chosen("pccmc-fit")
    assert (one.heads, two.heads) == (5, 10)
    assert part.null(one.condition) == "distance"  # counts loses less on held-out texts, which may not choose
    own, null = (part.held_out[LOST, arm, one.condition]["value"].mean() for arm in ("pccmc-fit", "distance"))
    found = part.recovered(one.condition)
    assert found.value == pytest.approx(1 - own / null)
    assert found.low is not None
    assert found.low < 0.75 < (found.high or 0) + 0.05
    assert found.n == 6  # groups
    (flat,) = parts(made_rows(room=0.0))
    missing = flat.recovered(flat.chosen("pccmc-fit")[0].condition)
    assert missing.value is None
    assert missing.missing


def test_the_change_of_repetition_is_paired_and_its_margin_is_the_smallest_that_holds() -> None:
    (part,) = parts(made_rows())
    one = part.chosen("pccmc-fit")[0]
    verdict = part.change("pccmc-fit", one.condition)
    assert verdict is not None
    changes = [0.002 * k + 0.02 * (k % 3) for k in range(12)]  # against seed 0, the only one that was written
    assert verdict.interval.value == pytest.approx(np.mean(changes))
    least = smallest_margin(verdict)
    assert least is not None
    mean = group_mean(changes, [k // 2 for k in range(12)])
    for margin, holds in ((least * 1.001, True), (least * 0.999, False)):
        p = agreement_p(mean, margin)
        assert p is not None
        assert (p <= 0.05) is holds
    again = part.reseeded()
    assert again is not None
    assert again.interval.value == pytest.approx(np.mean([0.001 * k for k in range(12)]))


def test_tables_answers_and_figures_of_made_up_rows() -> None:
    rows = made_rows()
    found = {table.name: table for table in tables(rows)}
    headline = found["in-the-loop.lost"]
    assert headline.headline
    assert headline.column("heads") == [5, 10]
    assert headline.column("best null") == ["distance", "distance"]
    assert found["in-the-loop.sets"].column("layer:heads") == ["1:3 2:2", "1:8 2:2"]
    written = found["in-the-loop.generation"]
    assert written.column("replaced by") == ["model, other seed", "pccmc-fit, best 25 %", "pccmc-fit, best 50 %"]
    assert all(cell is not None for cell in written.column("nats lost")[1:])  # never repetition alone
    said = answers(rows)
    assert "in place of 5 heads" in said[0].text
    assert "distance, the best null on training texts" in said[0].text
    assert "the smallest margin that holds is" in said[-1].text
    (part,) = parts(rows)
    assert [label for label, _, _ in lines(part, True)] == [
        "pccmc-fit", "counts in heads of pccmc-fit", "distance in heads of pccmc-fit",
    ]  # fmt: skip
    drawn = [one.draw() for one in figures(rows, rows.head(0))]
    assert len(drawn) == 2
    left = drawn[0].axes[0]
    x, y = left.lines[0].get_data()
    assert list(x) == [25, 50]
    own = [part.mean(LOST, "pccmc-fit", one.condition).value for one in part.chosen("pccmc-fit")]
    assert list(y) == pytest.approx(own)
