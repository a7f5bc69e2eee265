"""A run that takes the decoding fields of its model's folder: in texts, names, units, the manifest and its hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_models

import harness
from harness.cli.app import invoke
from harness.config.load import Config
from harness.core.errors import UsageError
from harness.data.prompts import Prompt
from harness.experiments._shared.continuations import Model, continuation_unit
from harness.runs.verify import verify


def test_fields_of_a_folder_are_part_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_models.save(small_models.llama(2, scale=0.4), tmp_path / "model")
    said = folder / "generation_config.json"
    prompts = [{"id": str(i), "kind": "a", "text": t} for i, t in enumerate(small_models.random_texts(4, 8))]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))

    def run(out: str, fields: dict[str, Any], taken: bool = True) -> Any:
        said.write_text(json.dumps({"eos_token_id": 1, **fields}))
        generation = {"max_new_tokens": 6, "strategies": ["greedy", {"temperature": 1.0}]}
        config = {
            "name": "defaults",
            "models": [str(folder)],
            "prompts": str(tmp_path / "prompts.json"),
            "generation": {**generation, **({"use_model_defaults": True} if taken else {})},
            "experiments": [{"kind": "generation", "rollout_seeds": 2, "surrogates": ["counts"], "mean_field": False}],
        }
        return harness.run(config, out=tmp_path / out)

    def texts(out: str) -> pd.DataFrame:
        files = sorted((tmp_path / out).glob("units/*/trajectories.parquet"))
        frame = pd.concat([pd.read_parquet(file) for file in files])
        return frame[frame["source"] == "model"]

    taken = {"top_k": 3, "top_h": 0.9, "repetition_penalty": 1.5, "suppress_tokens": list(range(2, 20))}
    fields = {**taken, "do_sample": True}
    plain = run("plain", fields, taken=False)
    assert set(texts("plain")["strategy"]) == {"greedy", "temperature=1"}
    assert "generation_config" not in plain.manifest["models"][0]
    capsys.readouterr()
    assert invoke(["show", str(tmp_path / "plain")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "generation_config.json sets top_k=3, top_h=0.9, repetition_penalty=1.5, suppress_tokens=[2, 3" in shown
    assert "do_sample=true; set aside, decoding is what `generation` of the config says" in shown
    done = run("taken", fields)
    names = sorted(set(texts("taken")["strategy"]))
    assert names[0].startswith("greedy,repetition_penalty=1.5,model-defaults(suppress_tokens=")
    assert names[1].startswith("temperature=1,top_k=3,repetition_penalty=1.5,model-defaults(suppress_tokens=")
    assert "top_h" not in names[0] and names[1].endswith(",top_h=0.9)")
    settings = [json.loads(file.read_text())["settings"] for file in (tmp_path / "taken").glob("units/*/unit.json")]
    assert {each["model_defaults"].get("top_h") for each in settings if "model_defaults" in each} == {None, 0.9}
    assert not {token for text in texts("taken")["continuation"] for token in text} & set(range(2, 20))
    assert {token for text in texts("plain")["continuation"] for token in text} & set(range(2, 20))
    assert done.manifest["models"][0]["generation_config"] == taken
    assert any("do_sample=true; set aside" in note for note in done.manifest["notes"])
    with pytest.raises(UsageError, match="the decoding fields of its models' generation_config"):
        run("taken", {**fields, "suppress_tokens": [5]})
    assert verify(tmp_path / "taken").problems == ()
    other = run("other", {**fields, "suppress_tokens": [5]})
    keys = [{unit["key"] for unit in each.manifest["units"]} for each in (plain, done, other)]
    assert not keys[0] & keys[1] and not keys[1] & keys[2]
    assert done.manifest["config_hash"] != other.manifest["config_hash"]
    with pytest.raises(UsageError, match=r"generation_config\.json sets stop_strings="):
        run("refused", {"stop_strings": ["a"]})
    assert not (tmp_path / "refused").exists()


def test_every_field_gives_a_continuation_another_key(tmp_path: Path) -> None:
    prompt = Prompt("a", "kind", "w1 w2", "held_out")
    config = Config.model_validate(
        {"name": "keys", "models": ["m"], "prompts": "p.yaml", "experiments": [{"kind": "generation"}]}
    )

    def key(**defaults: Any) -> str:
        model = Model("m", tmp_path, None, "0" * 64, 2, {"a": [3, 4]}, defaults=defaults)
        sampled = config.generation.strategies[1]
        return continuation_unit(config, model, [prompt], sampled, 0, "cpu").key

    fields: list[dict[str, Any]] = [
        {}, {"top_k": 3}, {"top_k": 4}, {"top_h": 0.5}, {"top_h": 0.4}, {"suppress_tokens": [3]},
        {"suppress_tokens": [4]}, {"min_length": 3}, {"bad_words_ids": [[3]]}, {"repetition_penalty": 1.2},
    ]  # fmt: skip
    assert len({key(**each) for each in fields}) == len(fields)
    assert key(length_penalty=2.0) == key()  # of beams only


@pytest.mark.parametrize(
    ("field", "value"),
    [("stop_strings", ["w1"]), ("penalty_alpha", 0.6), ("num_return_sequences", 2), ("max_time", 1.0), ("top_h", 7)],
)
def test_a_refused_field_is_one_line_of_the_command_line(
    tmp_path: Path, small_config: Path, small_model: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in small_model.iterdir():
        if file.name != "generation_config.json":
            (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, field: value}))
    settings = ["--set", f"models={json.dumps([str(folder)])}", "--set", "generation.use_model_defaults=true"]
    assert invoke(["run", str(small_config), *settings, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert f"generation_config.json sets {field}={json.dumps(value)}, which " in line and "set use_model_def" in line
    assert not (tmp_path / "run").exists()
