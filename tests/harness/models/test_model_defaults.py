"""Decoding fields of a model's folder that a run takes: what each does, whatever other prompts there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models

from harness.config.decoding import Sampling
from harness.config.model_defaults import resolve
from harness.core.errors import UsageError
from harness.models import loading, tokenizers
from harness.models.folder_decoding import read_decoding
from harness.models.language_model import generate
from harness.models.model_defaults import take

PROMPTS = [small_models.random_ids(3 + 2 * seed, seed).tolist() for seed in range(4)]
SIZE, END = small_models.VOCAB_SIZE, 1
FIELDS: dict[str, Any] = {
    "bad_words_ids": [[token] for token in range(3, 20)] + [[21, 22]], "suppress_tokens": list(range(3, 20)),
    "begin_suppress_tokens": list(range(3, 30)), "sequence_bias": [[[7], 90.0], [[7, 8], 3.0]], "min_length": 14,
    "min_new_tokens": 9, "exponential_decay_length_penalty": [2, 3.0], "forced_eos_token_id": 1,
    "forced_bos_token_id": 5, "renormalize_logits": True, "repetition_penalty": 1.7, "no_repeat_ngram": 2,
    "top_h": 0.4, "typical_p": 0.3, "epsilon_cutoff": 0.03, "eta_cutoff": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save(small_models.llama(2, scale=0.4), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(saved: Path) -> tuple[Any, Any]:
    return loading.load_model(saved, "cpu"), tokenizers.load_tokenizer(saved)


def texts(loaded: tuple[Any, Any], prompts: list[list[int]], temperature: float | None, **options: Any) -> list[Any]:
    found = generate(
        *loaded, prompts, temperature=temperature, max_new_tokens=10, seed=3, options=options, batch_size=8
    )
    return [c.tolist() for c in found]


def of(folder: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    (folder / "generation_config.json").write_text(text)
    return take(read_decoding(folder, SIZE), folder, "small", SIZE)


@pytest.mark.parametrize("temperature", [None, 1.0])
@pytest.mark.parametrize("name", FIELDS)
def test_a_prompt_is_continued_as_if_it_were_alone(loaded: Any, name: str, temperature: float | None) -> None:
    together = texts(loaded, PROMPTS, temperature, **{name: FIELDS[name]})
    assert together == [texts(loaded, [prompt], temperature, **{name: FIELDS[name]})[0] for prompt in PROMPTS]


def test_each_field_does_what_it_says(loaded: Any) -> None:
    forbidden = set(range(3, 20))
    for field in ("bad_words_ids", "suppress_tokens"):
        for text in texts(loaded, PROMPTS, 1.0, **{field: FIELDS[field]}):
            assert not forbidden & set(text)
    for text in texts(
        loaded, PROMPTS, 1.0, bad_words_ids=[[a, b] for a in range(2, 20) for b in range(SIZE) if b != END]
    ):
        assert not {*text[:-1]} & set(range(2, 20))
    for text in texts(loaded, PROMPTS, 1.0, begin_suppress_tokens=FIELDS["begin_suppress_tokens"]):
        assert not text or text[0] not in range(3, 30)
    assert all(text == [7] * 10 for text in texts(loaded, PROMPTS, 1.0, sequence_bias=[[[7], 90.0]]))
    bias = [[[END], 90.0]]  # texts would end at once
    assert texts(loaded, PROMPTS, None, sequence_bias=bias) == [[]] * 4
    assert {len(t) for t in texts(loaded, PROMPTS, None, sequence_bias=bias, min_new_tokens=6)} == {6}
    lengths = [len(t) for t in texts(loaded, PROMPTS, None, sequence_bias=bias, min_length=12)]
    assert lengths == [min(10, max(12 - len(prompt), 0)) for prompt in PROMPTS]
    assert {len(t) for t in texts(loaded, PROMPTS, None, sequence_bias=[[[END], -90.0]], forced_eos_token_id=END)} == {
        9
    }
    assert max(len(t) for t in texts(loaded, PROMPTS, 1.0, exponential_decay_length_penalty=[3, 50.0])) <= 5
    plain = texts(loaded, PROMPTS, None)
    assert texts(loaded, PROMPTS, 1.0, epsilon_cutoff=0.999) == plain
    assert texts(loaded, PROMPTS, None, renormalize_logits=True) == plain
    assert texts(loaded, PROMPTS, 1.0, top_h=1e-6) == plain
    assert texts(loaded, PROMPTS, None, top_h=1e-6) == plain != texts(loaded, PROMPTS, 1.0, top_h=0.9)
    assert texts(loaded, PROMPTS, 1.0, typical_p=0.05) != texts(loaded, PROMPTS, 1.0)


def test_length_penalty_is_for_beams(loaded: Any) -> None:
    short, long = (texts(loaded, PROMPTS, None, beams=4, length_penalty=p) for p in (-20.0, 20.0))
    assert np.mean([len(t) for t in short]) < np.mean([len(t) for t in long])
    assert texts(loaded, PROMPTS, None, length_penalty=-20.0) == texts(loaded, PROMPTS, None)


def test_the_strategy_decides_where_both_speak() -> None:
    said = {"top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "typical_p": 0.9,
            "length_penalty": 2.0, "suppress_tokens": [4]}  # fmt: skip
    greedy = resolve("greedy", said)
    assert greedy.name.startswith("greedy,repetition_penalty=1.1,no_repeat_ngram=3,model-defaults(suppress_tokens=")
    assert greedy.temperature is None and greedy.fields == {"suppress_tokens": [4]}
    sampled = resolve(Sampling(temperature=0.7, top_k=5), said)
    assert sampled.name.startswith("temperature=0.7,top_k=5,top_p=0.9,repetition_penalty=1.1,no_repeat_ngram=3,model-")
    assert sampled.fields == {"suppress_tokens": [4], "typical_p": 0.9}
    beams = resolve(Sampling(beams=3, repetition_penalty=2.0), said)
    assert beams.options == {"beams": 3, "repetition_penalty": 2.0, "no_repeat_ngram": 3}
    assert beams.fields == {"length_penalty": 2.0, "suppress_tokens": [4]}
    assert resolve("greedy", {}) == ("greedy", None, {}, {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_return_sequences", 2), ("stop_strings", ["a"]), ("penalty_alpha", 0.6), ("prompt_lookup_num_tokens", 3),
        ("guidance_scale", 3.0), ("watermarking_config", {"bias": 2.0}), ("max_time", 1.0), ("constraints", ["x"]),
        ("encoder_repetition_penalty", 2.0), ("cache_implementation", "static"), ("return_dict_in_generate", True),
        ("output_scores", True), ("remove_invalid_values", True), ("a_new_field", 1),
    ],
)  # fmt: skip
def test_fields_that_cannot_act_here_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^small: generation_config.json sets {field}=.*does not support") as caught:
        of(tmp_path, json.dumps({field: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", -1), ("repetition_penalty", "1.1"), ("top_k", 2.5), ("top_p", 3), ("min_p", True),
        ("suppress_tokens", [SIZE]), ("suppress_tokens", []), ("suppress_tokens", 4), ("bad_words_ids", [[]]),
        ("bad_words_ids", [3]), ("sequence_bias", {"[3]": 1.0}), ("sequence_bias", [[[3], "x"]]), ("min_length", -1),
        ("sequence_bias", []), ("forced_eos_token_id", -1), ("early_stopping", "soon"), ("typical_p", 2.0),
        ("exponential_decay_length_penalty", [1]), ("renormalize_logits", "yes"), ("no_repeat_ngram_size", 1),
        ("top_h", 1.5),
    ],
)  # fmt: skip
def test_values_that_are_none_of_their_field_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"sets {field}=.*, which is not "):
        of(tmp_path, json.dumps({field: value}))


def test_a_broken_file_is_refused_and_what_the_config_says_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"generation_config\.json cannot be read"):
        of(tmp_path, "{")
    taken, notes = of(
        tmp_path, '{"do_sample": true, "max_length": 9, "use_cache": false, "top_p": 0.9, "num_beams": 2}'
    )
    assert taken == {"top_p": 0.9}
    assert "sets top_p=0.9; taken" in notes[0] and "sets do_sample=true, max_length=9, use_cache=false" in notes[1]
