"""The ladder away from the assumptions: its models, its data, and what must hold at its foot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float32 import FLOAT64, assert_close32

import harness
from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.texts import Text
from harness.experiments._shared import small_models
from harness.experiments.theory_gap import streams as theory_gap_data
from harness.experiments.theory_gap import units as theory_gap
from harness.experiments.theory_gap.answers import answers
from harness.experiments.theory_gap.figures import figures
from harness.experiments.theory_gap.settings import GAP_SURROGATES, TheoryGap
from harness.experiments.theory_gap.tables import tables
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import IGNORED
from harness.report.render.layout import layout, plain
from harness.runs.units import Work

SMALL = {
    "kind": "theory-gap",
    "characters": 8,
    "vocab_size": 5,
    "dimension": 8,
    "prompt_length": 6,
    "steps": 16,
    "sequences": 16,
    "surrogate_sequences": 8,
    "held_out_sequences": 4,
    "training_steps": 8,
    "repetitions": 1,
}
LINES = [
    "the cat sat on the mat, and the hat sat on the cat",
    "a mat that sat on a hat and a cat",
    "that cat ate the mat",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Text of the user's own through `datasets`, no language model at all."""
    folder = tmp_path_factory.mktemp("gap")
    (folder / "lines.txt").write_text("\n".join(LINES * 2), encoding="utf-8")
    config = {
        "name": "gap",
        "prompts": {"dataset": str(folder / "lines.txt")},
        "held_out": 0.34,
        "experiments": [{**SMALL, "streams": "prompts", "rungs": ["tied", "free-classifier", "positions"]}],
    }
    return harness.run(config, out=folder / "run")


def test_every_rung_has_one_more_step() -> None:
    sizes = []
    for rung in theory_gap.RUNGS:
        model = theory_gap.rung_model(rung, 5, 8, 12, seed=0)
        logits = model(torch.tensor([[0, 1, 2, 1]])).logits[0, -1].detach()
        assert (logits > -torch.inf).sum() == (3 if rung == "tied" else 5), rung
        # rows of length 1 are cast to float32, and multiplied over eight channels
        assert_close32(model.E @ model.E.T, np.eye(5), operations=2 + 8)
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert list(theory_gap.RUNGS)[-1] == "positions"
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == sizes[4] < sizes[5] < sizes[6] < sizes[7] < sizes[8]


@pytest.mark.parametrize("rung", ["tied", "layer-norm"])
def test_the_chain_off_the_weights_is_the_attention(rung: str) -> None:
    model = theory_gap.rung_model(rung, 5, 8, 12, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter is not model.E:
            parameter.data += torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    tokens = np.array([0, 1, 1, 2, 4, 2, 0])
    text = Text(tokens, start=3)
    found = theory_gap.weights_chain(model).fit(None).predict(text)[0]  # type: ignore[arg-type]
    attention = torch.exp(model.log_attention(torch.as_tensor(tokens)[None]))[0, 0, 3:].detach().double().numpy()
    np.testing.assert_allclose(found, text.per_token(attention), rtol=0, atol=FLOAT64)


def test_labels_are_what_comes_next_from_the_prompt_on() -> None:
    tokens = np.array([[0, 1, 0, 2, 2, 1]])
    every = small_models.next_tokens(tokens, 2, inside=False).labels
    assert every is not None
    assert every.tolist() == [[IGNORED, 0, 2, 2, 1, IGNORED]]
    inside = small_models.next_tokens(tokens, 2, inside=True).labels
    assert inside is not None
    assert inside.tolist() == [[IGNORED, 0, IGNORED, 2, 1, IGNORED]]


def test_characters_are_counted_in_training_texts_alone(tmp_path: Path) -> None:
    prompts = [
        {"id": "a", "kind": "k", "text": "Aab  b\nc", "split": "train"},
        {"id": "b", "kind": "k", "text": "zzzzA", "split": "held_out"},
    ]
    work = Work({"prompts": prompts, "characters": 4}, {}, [], tmp_path, lambda share, what: None)
    theory_gap_data.characters(work)
    stored = json.loads((tmp_path / theory_gap_data.STREAMS).read_text(encoding="utf-8"))
    assert stored["alphabet"] == [" ", "a", "b", theory_gap_data.OTHER]
    assert [s["tokens"] for s in stored["streams"]] == [[1, 1, 2, 0, 2, 0, 3], [3, 3, 3, 3, 1]]


def test_windows_stay_in_their_split_and_need_long_texts(tmp_path: Path) -> None:
    streams = [
        {"id": "a", "split": "train", "tokens": [0, 1] * 20},
        {"id": "b", "split": "held_out", "tokens": [2, 3] * 20},
    ]
    (tmp_path / theory_gap_data.STREAMS).write_text(json.dumps({"alphabet": list("abcd"), "streams": streams}))
    settings = {"prompt_length": 4, "steps": 6, "sequences": 5, "held_out_sequences": 3}
    data = theory_gap_data.windows(tmp_path, settings, seed=0)
    assert (data.train.shape, data.held_out.shape, data.vocab_size) == ((5, 10), (3, 10), 4)
    assert data.train.max() == 1
    assert data.held_out.min() == 2
    assert data.groups == ["a"] * 5
    with pytest.raises(ValueError, match="no train text has 100 characters"):
        theory_gap_data.windows(tmp_path, {**settings, "steps": 96}, seed=0)


def test_the_tied_model_is_its_chain_and_the_others_are_measured(run: Any) -> None:
    rows = run.rows
    pooled = rows[rows["split"] == "pooled"]
    exact = pooled[pooled["metric"] == "kl_weights"]
    tied = exact["condition"].str.contains('"rung": "tied"')
    assert list(exact[tied]["verdict"]) == ["holds", "holds"]
    assert list(exact[~tied]["verdict"]) == ["does not hold", "does not hold"]
    single = rows[(rows["metric"] == "kl") & (rows["split"] == "held_out")]
    assert set(single["surrogate"]) == {"ccmc-weights", *GAP_SURROGATES}
    none = single[single["value"].isna()]
    assert none["condition"].str.contains("positions").all()
    assert none["missing"].str.contains("no single chain").all()
    for name in ("model-reseeded", "model-shuffled", "ccmc-fit"):
        assert (rows["surrogate"][rows["metric"] == "winner_jaccard"] == name).any()


def test_it_has_its_table_and_figure(run: Any) -> None:
    rows = run.rows[run.rows["experiment"] == "theory-gap"]
    headline, *others = tables(rows)
    assert headline.headline
    assert headline.columns[1].name == "models"
    assert set(headline.column("models")) == {None, 1, 2}  # the chain off the weights is of one model
    context = dict(zip(headline.column("surrogate"), headline.column("context"), strict=True))
    assert {name for name, found in context.items() if found == "open"} == {"bigram", "ccmc-open"}
    assert context["ccmc-fit"] == context["ccmc-weights"] == context["counts"] == "closed"
    assert context["model"] is None
    new = dict(zip(headline.column("surrogate"), headline.column("new, text"), strict=True))
    assert all((share > 0) == (context[name] != "closed") for name, share in new.items() if share is not None)
    assert new["model"] is not None
    assert {"winners, ccmc-open", "new, ccmc-open", "new, model"} <= {column.name for column in others[0].columns}
    assert max(len(plain(line)) for line in layout(headline, 100)) <= 100
    assert [table.name.partition(".")[2] for table in others] == ["models", "verdicts", "claims"]
    assert not any(table.headline for table in others)
    assert [list(line[:2]) for line in others[0].rows] == [
        [data, rung] for data in ("ccmc", "text") for rung in ("tied", "free-classifier", "positions")
    ]
    (figure,) = figures(rows, run.trajectories)
    assert figure.name == "theory-gap"
    assert len(figure.draw().axes) == 4


def test_one_repetition_answers_what_needs_no_interval(run: Any) -> None:
    rows = run.rows[run.rows["experiment"] == "theory-gap"]
    stops, *closest, verdicts = answers(rows)
    assert stops.answered
    assert "the tied model is the chain read off its weights. It is: KL at most" in stops.text
    assert [answer.answered for answer in closest] == [False, False, False]
    assert all("1 unit: fewer than 5" in answer.text for answer in closest)
    assert "could not be judged: an interval needs 5 repetitions" in verdicts.text


def test_rows_of_older_runs_have_their_tables_and_answers(run: Any) -> None:
    """Before there was an open chain, and before new tokens were counted."""
    rows = run.rows[run.rows["experiment"] == "theory-gap"]
    older = rows[(rows["metric"] != "new_tokens") & (rows["surrogate"] != "ccmc-open").fillna(True)]
    headline, models, *_ = tables(older)
    assert [column.name for column in headline.columns[-2:]] == ["explained, text", "winners, text"]
    assert "model" not in headline.column("surrogate")
    assert dict(zip(headline.column("surrogate"), headline.column("context"), strict=True))["bigram"] == "open"
    assert not any("ccmc-open" in column.name or column.name.startswith("new") for column in models.columns)
    assert "ccmc-open" not in headline.caption + models.caption
    closure = answers(older)[-2].text
    assert "bigram (open) has" in closure
    assert "ccmc-open" not in closure


def test_closed_models_write_no_new_token(run: Any) -> None:
    single = run.rows[(run.rows["metric"] == "new_tokens") & (run.rows["split"] == "held_out")]
    tied = single["condition"].str.contains('"rung": "tied"')
    shares = single["value"].astype(float)
    assert (shares[tied & (single["surrogate"] == "model")] == 0).all()
    assert (shares[single["surrogate"].isin(["counts", "ccmc-fit", "ccmc-weights", "bigram-restricted"])] == 0).all()
    assert (shares[~tied & (single["surrogate"] == "model")] > 0).all()


def test_new_tokens_are_counted_once_each() -> None:
    prompts = [np.array([0, 1]), np.array([2, 2])]
    assert small_models.new_tokens(prompts, [np.array([0, 3, 3, 4]), np.array([2, 2, 2, 0])]) == (2 / 4 + 1 / 4) / 2


def test_models_and_loss_curves_stand_in_the_units(run: Any) -> None:
    folders = sorted(run.path.glob("units/*/checkpoint"))
    assert len(folders) == 6
    for folder in folders:
        OneLayerForCausalLM.from_pretrained(folder)
        assert len((folder.parent / "loss.csv").read_text().splitlines()) == 1 + SMALL["training_steps"]  # type: ignore[operator]


def test_a_smoke_run_takes_the_first_and_the_last_of_the_ladder() -> None:
    settings = TheoryGap.model_validate(SMALL)
    assert settings.limited(1).rungs == ("tied", "residual", "positions")
    assert settings.limited(2).rungs[::5] == ("tied", "positions")
    assert settings.limited(4).rungs == settings.rungs == tuple(theory_gap.RUNGS)


def test_what_cannot_be_is_refused() -> None:
    for changed, message in (
        ({"dimension": 10}, "multiple of 4"),
        ({"characters": 16}, "at least the 16 tokens"),
        ({"surrogates": ["ccmc-fit"]}, "'counts' must be among"),
    ):
        with pytest.raises(ValueError, match=message):
            TheoryGap.model_validate({**SMALL, **changed})
    with pytest.raises(UsageError, match="needs `models`"):
        load_config({"name": "x", "experiments": [SMALL]})
    with pytest.raises(UsageError, match="needs `prompts`"):
        load_config({"name": "x", "models": ["smollm2-135m"], "experiments": [SMALL]})
