"""What causes repetition: searches, splits, kinds of heads, losses and repetition by hand, and what rows say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64
from pydantic import ValidationError

from harness.attention.eager import eager_rows
from harness.attention.interventions import Penalty
from harness.core.rows import Rows
from harness.data.splits import Prompt
from harness.experiments.causes.answers import CHANGES, INDUCTION, LOSSES, SAME, answers
from harness.experiments.causes.calibrating import CLOSE, Search, losses
from harness.experiments.causes.figures import change_figure, figures, lines
from harness.experiments.causes.learning import head_scores, sets_of_heads
from harness.experiments.causes.parts import NOTHING, Job, Part, parts, smallest_margin
from harness.experiments.causes.settings import Causes
from harness.experiments.causes.tables import tables
from harness.experiments.causes.texts import parted, sentence_of, set_up, taken
from harness.experiments.causes.writing import context_repetition
from harness.stats.significance import holm

LEVELS = (0.02, 0.05, 0.1, 0.2)


@pytest.mark.parametrize(
    "rise",
    [
        lambda s: 0.5 * s,
        lambda s: 4 * s**3,
        lambda s: float(np.expm1(6 * s)) / 50,
        lambda s: 0.15 * np.sqrt(s) + 0.1 * s,
        lambda s: 0.8 * max(s - 0.31, 0.0) ** 0.5 + 1e-4 * s,
    ],
)
def test_a_search_finds_the_strength_of_a_level(rise: Callable[[float], float]) -> None:
    tried: list[float] = []

    def measured(strength: float) -> float:
        tried.append(strength)
        return float(rise(strength))

    search = Search(measured, 1.0)
    for level in LEVELS:
        found = search.level(level)
        assert found.strength is not None
        assert found.rise == float(rise(found.strength))
        assert abs(found.rise - level) <= CLOSE * level
    assert len(tried) == len(set(tried)) <= 4 + 10 * len(LEVELS)  # nothing twice
    assert 0.0 not in tried


def test_a_level_that_full_strength_does_not_reach_is_missing() -> None:
    search = Search(lambda s: 0.07 * s, 2.0)
    assert search.level(0.1).strength == pytest.approx(0.1 / 0.07, rel=CLOSE)
    out = search.level(0.2)
    assert (out.strength, out.rise) == (None, pytest.approx(0.14))
    assert search.largest == pytest.approx(0.14)
    helping = Search(lambda s: -0.01 * s, 1.0)  # it predicts better: never a rise
    assert helping.level(0.02).strength is None
    assert helping.largest < 0
    bent = Search(lambda s: 0.3 * s * (1 - s), 1.0)  # rises, and falls again: the first crossing counts
    found = bent.level(0.05)
    assert found.strength == pytest.approx(0.211, abs=0.02)


def test_groups_are_not_split_and_parts_are_alike() -> None:
    groups = [f"g{k // 3}" for k in range(60)]
    found = parted(groups, ("learn", "match", "report"), 0)
    assert set(found) == set(groups)
    sizes = [list(found.values()).count(part) for part in ("learn", "match", "report")]
    assert max(sizes) - min(sizes) <= 1
    assert parted(reversed(groups), ("learn", "match", "report"), 0) == found
    assert parted(groups, ("learn", "match", "report"), 1) != found
    with pytest.raises(ValueError, match="2 groups"):
        parted(["a", "b", "a"], ("learn", "match", "report"), 0)
    prompts = [Prompt(f"p{k}", "k", "text") for k in range(30)]
    few = taken(prompts, 7, 0)
    assert len(few) == 7
    assert [p.id for p in prompts if p in few] == [p.id for p in few]
    assert taken(prompts, 40, 0) == prompts


def test_sentences() -> None:
    assert (
        sentence_of("Stop! The bees have left the third hive. Then it rained.") == "The bees have left the third hive."
    )
    assert sentence_of("Parts:\n- two long screws, flat\n- a nut") == "- two long screws, flat"
    assert sentence_of("a b c") == "a b c"
    assert len(sentence_of(" ".join(["word"] * 90)).split()) == 24
    assert set_up("One two three four. Five.", 3) == "One two three four. One two three four. One two three four."


def test_repetition_of_the_context_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        before, own = rng.integers(0, 3, 12), rng.integers(0, 3, 15)
        whole, count = np.concatenate([before, own]).tolist(), 0
        for place in range(12, 24):
            earlier = [whole[k : k + 4] for k in range(place)]
            count += whole[place : place + 4] in earlier
        assert context_repetition(own, before).value == pytest.approx(count / 12)
    assert context_repetition(np.array([1, 2, 3, 4]), np.array([9, 1, 2, 3, 4])).value == 1.0
    assert context_repetition(np.array([1, 2, 3]), np.array([1])).missing is not None


def test_scores_of_heads_from_eager_rows() -> None:
    model = small_models.llama(2)
    texts = [np.random.default_rng(seed).integers(2, 8, 15) for seed in range(3)]
    found = head_scores(model, texts, [0, 1])
    assert set(found) == {(layer, head) for layer in (0, 1) for head in range(6)}
    for layer, head in ((0, 2), (1, 5)):
        sink, previous, induction, duplicate = [], [], [], []
        for ids in texts:
            rows = eager_rows(model, ids)[layer][head].double().numpy()
            for t in range(1, 15):
                rest = rows[t, 1 : t + 1] / rows[t, 1 : t + 1].sum()  # position k is at k - 1
                sink.append(rows[t, 0])
                if t > 1:
                    previous.append(rest[t - 2])
                after = [k for k in range(1, t) if ids[k - 1] == ids[t]]
                same = [k for k in range(1, t) if ids[k] == ids[t]]
                induction += [sum(rest[k - 1] for k in after)] if after else []
                duplicate += [sum(rest[k - 1] for k in same)] if same else []
        own = found[layer, head]
        assert own["sink_share"] == pytest.approx(np.mean(sink), abs=1e-5)
        assert own["previous_token_score"] == pytest.approx(np.mean(previous), abs=1e-5)
        assert own["induction_score"] == pytest.approx(np.mean(induction), abs=1e-5)
        assert own["duplicate_token_score"] == pytest.approx(np.mean(duplicate), abs=1e-5)


def test_random_heads_have_the_number_and_layers_of_their_kind() -> None:
    scores = {(layer, head): {"sink_share": 0.0, "induction_score": 0.0} for layer in range(4) for head in range(6)}
    for head in ((1, 0), (1, 4), (3, 2)):
        scores[head]["induction_score"] = 0.7
    for head in range(4):
        scores[2, head]["sink_share"] = 0.9
    found = sets_of_heads(scores, ["induction", "sink"], 0)
    assert found["induction"] == [(1, 0), (1, 4), (3, 2)]
    assert found["sink"] == [(2, 0), (2, 1), (2, 2), (2, 3)]
    assert found["previous-token"] == []
    twin = found["random like induction"]
    assert [layer for layer, _ in twin] == [1, 1, 3]
    assert len(set(twin)) == 3
    assert not set(twin) & set(found["induction"])
    other = found["random like sink"]  # layer 2 has two others: the rest comes from beside it
    assert {(2, 4), (2, 5)} <= set(other)
    assert len(set(other)) == 4
    assert all(1 <= layer <= 3 for layer, _ in other)
    assert sets_of_heads(scores, ["induction", "sink"], 1) != found
    scores[0, 1]["induction_score"] = 0.2  # no induction head, but the next in order
    first = sets_of_heads(scores, [], 0, top=4)
    assert first["induction"] == [(0, 1), (1, 0), (1, 4), (3, 2)]
    assert first["sink"] == found["sink"]
    assert first["previous-token"] == []  # no head has the score


def test_losses_of_a_batch_are_those_of_single_texts(in_doubles: None) -> None:
    model = small_models.llama(2).double()
    texts = [(np.random.default_rng(n).integers(2, 9, n), start) for n, start in ((30, 1), (9, 4), (17, 16), (30, 20))]
    for change in (None, Penalty("frequency")):
        found = losses(model, texts, change, 0.3)
        for (ids, start), value in zip(texts, found, strict=True):
            with torch.inference_mode():
                made = model(torch.as_tensor(ids)[None]).logits[0]
            logits = made.clone()  # one that may be changed
            for t in range(len(ids)):
                for token in ids[: t + 1] if change else []:
                    logits[t, token] -= 0.3
            each = [-float(torch.log_softmax(logits[t - 1], -1)[ids[t]]) for t in range(start, len(ids))]
            assert value == pytest.approx(np.mean(each), abs=FLOAT64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": [0.1, 0.1]}, "distinct"),
        ({"levels": [0.0]}, "above 0"),
        ({"generate": [0.3]}, "not among the levels"),
        ({"interventions": ["counts", "counts"]}, "twice"),
        ({"interventions": ["counts"]}, "random_like"),
        ({"interventions": ["inductions"]}, "induction"),
        ({"layers": []}, "no layer"),
        ({"matched_on": []}, "at least 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Causes(kind="causes", **settings)


EFFECTS = {
    "counts": (0.0, 0.0),
    "induction": (-0.3, -0.02),
    "random like induction": (0.0, 0.0),
    "mlp-noise": (0.1, 0.0),
}
"""Intervention -> how it changes natural repetition, and repetition that is set up."""


def made_rows(prompts: int = 60, noise: float = 0.02, off: str | None = None) -> Any:
    rng = np.random.default_rng(0)
    rows = Rows(experiment="causes", model="m")
    rows.add("margin_seq_rep_4", 0.05, strategy="greedy", n=1)
    rows.add("repeats", 4, strategy="greedy", n=1)
    for name in EFFECTS:
        for level in (0.1, 0.2):
            at = {"intervention": name, "text": "human", "level": level}
            if (name, level) == ("counts", 0.2):
                rows.add(
                    "strength", None, missing="full strength does not reach the level", condition=at, split="train"
                )
                continue
            rows.add("strength", 0.5, condition=at, split="train", n=10)
            rows.add("loss_rise", level, condition=at, split="train", n=10)
            for k in range(12):
                real = level * (2 if name == off else 1)
                value = real + float(rng.normal(0, 0.01))
                rows.add("loss_rise", value, condition=at, split="held_out", prompt=f"t{k}", n=9)
        about = {"intervention": name, "text": "human"}
        rows.add("largest_rise", 0.15 if name == "counts" else 0.9, condition=about, split="train", n=10)
    for layer in (3, 5):
        rows.add("heads_changed", 2, layer=layer, condition={"intervention": "induction"}, split="train", n=4)
    for k in range(prompts):
        where = {"strategy": "greedy", "prompt": f"p{k}", "group": f"g{k // 2}", "split": "held_out", "seed": 0}
        for place, context in enumerate(("natural", "set-up")):
            base = 0.4 + 0.3 * place + float(rng.uniform(-0.1, 0.1))
            rows.add("seq_rep_4", base, condition={"intervention": "none", "context": context}, **where)
            for name, effects in EFFECTS.items():
                at = {"intervention": name, "text": "human", "level": 0.1, "context": context}
                value = base + effects[place] + float(rng.normal(0, noise))
                rows.add("seq_rep_4", value, condition=at, **where)
            at = {"intervention": "no-repeat-ngram", "n": 4, "context": context}
            rows.add("seq_rep_4", 0.0, condition=at, **where)
    return rows.frame()


def only(rows: Any) -> Part:
    (part,) = parts(rows)
    return part


def test_changes_are_paired_and_corrected_together() -> None:
    rows = made_rows()
    part = only(rows)
    assert part.names == ["counts", "induction", "random like induction", "mlp-noise"]
    assert part.headline == ("human", 0.1)
    natural = part.verdicts(("human", 0.1, "natural"))
    words = {name: verdict.word for name, verdict in natural.items()}
    assert words == {
        "counts": "agrees",
        "induction": "differs",
        "random like induction": "agrees",
        "mlp-noise": "differs",
    }
    assert natural["induction"].interval.value == pytest.approx(-0.3, abs=0.01)
    raw = {name: part.change(Job(name, "human", 0.1), "natural") for name in natural}
    every = [p for one in raw.values() if one for p in (one.p_agrees, one.p_differs)]
    corrected = holm(np.array(every, dtype=float), most_true=4)
    assert [p for one in natural.values() for p in (one.p_agrees, one.p_differs)] == pytest.approx(corrected)
    values = rows[(rows["metric"] == "seq_rep_4")].pivot_table(index="prompt", columns="condition", values="value")
    by_hand = {c: values[c].mean() for c in values if '"natural"' in c}
    own = next(value for c, value in by_hand.items() if '"induction"' in c)
    base = next(value for c, value in by_hand.items() if '"none"' in c)
    assert natural["induction"].interval.value == pytest.approx(own - base)
    assert part.mean("seq_rep_4", NOTHING, "natural").value == pytest.approx(base)
    alone = raw["counts"]
    assert alone is not None
    assert alone.findable is not None
    found = natural["counts"].findable  # at 5 % / 4 in the place of 5 %: some 1.2 times as large
    assert found is not None
    assert 1.1 < found / alone.findable < 1.4
    margin = smallest_margin(natural["counts"])
    assert margin is not None
    assert 0 < margin < 0.05


def test_contexts_and_noise_are_compared_prompt_by_prompt() -> None:
    part = only(made_rows())
    contrasts = part.contrasts("human", 0.1)
    assert contrasts["induction"].word == "differs"
    assert contrasts["induction"].interval.value == pytest.approx(0.28, abs=0.02)
    assert contrasts["counts"].word == "agrees"
    against = part.against(("human", 0.1, "natural"))
    assert set(against) == {"counts", "induction", "random like induction"}
    assert against["counts"].interval.value == pytest.approx(-0.1, abs=0.02)  # noise at the same loss adds .1
    assert against["counts"].word == "differs"


def test_what_costs_another_loss_is_not_compared() -> None:
    part = only(made_rows(off="induction"))
    assert not part.holds("induction", "human", 0.1)
    assert "induction" not in part.verdicts(("human", 0.1, "natural"))
    assert "induction" not in part.contrasts("human", 0.1)
    assert ("natural", "induction") not in lines(part, "human")
    shown = {table.name: table for table in tables(made_rows(off="induction"))}
    words = dict(zip(shown["causes.all"].column("done"), shown["causes.all"].column("verdict"), strict=True))
    assert words["induction"] == "loss not matched"
    assert "induction" not in shown["causes.changes"].column("done")
    said = {answer.question: answer.text for answer in answers(made_rows(off="induction"))}
    assert "Not compared: induction at 0.1" in said[LOSSES]
    assert "loss was not matched" in said[INDUCTION]


def test_answers_say_what_was_madeand_what_could_have_been() -> None:
    said = answers(made_rows())
    texts = {
        question: [a.text for a in said if a.question == question] for question in (CHANGES, SAME, INDUCTION, LOSSES)
    }
    natural, set_up_ = texts[CHANGES]
    assert "seq_rep_4 falls with induction, by -0.3" in natural
    assert "Shown to change by less than 0.05: counts and random like induction." in natural
    assert "60 prompts; Holm over 4 interventions" in natural
    assert "No change was found with any intervention" in set_up_ or "induction, by -0.02" in set_up_
    assert "4 induction heads" in texts[INDUCTION][0]
    assert "against random like induction" in texts[INDUCTION][0]
    assert "one model on the prompts of this run" in texts[INDUCTION][0]
    assert "changes otherwise than natural repetition with induction, by +0.2" in texts[SAME][0]
    assert "Not reached on human-like text, from a level on: counts (0.2)" in texts[LOSSES][0]
    assert "Furthest off is " in texts[LOSSES][0]
    every = " ".join(answer.text for answer in said)
    assert "does not cause" not in every
    wide = answers(made_rows(prompts=20, noise=0.4))
    first = next(answer.text for answer in wide if answer.question == CHANGES)
    assert "Undecided: " in first
    assert "would have been found with 80 % power" in first


def test_tables_and_figures() -> None:
    rows = made_rows()
    shown = {table.name: table for table in tables(rows)}
    assert set(shown) == {
        "causes.changes", "causes.all", "causes.contexts", "causes.against-noise", "causes.losses", "causes.heads",
    }  # fmt: skip
    headline = shown["causes.changes"]
    assert headline.headline
    assert len(headline.rows) == 4
    assert headline.column("done") == ["counts", "induction", "random like induction", "mlp-noise"]
    losses_ = shown["causes.losses"]
    missing = [row for row in losses_.rows if row[0] == "counts" and row[2] == 0.2]
    assert missing[0][3] is None
    assert missing[0][6] == pytest.approx(0.15)
    reference = [row for row in shown["causes.all"].rows if row[1] == "no-repeat-ngram"]
    assert {row[3] for row in reference} == {None}  # it has no level
    assert tables(rows.iloc[:0]) == []
    assert answers(rows.iloc[:0])[0].answered is False
    (figure,) = figures(rows, rows)
    drawn = figure.draw()
    assert [axis.get_title() for axis in drawn.axes] == ["natural repetition", "set up by the prompt"]
    curve = lines(only(rows), "human")["natural", "induction"]
    assert [level for level, _ in curve] == [0.1]
    assert change_figure(only(rows), "human").axes[0].get_xscale() == "log"
