"""The paper's experiments: parts against closed forms, and small whole runs, the same with more workers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import harness
from ccmc import CCMC, Contexts, Observations, fit_mle, identifiability, simulate
from harness.config.load import load_config, shipped_configs
from harness.core import registry
from harness.experiments._shared.sampling import count_tokens
from harness.experiments._shared.settings import PaperExperiment
from harness.experiments._shared.teachers import dirichlet_chain, hessians
from harness.experiments._shared.two_tokens import two_token_fit
from harness.experiments.coverage import units as coverage
from harness.experiments.positions import units as positions
from harness.experiments.theory_gap.settings import GAP_SURROGATES
from harness.experiments.trajectory import units as trajectory
from harness.experiments.winners import units as winners
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.report.render.layout import layout, plain
from harness.runs.reading import write_figures

SMALL: dict[str, dict[str, Any]] = {
    "equivalence": {"vocab_size": 5, "dimensions": [3, 5, 8], "repetitions": 2, "prompts": 50, "observations": 400},
    "coverage": {"vocab_size": 4, "observations": [200, 2000], "repetitions": 2, "trained_repetitions": 1, "rare": 0.2},
    "sample-complexity": {
        "vocab_sizes": [3, 4],
        "per_square": [10, 500],
        "prompts": 300,
        "repetitions": 2,
        "trained_repetitions": 1,
    },
    "trajectory": {"grid": 3, "phase_paths": 8, "phase_steps": 1000, "paths": 8, "steps": 10_000},
    "winners": {
        "vocab_sizes": [2, 5],
        "families": ["gaussian", "cyclic"],
        "starts": [10, 100],
        "horizon": 2000,
        "paths": 6,
        "repetitions": 2,
    },
    "positions": {
        "vocab_size": 4,
        "prompt_length": 6,
        "prompts": 100,
        "observations": 600,
        "steps_of_training": 20,
        "paths": 8,
        "steps": 300,
        "repetitions": 1,
    },
}


KINDS = sorted(path.stem for path in (shipped_configs() / "paper").glob("*.yaml") if path.stem != "all")


def part(kind: str, name: str) -> Any:
    """`tables`, `answers` or another part of an experiment."""
    return importlib.import_module(f"harness.experiments.{kind.replace('-', '_')}.{name}")


def config(*kinds: str) -> dict[str, Any]:
    return {"name": "paper", "experiments": [{"kind": kind, **SMALL[kind]} for kind in kinds]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return harness.run(config(*SMALL), out=tmp_path_factory.mktemp("paper") / "run")


def pooled(run: Any, metric: str, experiment: str) -> pd.DataFrame:
    rows = run.rows
    found = rows[(rows["split"] == "pooled") & (rows["metric"] == metric) & (rows["experiment"] == experiment)]
    assert len(found)
    return found


@pytest.mark.parametrize("kind", SMALL)
def test_every_experiment_has_tables_answers_and_a_figure(run: Any, kind: str) -> None:
    rows = run.rows[run.rows["experiment"] == kind]
    headline, *others = part(kind, "tables").tables(rows)
    assert headline.headline
    assert not any(table.headline for table in others)
    assert len({table.name for table in (headline, *others)}) == 1 + len(others)
    assert len(headline.rows) <= 12
    assert len(headline.columns) <= 7
    assert max(len(plain(line)) for line in layout(headline, 100)) <= 100
    assert len(others[0].rows) == (rows["split"] == "pooled").sum()
    answers = part(kind, "answers").answers(rows)
    assert len(answers) >= 2
    unjudged = rows["verdict"].isin(["no interval", "no value"]).any()
    assert ("be judged" in answers[-1].text) == unjudged  # two repetitions carry no interval
    (figure,) = part(kind, "figures").figures(rows, pd.DataFrame())
    assert figure.name == kind
    for axis in figure.draw().axes:
        assert axis.get_xlabel() or axis.get_label() == "<colorbar>"
        assert axis.get_ylabel()


@pytest.mark.parametrize("kind", SMALL)
def test_before_the_pooling_there_is_nothing_to_show(run: Any, kind: str) -> None:
    rows = run.rows[(run.rows["experiment"] == kind) & (run.rows["split"] != "pooled")]
    assert part(kind, "tables").tables(rows) == []
    assert part(kind, "figures").figures(rows, pd.DataFrame()) == []
    (answer,) = part(kind, "answers").answers(rows)
    assert not answer.answered
    assert "has not pooled" in answer.text


def settings_of(kind: str, **changed: Any) -> Any:
    """The settings of a shipped config of the paper, as the experiment reads them."""
    (made,) = (
        value
        for value in vars(part(kind, "settings")).values()
        if isinstance(value, type) and issubclass(value, PaperExperiment) and value is not PaperExperiment
    )
    (given,) = load_config(f"paper/{kind}").given["experiments"]
    return made.model_validate({**given, **changed})


@pytest.mark.parametrize("kind", KINDS)
def test_a_smoke_run_takes_less_and_a_full_run_everything(kind: str) -> None:
    settings = settings_of(kind)
    assert settings.model_dump() == load_config(f"paper/{kind}").config.experiments[0].model_dump()
    assert settings.limited(None) is settings
    smoke = settings.limited(1)
    assert smoke != settings
    assert type(settings).model_validate(smoke.model_dump()) == smoke  # still settings that a config may have
    assert settings.limited(10**9) == settings


def test_theory_gap_takes_every_declared_surrogate_that_needs_a_seed_alone() -> None:
    alone = [name for name, one in registry.surrogates("next-token").items() if not one.needs]
    assert set(GAP_SURROGATES) <= set(alone)
    assert settings_of("theory-gap", surrogates=alone).surrogates == tuple(alone)
    with pytest.raises(ValueError, match="unknown surrogate 'ccmc-head'"):
        settings_of("theory-gap", surrogates=["counts", "ccmc-fit", "ccmc-head"])
    with pytest.raises(ValueError, match="did you mean 'ccmc-fit'"):
        settings_of("theory-gap", surrogates=["counts", "ccmc-fti"])
    with pytest.raises(ValueError, match="listed twice"):
        settings_of("theory-gap", surrogates=["counts", "ccmc-fit", "counts"])


def test_more_workers_give_the_same_rows(run: Any, tmp_path: Path) -> None:
    again = harness.run(config("coverage", "sample-complexity"), out=tmp_path / "run", workers=2)
    kept = run.rows[run.rows["experiment"].isin(["coverage", "sample-complexity"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.rows.reset_index(drop=True), kept)


def test_the_same_rows_draw_the_same_figure(run: Any, tmp_path: Path) -> None:
    for kind in SMALL:
        figures = part(kind, "figures").figures(run.rows[run.rows["experiment"] == kind], pd.DataFrame())
        (path,) = write_figures(tmp_path, figures)
        assert path.read_bytes() == (run.path / "plots" / f"{kind}.svg").read_bytes()


def test_what_must_hold_holds_on_small_runs(run: Any) -> None:
    for metric, kind in (
        ("equivalence_error_eps", "equivalence"),
        ("round_trip_error", "equivalence"),
        ("nullity_gap", "coverage"),
        ("free_moved", "coverage"),
        ("trained_gap", "coverage"),
        ("training_gap", "sample-complexity"),
        ("equivalence_error", "positions"),
    ):
        assert set(pooled(run, metric, kind)["verdict"]) == {"holds"}, metric
    lost = pooled(run, "lost_mass", "equivalence")["value"]
    assert (lost > 0.05).all()


def test_trained_models_and_their_loss_curves_are_kept(run: Any) -> None:
    folders = [path.parent for path in run.path.glob("units/*/loss.csv")]
    labels = {unit["key"]: unit["label"] for unit in run.manifest["units"]}
    found = [folder for folder in folders if labels[folder.name].startswith("equivalence")]
    assert len(found) == 6  # three dimensions, two repetitions
    for folder in found:
        losses = pd.read_csv(folder / "loss.csv")["train_loss"]
        assert losses.iloc[-1] < losses.iloc[0]
        assert OneLayerForCausalLM.from_pretrained(folder / "checkpoint").config.vocab_size == 5


def test_samples_without_an_mle_are_counted_and_have_a_reason(run: Any) -> None:
    rows = run.rows[run.rows["experiment"] == "sample-complexity"]
    single = rows[rows["split"] != "pooled"]
    none = single[(single["metric"] == "no_mle") & (single["value"] == 1)]
    assert len(none) > 0
    missing = single[(single["metric"] == "excess_risk") & single["value"].isna()]
    assert sorted(missing["condition"] + missing["seed"].astype(str)) == sorted(
        none["condition"] + none["seed"].astype(str)
    )
    assert missing["missing"].str.contains("no maximum likelihood estimate").all()


def test_two_tokens_are_fitted_as_by_the_general_fit() -> None:
    for seed, P in enumerate(([[0.4, 0.6], [0.7, 0.3]], [[0.3, 0.7], [0.8, 0.2]])):
        path = np.concatenate([[0, 1], simulate(CCMC.from_transition(P), [[0, 1]], 3000, seed=seed)[0]])
        expected = fit_mle(Observations.from_sequences([path], 2, start=2)).chain.logits
        np.testing.assert_allclose(two_token_fit(path, start=2), expected[:, 1] - expected[:, 0], atol=1e-6)


def test_two_tokens_without_an_estimate_are_refused() -> None:
    with pytest.raises(ValueError, match="after token 1 only one token came"):
        two_token_fit(np.array([0, 1, 0, 0, 1, 0, 1, 0]), start=2)
    with pytest.raises(ValueError, match="both must be in every context"):
        two_token_fit(np.array([0, 0, 1, 0]), start=2)


@pytest.mark.parametrize("design", coverage.DESIGNS)
def test_designs_leave_free_what_they_say(design: str) -> None:
    K, rng = 6, np.random.default_rng(0)
    prompts = coverage.draw_prompts(design, 20_000, K, 5, 0.1, rng)
    counts, query = count_tokens(prompts, K), prompts[:, -1]
    chain = CCMC(rng.normal(size=(K, K)))
    p = chain.next_token(counts, query)
    found = identifiability(Observations(Contexts(counts, query), p))
    assert found.free_directions == coverage.free_by_design(design, K)
    assert coverage.nullity(hessians(p, query, np.ones(len(p)))) == found.free_directions


def test_the_two_parts_of_logits_are_orthogonal_and_whole() -> None:
    theta = np.random.default_rng(0).normal(size=(4, 4))
    components = [[[0, 1], [2, 3]], [[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 3], [1], [2]]]
    identified, free = coverage.split(theta, components)
    np.testing.assert_allclose(identified + free, theta - theta.mean(axis=1, keepdims=True))
    np.testing.assert_allclose((identified * free).sum(axis=1), 0, atol=1e-12)
    assert np.allclose(free[1], 0)
    assert np.allclose(identified[2], 0)


def test_hessians_are_derivatives_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 3, (40, 5))
    contexts, weight = Contexts(count_tokens(prompts, 3), prompts[:, -1]), rng.random(40)
    theta, step = rng.normal(size=(3, 3)), 1e-5

    def gradient(logits: Any) -> Any:
        p = CCMC(logits).next_token(contexts.counts, contexts.query)
        return np.stack([(weight[:, None] * p)[contexts.query == i].sum(axis=0) for i in range(3)])

    blocks = hessians(CCMC(theta).next_token(contexts.counts, contexts.query), contexts.query, weight)
    for i in range(3):
        for j in range(3):
            moved = np.zeros((3, 3))
            moved[i, j] = step
            slopes = (gradient(theta + moved) - gradient(theta - moved)) / (2 * step)
            np.testing.assert_allclose(slopes[i], blocks[i, j], atol=1e-7)


def test_phases_of_two_tokens() -> None:
    assert trajectory.phase_of(0.7, 0.3) == "winner 0"
    assert trajectory.phase_of(0.3, 0.7) == "winner 1"
    assert trajectory.phase_of(0.7, 0.8) == "bistable"
    assert trajectory.phase_of(0.2, 0.4) == "coexistence"
    assert trajectory.phase_of(0.5, 0.5) == "urn"
    assert trajectory.phase_of(0.5, 0.3) == "boundary"


def test_coexistence_is_where_both_tokens_grow_alike() -> None:
    a, b = 0.2, 0.4
    m = trajectory.coexisting_share(a, b)
    P, frequency = np.array([[a, 1 - a], [1 - b, b]]), np.array([m, 1 - m])
    rho = (frequency / (P @ frequency)) @ P
    np.testing.assert_allclose(rho, 1.0)


def test_counts_and_pairs_along_a_path() -> None:
    prompt, path = np.array([0, 1]), np.array([1, 0, 0, 1])
    times = np.array([2, 4])
    np.testing.assert_array_equal(trajectory.counts_at(path, prompt, times, 2), [[2, 2], [3, 3]])
    pairs = trajectory.pairs_at(path, 1, times, 2)
    np.testing.assert_array_equal(pairs[0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(pairs[1], [[1, 1], [1, 1]])
    assert trajectory.growth(np.array([[1.0, 10.0], [3.0, 30.0]])) == pytest.approx(1.0)


def test_absorption_is_the_first_run_that_fills_the_window() -> None:
    assert winners.absorbed_at(np.array([0, 1, 1, 0, 0, 0, 1]), 3) == 6
    assert winners.absorbed_at(np.array([0, 0, 1]), 2) == 2
    assert winners.absorbed_at(np.array([0, 1, 0, 1]), 2) is None


def test_families_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    P = winners.cyclic_chain(3).transition
    np.testing.assert_allclose(P[0] / P[0, 0], [1.0, 1.3, 0.1])
    np.testing.assert_allclose(P[2] / P[2, 2], [1.3, 0.1, 1.0])
    dominant = np.mean([np.diag(winners.draw_chain("dominant", 20, rng).transition).mean() for _ in range(20)])
    gaussian = np.mean([np.diag(winners.draw_chain("gaussian", 20, rng).transition).mean() for _ in range(20)])
    assert dominant > 3 * gaussian
    np.testing.assert_allclose(dirichlet_chain(6, rng).transition.sum(axis=1), 1.0)


def test_chains_of_heads_have_low_rank(small_model: Path) -> None:
    chain = winners.draw_chain("heads", 24, np.random.default_rng(0), str(small_model))
    centred = chain.logits - chain.logits.mean(axis=1, keepdims=True)
    values = np.linalg.svd(centred, compute_uv=False)
    width = int(json.loads((small_model / "config.json").read_text())["head_dim"])
    assert width < 23
    assert values[width] < 1e-6 * values[0]
    assert values[0] > 1e-2


def test_winner_sets_and_frequencies() -> None:
    assert winners.winner_set(np.array([0.05, 0.5, 0.45])) == {1, 2}
    found = winners.frequencies([np.array([0, 1])], np.array([[1, 1]]), 3)
    np.testing.assert_allclose(found, [[0.25, 0.75, 0]])


@pytest.mark.parametrize("kind", positions.KINDS)
def test_positions_are_learned_and_read_off(kind: str) -> None:
    rng = np.random.default_rng(0)
    teacher = positions.teacher_model(kind, 4, 8, rng)
    prompts = rng.integers(0, 4, (60, 8))
    found = positions.model_rows(teacher, prompts)
    np.testing.assert_allclose(positions.chain_off(teacher).next_token(prompts), found, atol=1e-12)
    turned = np.concatenate([prompts[:, -2::-1], prompts[:, -1:]], axis=1)
    assert np.abs(positions.model_rows(teacher, turned) - found).max() > 0.01


def test_a_walk_that_does_not_fade_is_the_walk_of_the_chain() -> None:
    chain, prompt = CCMC.from_transition([[0.2, 0.8], [0.5, 0.5]]), np.array([0, 1, 1])
    drawn = positions.fading_walk(chain, prompt, 0.0, 1, 20_000, seed=0)[:, 0]
    expected = float(chain.next_token(np.array([1.0, 2.0]), 1)[1])
    assert abs(drawn.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)
    far = positions.fading_walk(chain, prompt, 60.0, 50, 10, seed=0)
    assert (far == 1).all()  # nothing but the last token is remembered
