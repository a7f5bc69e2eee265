"""Surrogates of a finished run of `generation` as models of transformers: they give what the run's own give."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_models
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import harness
import harness.hf
from harness.cli.app import invoke
from harness.cli.export import chosen_kind
from harness.core.errors import UsageError
from harness.experiments.generation import units
from harness.experiments.generation.opening import EXPORTED

OWN_ROWS = ("bigram", "ccmc-open")  # leave their context by rows of their own, where tokens of no text have a share
FITTED_PAIRS, PRODUCTS = ("ccmc-fit", "bigram-restricted"), ("ccmc-bilinear", "ccmc-head", "ccmc-mixture")


def write_config(folder: Path, model: Path, **changes: Any) -> Path:
    texts = small_models.random_texts(10, 16)
    prompts = [{"id": f"p{i}", "kind": "a", "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    experiment = {
        "kind": "generation",
        "surrogates": list(EXPORTED),
        "rollout_seeds": 1,
        "mean_field": False,
        "escape": True,
    }
    config = {
        "name": "exported", "models": [str(model)], "prompts": "prompts.yaml", "held_out": 0.3,
        "generation": {"max_new_tokens": 40, "strategies": ["greedy", {"temperature": 1.0}], "seeds": 1},
        "experiments": [{**experiment, **changes}],
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def judged() -> dict[tuple[str, str], list[tuple[Any, Any, Any]]]:
    """(strategy, surrogate) -> text, fitted surrogate and escape, as the run itself judged them."""
    return defaultdict(list)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_model: Path, judged: Any) -> Any:
    """A run that hands out what it has fitted."""
    folder = tmp_path_factory.mktemp("exported")
    own, fit = units._one_step, units.strategy

    def keep(rows: Any, name: str, surrogate: Any, entry: Any, escape: Any, measures: Any) -> None:
        judged[strategy_of[0], name].append((entry, surrogate, escape))
        own(rows, name, surrogate, entry, escape, measures)

    strategy_of = [""]

    def named(work: Any) -> Any:
        strategy_of[0] = work.settings["strategy"]
        return fit(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_one_step", keep)
        patch.setattr(units, "strategy", named)
        return harness.run(write_config(folder, small_model), out=folder / "run", executor="serial")


def exported(run: Any, folder: Path, name: str, *options: str) -> Any:
    assert invoke(["export", str(run.path), str(folder), "--surrogate", name, *options]) == 0
    return AutoModelForCausalLM.from_pretrained(folder)


def laws(model: Any, entry: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[n, V] next-token distributions along a text of the run."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(entry.continuation.tokens)[None]).logits[0].double()
    found: np.ndarray[Any, np.dtype[np.float64]] = logits[entry.text.positions].exp().numpy()
    return found


def run_laws(entry: Any, surrogate: Any, escape: Any, name: str) -> tuple[Any, Any]:
    """[n, U] what the run's surrogate gives to the types of the context, and [n, K] to all local tokens."""
    text = entry.text
    whole, size = [], escape.vocab_size
    for row, query in enumerate(text.types[text.query].tolist()):
        counts = np.zeros(size)
        counts[text.types] = text.counts[row]
        if name == "bigram":
            whole.append(surrogate.row(query))
            continue
        if name == "ccmc-open":
            whole.append(surrogate._whole(np.array([query]), counts[None])[0])
            continue
        inside = np.zeros(size)
        inside[text.types] = surrogate.predict(text)[0][row]
        whole.append(escape.mix(inside, counts, query))
    found = np.stack(whole)
    return np.where(text.counts > 0, found[:, text.types], 0.0), found


@pytest.mark.parametrize("strategy", ["greedy", "temperature=1"])
@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_model_has_the_law_of_the_run(
    run: Any, judged: Any, name: str, strategy: str, tmp_path: Path
) -> None:
    model = exported(run, tmp_path / "model", name, "--strategy", strategy)
    assert (model.config.tables["pairs"] > 0) == (name in FITTED_PAIRS)
    assert (model.config.tables["heads"] > 0) == (name in PRODUCTS)
    of_run = judged[strategy, name]
    assert len(of_run) == 3
    ids = local_ids(run, strategy)
    for entry, surrogate, escape in of_run:
        found = laws(model, entry)
        assert (found > 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        inside, every = run_laws(entry, surrogate, escape, name)
        mine = np.where(entry.text.counts > 0, found[:, ids[entry.text.types]], 0.0)
        if name not in OWN_ROWS:
            np.testing.assert_allclose(mine, inside, rtol=2e-5, atol=1e-7)
        # among the tokens that the run's surrogate can reach, the shares are its own
        outside = np.where(every > 0, found[:, ids], 0.0)
        here = np.zeros_like(every, dtype=bool)
        if name not in OWN_ROWS:
            here[:, entry.text.types] = entry.text.counts > 0
        for side in (here, ~here):
            a, b = np.where(side, outside, 0.0), np.where(side, every, 0.0)
            rows = b.sum(axis=1) > 0
            shares = [part[rows] / part[rows].sum(axis=1, keepdims=True) for part in (a, b)]
            np.testing.assert_allclose(*shares, rtol=2e-4, atol=1e-7)


def local_ids(run: Any, strategy: str) -> Any:
    from harness.data.texts import LocalVocabulary
    from harness.experiments._shared.continuations import read_continuations

    record = next(r for r in records(run) if r["settings"]["strategy"] == strategy)
    every = [c for key in record["needs"] for c in read_continuations(run.path / "units" / key)]
    return LocalVocabulary(c.tokens for c in every if c.seed != record["settings"]["reseeded"]).ids


def records(run: Any) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in run.path.glob("units/*/unit.json")]
    return [one for one in found if one["task"].endswith("generation.units:strategy")]


@pytest.mark.parametrize("name", ["ccmc-fit", "bigram"])
def test_the_figures_of_the_rows_are_those_of_the_exported_model(
    run: Any, judged: Any, name: str, tmp_path: Path
) -> None:
    model = exported(run, tmp_path / "model", name)
    ids = local_ids(run, "greedy")
    rows = run.rows[(run.rows["strategy"] == "greedy") & (run.rows["surrogate"] == name)]
    for entry, _, _ in judged["greedy", name]:
        own = rows[rows["prompt"] == entry.continuation.prompt].set_index("metric")["value"]
        known = entry.text.counts > 0
        inside = np.where(known, laws(model, entry)[:, ids[entry.text.types]], 0.0)
        share = inside / inside.sum(axis=1, keepdims=True)
        target = entry.restricted
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = np.where(target > 0, target * np.log(target / share), 0.0).sum(axis=1)
        assert kl.mean() == pytest.approx(own["kl"], rel=1e-4)
        left = 1 - inside.sum(axis=1).mean()
        if name == "ccmc-fit":
            assert left == pytest.approx(own["escape"], rel=1e-4)
        else:  # tokens that no text of the run has take their share
            assert own["escape"] < left < own["escape"] + 0.2


def test_what_was_written_is_loaded_cached_and_continued(run: Any, judged: Any, tmp_path: Path) -> None:
    model = exported(run, tmp_path / "model", "ccmc-fit")
    entry = judged["greedy", "ccmc-fit"][0][0]
    ids = torch.from_numpy(entry.continuation.tokens)[None]
    model.save_pretrained(tmp_path / "again")
    for dtype in (torch.float32, torch.bfloat16):
        again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=dtype)
        torch.testing.assert_close(again(ids).logits.float(), model(ids).logits, rtol=0, atol=0)
    first = model(ids[:, :9])
    rest = model(ids[:, 9:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, model(ids).logits[:, 9:])
    made = model.generate(ids[:, :6], max_new_tokens=8, do_sample=False, num_beams=3, pad_token_id=0)
    assert made.shape[1] > 6
    loss = float(model(ids, labels=ids).loss)
    assert np.isfinite(loss)
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["law"], config["inside"], config["closed"]) == ("escape", "chain", False)
    assert 0 < config["escape"]["rate"] < 1 <= config["escape"]["known"]
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "open: it leaves its context as often as the model did" in card
    assert "Divergence of the model from it on held-out texts" in card
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompt = tokenizer.decode(ids[0, :8])
    assert write(prompt, max_new_tokens=4, do_sample=False)[0]["generated_text"].startswith(prompt[:4])


def test_lm_eval_gives_a_finite_perplexity_that_is_ours(run: Any, judged: Any, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    exported(run, tmp_path / "model", "ccmc-fit")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "a b c a b zq a b c"
    model = HFLM(pretrained=str(tmp_path / "model"), device="cpu", batch_size=2)
    [found] = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], disable_tqdm=True)
    first = model.prefix_token_id
    law = model.model.escape_law
    ids, total = np.array([first, *tokenizer.encode(text, add_special_tokens=False)]), 0.0
    for place in range(1, len(ids)):
        types, counts = np.unique(ids[:place], return_counts=True)
        total += float(law.log_law(ids[:place], types, counts.astype(float))[ids[place]])
    assert np.isfinite(found)
    assert found == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ["counts", "ccmc-open", "ccmc-mixture"])
def test_a_closed_one_says_so(
    run: Any, judged: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported(run, tmp_path / "model", name, "--closed")
    assert "closed: tokens outside the context get -inf" in capsys.readouterr().out
    entry, surrogate, _ = judged["greedy", name][0]
    ids = local_ids(run, "greedy")
    found = laws(model, entry)
    np.testing.assert_allclose(found[:, ids[entry.text.types]], surrogate.predict(entry.text)[0], atol=1e-6)
    assert (found.sum(axis=1) == pytest.approx(1, abs=1e-5)) and (found == 0).any()
    assert "It is closed" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRODUCTS)
def test_tokens_of_no_text_count_as_the_mean_of_the_others(run: Any, judged: Any, name: str, tmp_path: Path) -> None:
    model = exported(run, tmp_path / "model", name)
    _, surrogate, _ = judged["greedy", name][0]
    ids, forms = local_ids(run, "greedy"), model.escape_law.forms
    terms = surrogate.chain_terms(len(ids))
    other = next(token for token in range(model.config.vocab_size) if token not in set(ids.tolist()))
    expected = np.einsum("hd,hud->hu", terms.queries[:, : len(ids)].mean(axis=1), terms.keys[:, : len(ids)])
    assert not terms.softcap.any()
    np.testing.assert_allclose(forms.logits(other, ids), expected, rtol=1e-10, atol=1e-12)
    assert torch.isfinite(model(torch.tensor([[other, int(ids[0]), other]])).logits).all()
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "count as the mean of the others" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--surrogate", "ccmc-fitt"], "did you mean 'ccmc-fit'"),
        (
            ["--surrogate", "no-such"],
            "of generation ccmc-fit, counts, bigram, bigram-restricted, in-context-bigram, n-",
        ),
        (["--surrogate", "ccmc-opne"], "did you mean 'ccmc-open'"),
        (["--surrogate", "counts", "--strategy", "gredy"], "did you mean 'greedy'"),
        (["--surrogate", "counts", "--law", "raw"], "--law goes with runs of repetition"),
        (["--surrogate", "counts", "--fold", "0"], "--fold goes with runs of repetition"),
        (["--surrogate", "bigram", "--closed"], "bigram-restricted"),
        (["--surrogate", "counts", "--experiment", "repetition"], "the run has generation"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    run: Any, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["export", str(run.path), str(tmp_path / "m"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("kinds", "name", "given", "found"),
    [
        (["generation"], "bigram", None, "generation"),
        (["heads"], "bigram", None, "repetition"),
        (["repetition", "generation"], "suffix", None, "repetition"),
        (["repetition", "generation"], "ccmc-fit", None, "generation"),
        (["repetition", "generation"], "bigram", "generation", "generation"),
        (["repetition", "generation"], "bigram", None, "add --experiment repetition or generation"),
        (["repetition", "generation"], "ccmc-fitt", None, "did you mean 'ccmc-fit'"),
        (["repetition"], "bigram", "generation", "the run has repetition"),
    ],
)
def test_the_experiment_that_has_the_surrogate(kinds: list[str], name: str, given: str | None, found: str) -> None:
    made: Any = SimpleNamespace(manifest={"config": {"experiments": [{"kind": kind} for kind in kinds]}})
    if found in ("repetition", "generation"):
        assert chosen_kind(made, name, given) == found
        return
    with pytest.raises(UsageError, match=found):
        chosen_kind(made, name, given)


def test_a_run_without_escape_is_exported_open_all_the_same(small_model: Path, tmp_path: Path) -> None:
    changes = {"surrogates": ["ccmc-fit", "bigram-restricted"], "escape": False}
    other = harness.run(write_config(tmp_path, small_model, **changes), out=tmp_path / "run", executor="serial")
    for name in changes["surrogates"]:
        model = exported(other, tmp_path / name, name)
        assert torch.isfinite(model(torch.tensor([[3, 4, 3, 5]])).logits).all()
    assert invoke(["export", str(other.path), str(tmp_path / "m"), "--surrogate", "counts"]) == 2
