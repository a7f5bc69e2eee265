"""A model's folder decides where texts end, and nothing else about decoding; what it sets beside that is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_models
from transformers import GenerationConfig

from harness.models import loading, tokenizers
from harness.models.folder_decoding import read_decoding
from harness.models.language_model import generate

PROMPTS = [small_models.random_ids(3 + seed, seed).tolist() for seed in range(4)]
SIZE = small_models.VOCAB_SIZE

OTHER: dict[str, Any] = {  # a value of every field that would change something, or break the call
    "max_length": 4, "max_new_tokens": 2, "min_length": 30, "min_new_tokens": 12, "early_stopping": "never",
    "max_time": 1e-9, "stop_strings": ["w1"], "do_sample": True, "num_beams": 4, "use_mtp": True, "use_cache": False,
    "cache_implementation": "static", "cache_config": {"x": 1}, "max_cache_len": 3, "temperature": 0.01, "top_k": 1,
    "top_p": 0.01, "min_p": 0.99, "top_h": 0.01, "typical_p": 0.01, "epsilon_cutoff": 0.9, "eta_cutoff": 0.9,
    "repetition_penalty": 5.0, "encoder_repetition_penalty": 5.0, "length_penalty": -9.0, "no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(3, 20)], "renormalize_logits": True, "forced_bos_token_id": 5,
    "forced_eos_token_id": 1, "remove_invalid_values": True, "exponential_decay_length_penalty": [0, 9.0],
    "suppress_tokens": list(range(3, 20)), "begin_suppress_tokens": list(range(3, 20)),
    "sequence_bias": [[[7], 90.0]], "token_healing": True, "guidance_scale": 3.0,
    "watermarking_config": {"bias": 50.0}, "num_return_sequences": 2, "output_attentions": True,
    "output_hidden_states": True, "output_scores": True, "output_logits": True, "return_dict_in_generate": True,
    "encoder_no_repeat_ngram_size": 1, "decoder_start_token_id": 3, "is_assistant": True, "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic", "assistant_confidence_threshold": 0.9,
    "prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 2, "assistant_early_exit": 1,
    "assistant_lookbehind": 3, "target_lookbehind": 3, "assistant_ensemble_weight": 0.5, "speculation_type": "dflash",
    "compile_config": {"mode": "default"}, "disable_compile": True, "continuous_batching_config": {"x": 1},
    "low_memory": True, "penalty_alpha": 0.6, "dola_layers": "low", "diversity_penalty": 0.5, "num_beam_groups": 2,
    "constraints": ["x"], "force_words_ids": [[5]], "prefill_chunk_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save(small_models.llama(2, scale=0.4), tmp_path_factory.mktemp("model"))


def with_file(saved: Path, folder: Path, text: str, file: str = "generation_config.json") -> Path:
    """The folder with another generation_config.json; weights are links."""
    folder.mkdir()
    for each in saved.iterdir():
        if each.name != file:
            (folder / each.name).symlink_to(each)
    (folder / file).write_text(text)
    return folder


def texts(folder: Path) -> list[Any]:
    """Greedy, sampled and beams."""
    model, tokenizer = loading.load_model(folder, "cpu"), tokenizers.load_tokenizer(folder)
    return [
        [c.tolist() for c in generate(
            model, tokenizer, PROMPTS, temperature=temperature, max_new_tokens=10, seed=0, options=options
        )]
        for temperature, options in ((None, {}), (1.0, {}), (None, {"beams": 3}))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plain(saved: Path) -> list[Any]:
    return texts(saved)


def test_every_field_of_transformers_is_tried() -> None:
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert fields - set(OTHER) == {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}


@pytest.mark.parametrize("name", [*OTHER, "unknown_field"])
def test_no_field_changes_a_continuation(saved: Path, plain: list[Any], tmp_path: Path, name: str) -> None:
    value = OTHER.get(name, [1])
    folder = with_file(saved, tmp_path / "m", json.dumps({"eos_token_id": 1, name: value}))
    assert texts(folder) == plain
    (line,) = read_decoding(folder, SIZE).set_aside("small")
    assert line.startswith(f"small: generation_config.json sets {name}=")
    assert "set aside, decoding is what `generation` of the config says" in line


def test_fields_of_an_old_config_are_set_aside_too(saved: Path, plain: list[Any], tmp_path: Path) -> None:
    old = json.loads((saved / "config.json").read_text())
    old |= {"suppress_tokens": OTHER["suppress_tokens"], "max_length": 4, "num_beams": 4, "top_k": 50}
    folder = with_file(saved, tmp_path / "m", json.dumps(old), "config.json")
    (folder / "generation_config.json").unlink()
    assert texts(folder) == plain
    (line,) = read_decoding(folder, SIZE).set_aside("small")
    assert "small: config.json sets suppress_tokens=[3, 4" in line
    assert "max_length=4, num_beams=4, top_k=50" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "generation_config.json cannot be read and is set aside: "),
        ("[1, 2]", "generation_config.json is no JSON object but a list, and is set aside"),
        ("", "generation_config.json cannot be read and is set aside: "),
        ('{"eos_token_id": 1, "temperature": -1}', "sets temperature=-1; set aside"),
        ('{"eos_token_id": 1, "early_stopping": "soon"}', 'sets early_stopping="soon"; set aside'),
        ('{"eos_token_id": 1, "max_new_tokens": -3}', "sets max_new_tokens=-3; set aside"),
        ('{"eos_token_id": 1, "watermarking_config": {"bias": "x"}}', "sets watermarking_config="),
        (
            '{"eos_token_id": [1, 4000]}',
            "has eos_token_id [4000], the model has tokens 0 to 39; set aside, texts end at",
        ),
        ('{"eos_token_id": "1"}', "texts end at the end token of the tokenizer"),
    ],
)
def test_a_file_that_makes_no_sense_is_set_aside(
    saved: Path, plain: list[Any], tmp_path: Path, text: str, message: str
) -> None:
    folder = with_file(saved, tmp_path / "m", text)
    assert texts(folder) == plain
    (line,) = read_decoding(folder, SIZE).set_aside("small")
    assert message in line


def test_end_tokens_of_the_folder_end_texts(saved: Path, plain: list[Any], tmp_path: Path) -> None:
    first = plain[0][0][2]
    folder = with_file(saved, tmp_path / "m", json.dumps({"eos_token_id": [1, first], "pad_token_id": 9999}))
    found = texts(folder)[0]
    for text, whole in zip(found, plain[0], strict=True):
        assert text == (whole[: whole.index(first)] if first in whole else whole)
    assert len(found[0]) <= 2
    assert read_decoding(folder, SIZE).set_aside("small") == []


def test_what_transformers_writes_by_itself_is_no_news(saved: Path) -> None:
    assert read_decoding(saved, SIZE).set_aside("small") == []
