"""A plugin of under 40 lines is in lists, runs, tables, comparisons, gates and reports, with no other change."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plugins
import pytest
import yaml
from plugins import EXAMPLE
from small_models import write_config as write_small_config

from harness.cli import app
from harness.core import registry

HEADS = {"kind": "heads", "layers": [0], "surrogates": ["counts", "recency"], "max_length": 64}
GENERATION = {
    "kind": "generation",
    "surrogates": ["counts", "recent-token"],
    "measures": ["distinct_32"],
    "rollout_seeds": 2,
}


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "ccmc_example.py").read_text().splitlines()) < 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, installed by pip."""
    return plugins.install(EXAMPLE, tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source"))


def write_config(folder: Path, model: Path, *experiments: dict[str, Any]) -> Path:
    """The small config with other experiments."""
    folder.mkdir(exist_ok=True)
    path = write_small_config(folder, model)
    config = yaml.safe_load(path.read_text())
    config["experiments"] = list(experiments)
    config["generation"]["strategies"] = [{"temperature": 1.0}]
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, site: Path, small_model: Path) -> Path:
    """Two runs of one config with the plugin, `one` and, with another seed, `two`; both by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder, small_model, HEADS, GENERATION)
    for seed, name in enumerate(["one", "two"]):
        done = plugins.ccmc(["run", config.name, "--set", f"seed={seed}", "--out", name], site, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def listed(kind: str, site: Path, cwd: Path) -> dict[str, dict[str, Any]]:
    done = plugins.ccmc(["list", kind, "--format", "json"], site, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    (table,) = json.loads(done.stdout)
    columns = [column["name"] for column in table["columns"]]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in table["rows"]}


def test_lists_name_what_it_adds_and_its_package(site: Path, tmp_path: Path) -> None:
    surrogates = listed("surrogates", site, tmp_path)
    assert {
        name: (row["of"], row["package"]) for name, row in surrogates.items() if name in ("recency", "recent-token")
    } == {
        "recency": ("heads", "ccmc-example"),
        "recent-token": ("next-token", "ccmc-example"),
    }
    assert surrogates["counts"]["package"] is None
    distinct = listed("measures", site, tmp_path)["distinct_32"]
    assert (distinct["unit"], distinct["package"]) == ("share", "ccmc-example")


def test_shells_complete_what_it_adds(site: Path, tmp_path: Path) -> None:
    words = "ccmc compare a b --metric distinct_3"
    done = plugins.ccmc(
        [], site, cwd=tmp_path, _CCMC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    assert done.stdout.split() == ["distinct_32"]


def test_rows_are_what_the_plugin_computes(folder: Path) -> None:
    rows = pd.read_parquet(folder / "one" / "rows.parquet")
    heads = rows[(rows["experiment"] == "heads") & (rows["surrogate"] == "recency")]
    assert {"kl", "explained", "top_token"} <= set(heads["metric"])
    assert heads[heads["metric"] == "kl"]["value"].notna().all()
    one_step = rows[(rows["experiment"] == "generation") & (rows["surrogate"] == "recent-token")]
    assert {"kl", "winner_jaccard", "seq_rep_1", "distinct_32"} <= set(one_step["metric"])

    trajectories = pd.read_parquet(folder / "one" / "trajectories.parquet")
    made = trajectories[(trajectories["experiment"] == "generation") & (trajectories["source"] == "recent-token")]
    measured = rows[(rows["metric"] == "distinct_32") & (rows["surrogate"] == "recent-token")]
    real = trajectories[(trajectories["experiment"] == "continuations") & (trajectories["seed"] == 0)]
    lengths = real.set_index("prompt")["continuation"].map(len)
    found = measured.set_index(["prompt", "seed"])["value"]
    assert len(found) == len(made) > 0
    for row in made.to_dict("records"):
        tokens = row["continuation"][: lengths[row["prompt"]]]
        assert set(tokens) <= set(row["prompt_tokens"])  # it stays inside its context
        assert found[row["prompt"], row["seed"]] == len(set(tokens[-32:])) / min(32, len(tokens))
    assert set(rows[rows["metric"] == "distinct_32"]["surrogate"]) >= {"model", "model-reseeded", "counts"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["show", "one", "--all"], ["recency", "recent-token"]),
        (["show", "one", "--format", "csv"], ["recency", "recent-token", "distinct_32"]),
        (["table", "one", "--metric", "distinct_32,kl", "--format", "csv"], ["recency", "recent-token", "distinct_32"]),
        (["compare", "one", "two", "--format", "csv"], ["recency", "recent-token"]),
        (["compare", "one", "two", "--metric", "distinct_32", "--format", "csv"], ["recent-token", "distinct_32"]),
        (["leaderboard", ".", "--surrogate", "recency"], ["recency"]),
        (["gate", "one", "--baseline", "one"], ["passed"]),
    ],
    ids=lambda value: "-".join(value) if "one" in value else None,
)
def test_verbs_on_runs_know_it(arguments: list[str], names: list[str], folder: Path, site: Path) -> None:
    done = plugins.ccmc(arguments, site, cwd=folder, COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    for name in names:
        assert name in done.stdout


def test_reports_contain_it(folder: Path, site: Path) -> None:
    done = plugins.ccmc(["report", "one", "two"], site, cwd=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "report.html").read_text()
    for name in ("recency", "recent-token", "distinct_32"):
        assert name in page


def edited(site: Path, target: Path, change: Callable[[str], str]) -> Path:
    """A copy of an installed plugin with another module."""
    shutil.copytree(site, target, ignore=shutil.ignore_patterns("__pycache__"))
    module = target / "ccmc_example.py"
    after = change(module.read_text())
    assert after != module.read_text()
    module.write_text(after)
    return target


def test_a_gate_fails_where_its_figure_got_worse(folder: Path, site: Path, tmp_path: Path) -> None:
    """Attention to the farthest keys, by the same name: other rows, and a gate that says which."""
    worse = edited(site, tmp_path / "worse", lambda text: text.replace("-np.log1p(", "9 * np.log1p("))
    done = plugins.ccmc(["run", "small.yaml", "--out", str(tmp_path / "worse_run")], worse, cwd=folder)
    assert done.returncode == 0, done.stderr
    gate = plugins.ccmc(["gate", str(tmp_path / "worse_run"), "--baseline", "one"], worse, cwd=folder, COLUMNS="160")
    assert gate.returncode == 1
    assert re.search(r"recency kl\s", gate.stdout)
    assert "recent-token" not in gate.stdout


def resumed(run: Path, target: Path) -> Path:
    """A copy of a run as it was before its end."""
    shutil.copytree(run, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, "state": "partial"}))
    return target


def units(run: Path) -> dict[str, str]:
    """Label -> key of the units of a run."""
    return {unit["label"]: unit["key"] for unit in json.loads((run / "manifest.json").read_text())["units"]}


def test_another_source_or_version_computes_its_units_again_and_no_others(
    folder: Path, site: Path, tmp_path: Path
) -> None:
    first, before = folder / "one", units(folder / "one")
    own = {label for label in before if ": heads of" in label or ": surrogates of generation" in label}
    assert 2 == len(own) < len(before)

    other = edited(site, tmp_path / "other", lambda text: text.replace("-np.log1p(", "-2 * np.log1p("))
    newer = shutil.copytree(site, tmp_path / "newer", ignore=shutil.ignore_patterns("__pycache__"))
    (about,) = newer.glob("ccmc_example-*.dist-info")
    metadata = about / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    words = edited(site, tmp_path / "words", lambda text: text.replace("attends with", "looks back with"))
    for name, plugin, again in (("other", other, own), ("newer", newer, own), ("words", words, set())):
        run = resumed(first, tmp_path / "runs" / name)
        stored = {folder.name for folder in (run / "units").iterdir() if folder.is_dir()}
        done = plugins.ccmc(["run", "small.yaml", "--set", "seed=0", "--out", str(run)], plugin, cwd=folder)
        assert done.returncode == 0, done.stderr
        after = units(run)
        assert {label for label in before if after[label] != before[label]} == again, name
        computed = {folder.name for folder in (run / "units").iterdir() if folder.is_dir()} - stored
        assert computed == {after[label] for label in again}, name
    places = {"first": first, **{name: tmp_path / "runs" / name for name in ("other", "newer")}}
    rows = {name: pd.read_parquet(place / "rows.parquet") for name, place in places.items()}
    pd.testing.assert_frame_equal(rows["first"], rows["newer"])
    differs = ~np.isclose(rows["first"]["value"].astype(float), rows["other"]["value"].astype(float), equal_nan=True)
    assert set(rows["first"][differs]["surrogate"]) == {"recency"}


HEAD = """from harness import register
from harness.surrogates.base import HeadSurrogate

@register.surrogate({declaration})
class Broken(HeadSurrogate):
    {body}
"""
BODY = "def log_weights(self, text):\n        return text.visible"
BROKEN = {
    "syntax error": ("def broken(:", "not valid Python"),
    "missing field": (HEAD.format(declaration='sees=("order",)', body=BODY), "missing 1 required .*'name'"),
    "unknown field": (HEAD.format(declaration='"broken", seas=("order",)', body=BODY), "unknown field 'seas'; did you"),
    "wrong type": (HEAD.format(declaration='"broken", sees="order"', body=BODY), "sees='order' is not a tuple"),
    "no literal": (HEAD.format(declaration="NAME", body=BODY), "every argument must be a literal"),
    "name taken": (HEAD.format(declaration='"counts"', body=BODY), "surrogate 'counts' exists already"),
    "no role": ('@register.surrogate("broken")\nclass Broken: pass', "say of='heads' or of='next-token'"),
    "nothing declared": ("x = 1", "declares no surrogate"),
}
IMPORTED = {
    "import error": (
        "import a_package_that_nobody_has\n" + HEAD.format(declaration='"broken"', body=BODY),
        "ModuleNotFound",
    ),
    "error at import": (HEAD.format(declaration='"broken"', body=BODY) + "1 / 0\n", "ZeroDivisionError"),
    "method missing": (HEAD.format(declaration='"broken"', body="pass"), "defines neither log_weights nor along"),
}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Puts folders of plugins on the path of this process."""

    def put(site: Path) -> None:
        monkeypatch.syspath_prepend(str(site))
        registry.forget()

    yield put
    monkeypatch.undo()
    registry.forget()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_one_line_and_the_rest_works(
    case: str,
    site: Path,
    tmp_path: Path,
    found: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, said = BROKEN[case]
    found(site)
    found(plugins.write(tmp_path / "broken", "broken-plugin", "broken_plugin", text))
    assert app.invoke(["list", "surrogates", "--format", "csv"]) == 0
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert "broken-plugin" in line
    assert re.search(said, line), line
    assert "counts" in shown.out
    assert "recency" in shown.out


def test_a_module_that_is_broken_for_two_kinds_is_one_line(tmp_path: Path, found: Callable[[Path], None]) -> None:
    found(plugins.write(tmp_path / "b", "broken-plugin", "broken_plugin", "(", ("surrogates", "measures", "models")))
    assert len(registry.problems()) == 1


# a name that is taken stands for the project's own surrogate
@pytest.mark.parametrize("case", [case for case in [*BROKEN, *IMPORTED] if case != "name taken"])
def test_a_config_that_names_what_is_broken_is_wrong_use(
    case: str, small_config: Path, tmp_path: Path, found: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = {**BROKEN, **IMPORTED}[case]
    module = f"broken_{[*BROKEN, *IMPORTED].index(case)}"  # what was imported once stays
    found(plugins.write(tmp_path / "broken", "broken-plugin", module, text))
    surrogates = "experiments.heads.surrogates=[counts, broken]"
    assert app.invoke(["run", str(small_config), "--set", surrogates, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "broken-plugin" in line
    assert re.search(said, line), line
    assert not (tmp_path / "run").exists()


def test_a_run_says_in_one_line_what_is_left_out(site: Path, small_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "runs", small_model, HEADS)
    broken = plugins.write(tmp_path / "broken", "broken-plugin", "broken_plugin", "(")
    done: subprocess.CompletedProcess[str] = plugins.ccmc(
        ["run", config.name, "--limit", "1", "--out", "run"], site, broken, cwd=config.parent
    )
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if "broken-plugin" in line]) == 1
