"""Text models trained here: what their parts are, and that they learn what there is to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.models.loading import load_model
from harness.models.text_models import Shape, split_texts, text_tokenizer, train_text_model, windows
from harness.models.tokenizers import load_tokenizer
from harness.models.training import IGNORED, Recipe

WORDS = ["the cat", "a dog", "the bird", "my fish"]


def sentences(count: int, seed: int) -> list[str]:
    """Each names one animal three times: whoever reads the context knows the second and third."""
    rng = np.random.default_rng(seed)
    return [f"{one} sat. {one} ran. {one} slept." for one in (WORDS[i] for i in rng.integers(0, 4, count))]


def test_a_text_gives_itself_back() -> None:
    tokenizer = text_tokenizer(sentences(20, 0), 270)
    for text in ("the cat sat.", "Größe \n\n\t 猫 <|im_start|>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(ValueError, match="at least 257"):
        text_tokenizer(["a"], 100)
    with pytest.raises(ValueError, match="fewer than 4000; lower it"):
        text_tokenizer(sentences(20, 0), 4000)


def test_texts_of_one_origin_stay_together() -> None:
    origins = [str(i // 3) for i in range(90)]
    parts = split_texts([str(i) for i in range(90)], origins, 4)
    assert [len(part) for part in parts] == [72, 9, 9]
    owners = [{int(text) // 3 for text in part} for part in parts]
    assert all(not owners[a] & owners[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    assert parts != split_texts([str(i) for i in range(90)], origins, 5)
    with pytest.raises(ValueError, match="at least 20 texts of different origin are needed, got 3"):
        split_texts(["a"] * 30, ["x", "y", "z"] * 10, 0)


def test_every_token_but_the_first_is_predicted_once() -> None:
    texts = [np.arange(10, 10 + n) for n in (2, 5, 6, 11)]
    made = windows(texts, 5)
    found = sorted(made.labels[made.labels != IGNORED].tolist())
    assert found == sorted(token for text in texts for token in text[1:].tolist())
    for tokens, labels in zip(made.tokens, made.labels, strict=True):
        assert (labels[labels != IGNORED] == tokens[: int((labels != IGNORED).sum())] + 1).all()


def test_a_model_learns_and_loads_as_any_other(tmp_path: Path) -> None:
    texts, shape = sentences(60, 1), Shape(1, 2, 32, 0, "rotary", 270, 64)
    recipe = Recipe(steps=150, batch_size=16, evaluate_every=25, patience=100)
    found = train_text_model(texts, [str(i) for i in range(60)], shape, recipe, 0, tmp_path / "m")
    losses = {name: one.value for name, one in found.losses.items()}
    assert losses["model"] < 0.7 * losses["bigram"] < losses["unigram"]
    report = json.loads((tmp_path / "m" / "training.json").read_text())
    assert report["tokens"] == found.tokens
    assert report["held_out_loss"]["model"]["value"] == pytest.approx(losses["model"])
    model, tokenizer = load_model(tmp_path / "m", "cpu"), load_tokenizer(tmp_path / "m")
    ids = tokenizer.encode("a dog sat. a")
    with torch.inference_mode():
        p = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
    following = tokenizer.encode("a dog sat. a dog")[len(ids)]
    assert float(p[following]) > 0.5


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    texts, shape = sentences(30, 2), Shape(1, 1, 16, 0, "none", 260, 32)
    made = [
        train_text_model(texts, [str(i) for i in range(30)], shape, Recipe(steps=5), seed, tmp_path / name).losses
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert made[0] == made[1]
    assert made[0]["model"] != made[2]["model"]
