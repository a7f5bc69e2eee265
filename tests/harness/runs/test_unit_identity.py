"""Stored units are never taken for others: another model, prompt, seed, setting, source or package is another unit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.config.load import load_config
from harness.core.declarations import SurrogateDeclaration
from harness.data.prompts import Prompt, load_prompts
from harness.experiments._shared.continuations import Model
from harness.experiments.run import plan_units
from harness.runs import identity
from harness.runs.units import Unit

ROOT = Path(__file__).resolve().parents[3]


def words(prompt: Prompt) -> list[int]:
    """Token ids of a prompt of words w0, w1, ..."""
    return [int(word.removeprefix("w")) for word in prompt.text.split()]


def model_of(prompts: list[Prompt], **changes: Any) -> Model:
    """A made-up model that has read the prompts."""
    model = Model("m", Path("/somewhere"), None, "a" * 64, 3, {prompt.id: words(prompt) for prompt in prompts})
    return replace(model, **changes)


def plan(config_path: Path, prompts: list[Prompt] | None = None, overrides: Any = (), **changes: Any) -> list[Unit]:
    """All units of the small config but those of its one-layer models."""
    loaded = load_config(config_path, overrides)
    texts = load_prompts(loaded) if prompts is None else prompts
    model = model_of(texts, **changes)
    units = plan_units(loaded.config, [model], texts, [[] for _ in loaded.config.experiments], "cpu")
    return [unit for unit in units if "one-layer" not in unit.label]


def keys(config_path: Path, prompts: list[Prompt] | None = None, overrides: Any = (), **changes: Any) -> set[str]:
    return {unit.key for unit in plan(config_path, prompts, overrides, **changes)}


def test_the_place_of_the_weights_and_the_device_do_not_matter(small_config: Path) -> None:
    assert keys(small_config) == keys(small_config, path=Path("/elsewhere"))


@pytest.mark.parametrize(
    "other", [{"weights_hash": "b" * 64}, {"name": "other"}, {"revision": "main"}], ids=["weights", "name", "revision"]
)
def test_two_models_never_share_a_unit(small_config: Path, other: dict[str, str]) -> None:
    mine = keys(small_config)
    assert len(mine) >= 7
    assert not mine & keys(small_config, **other)


@pytest.mark.parametrize("change", [{"text": "w1 w2 w3"}, {"id": "other"}, {"split": "moved"}])
def test_a_changed_prompt_never_reuses_a_unit(small_config: Path, change: dict[str, str]) -> None:
    prompts = load_prompts(load_config(small_config))
    for index, prompt in enumerate(prompts):
        values: dict[str, Any] = dict(change)
        if "split" in values:
            values["split"] = "train" if prompt.split == "held_out" else "held_out"
        changed = [*prompts[:index], replace(prompt, **values), *prompts[index + 1 :]]
        reused = keys(small_config, prompts) & keys(small_config, changed)
        # the second continuation of held-out prompts does not see a training prompt
        assert len(reused) <= (prompt.split == "train" and "split" not in change)


def test_token_ids_count_and_not_the_text(small_config: Path) -> None:
    """A chat template that inserts the date makes other ids of the same text: other units."""
    prompts = load_prompts(load_config(small_config))
    mine = keys(small_config, prompts)
    rewritten = [replace(prompt, text=prompt.text.replace(" ", "  ")) for prompt in prompts]
    assert keys(small_config, rewritten) == mine
    later = {prompt.id: [7, *words(prompt)] for prompt in prompts}
    assert not mine & keys(small_config, prompts, tokens=later)


def test_another_seed_or_length_never_reuses_a_unit(small_config: Path) -> None:
    mine = keys(small_config)
    assert not mine & keys(small_config, None, ["seed=1"])
    assert not mine & keys(small_config, None, ["generation.max_new_tokens=25"])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that identities are read from."""
    for package in ("harness", "ccmc"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_ROOT", tmp_path)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget() -> None:
    identity._file.cache_clear()
    identity._read.cache_clear()


def edit(file: Path, change: Callable[[str], str]) -> None:
    """Change a source file, and have it read again."""
    before = file.read_text(encoding="utf-8")
    after = change(before)
    assert after != before, f"{file}: nothing was changed"
    file.write_text(after, encoding="utf-8")
    forget()


def with_surrogates(small_config: Path, names: str) -> set[str]:
    return {u.key for u in plan(small_config, None, [f"experiments.heads.surrogates={names}"]) if "heads" in u.label}


def constant(text: str) -> str:
    """A change of what a module computes, wherever it is."""
    return text + "\n\nCHANGED = 1\n"


def test_editing_the_kernel_of_a_surrogate_computes_its_units_again_and_no_others(
    small_config: Path, source: Path
) -> None:
    own, other = with_surrogates(small_config, "[counts, distance]"), with_surrogates(small_config, "[counts]")
    edit(source / "harness/surrogates/heads/distance.py", constant)
    assert not own & with_surrogates(small_config, "[counts, distance]")
    assert other == with_surrogates(small_config, "[counts]")


def test_editing_what_a_fit_is_shrunk_to_computes_the_fit_again_and_counts_not(
    small_config: Path, source: Path
) -> None:
    fit, other = with_surrogates(small_config, "[ccmc-fit]"), with_surrogates(small_config, "[counts]")
    edit(source / "harness/surrogates/heads/ccmc_weights.py", constant)
    assert not fit & with_surrogates(small_config, "[ccmc-fit]")
    assert other == with_surrogates(small_config, "[counts]")


def test_editing_what_a_surrogate_imports_computes_its_units_again(small_config: Path, source: Path) -> None:
    own = with_surrogates(small_config, "[counts, ccmc-fit]")
    edit(source / "ccmc/fit.py", constant)
    assert not own & with_surrogates(small_config, "[counts, ccmc-fit]")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("harness/surrogates/heads/distance.py", lambda text: text.replace('"""', '"""Reworded. ', 1)),
        ("harness/surrogates/heads/distance.py", lambda text: text.replace("about=", "label='Distances', about=", 1)),
        ("harness/experiments/heads/answers.py", constant),
        ("harness/experiments/heads/tables.py", constant),
        ("harness/experiments/heads/figures.py", constant),
        ("harness/experiments/heads/plan.py", constant),
        (
            "harness/experiments/heads/units.py",
            lambda text: text + "\n\ndef answers(rows):\n    return []\n\n\ndef tables(rows):\n    return rows\n",
        ),
        ("harness/stats/pooling.py", constant),
        ("harness/report/page.py", constant),
    ],
    ids=["docstring", "label", "answers", "tables", "figures", "plan", "answers beside units", "pooling", "page"],
)
def test_editing_words_tables_and_figures_computes_nothing_again(
    file: str, change: Callable[[str], str], small_config: Path, source: Path
) -> None:
    mine = keys(small_config)
    edit(source / file, change)
    assert keys(small_config) == mine


def test_another_version_of_torch_computes_everything_again(
    small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = keys(small_config)
    monkeypatch.setattr(identity, "_versions", lambda: {"torch": "99.0"})
    assert not mine & keys(small_config)


def of(task: str, uses: Any = ()) -> list[Any]:
    """What of a unit's identity is neither settings nor inputs."""
    return [identity.source_hash(task, uses), identity.versions(task, uses)]


def test_a_plugin_counts_with_its_source_and_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_plugin.py").write_text("import a_plugin_part\nX = 1\n")
    (tmp_path / "a_plugin_part.py").write_text("Y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    one = SurrogateDeclaration("x", module="a_plugin", package="a-plugin", version="1.0")
    task = "harness.experiments.heads.units:layers"
    plain, first = of(task), of(task, [one])
    assert plain != first
    assert first != of(task, [replace(one, version="1.1")])
    assert first == of(task, [replace(one, label="X")])
    (tmp_path / "a_plugin.py").write_text("X = 2\n")
    forget()
    assert first != of(task, [one])


def test_two_models_in_one_run_keep_apart_what_they_made(small_model: Path, finished: Any, tmp_path: Path) -> None:
    import small_models

    other = small_models.save(small_models.llama(3, seed=1), tmp_path / "other")
    changes = [f"models=['{small_model}', '{other}']", "experiments=[{kind: heads, layers: [0]}]"]
    run = harness.run(finished[1] / "small.yaml", overrides=changes, limit=2, out=tmp_path / "run")
    rows = run.rows[run.rows["metric"] == "sink_share"]
    one, two = (rows[rows["model"] == name]["value"].tolist() for name in (str(small_model), str(other)))
    assert len(one) == len(two) > 0
    assert one != two
    assert len({unit["key"] for unit in run.manifest["units"]}) == len(run.manifest["units"])
