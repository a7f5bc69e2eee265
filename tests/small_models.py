"""Random models of a few thousand parameters, saved with a tokenizer as real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.data.tokenisation import Reader

WORDS = [f"w{index}" for index in range(38)]
VOCAB_SIZE = len(WORDS) + 2


def perturb(model: torch.nn.Module, scale: float, seed: int = 0) -> None:
    """Add Gaussian noise to every parameter, norms and biases too: a fresh model attends uniformly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def llama(layers: int = 2, *, scale: float = 0.3, window: int = 256, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A rotary model with 6 query heads on 2 key heads, every parameter perturbed."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=window,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
        **changes,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    perturb(model, scale, seed)
    return model.eval().requires_grad_(False)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, split at blanks."""
    vocabulary = {"[UNK]": 0, "<eos>": 1, **{word: index + 2 for index, word in enumerate(WORDS)}}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", eos_token="<eos>", pad_token="<eos>")


def read(tokenizer: Any, text: str, **settings: Any) -> list[int]:
    """The ids of a text, as a model with as many tokens as the tokenizer reads it."""
    return Reader(tokenizer, "mine", len(tokenizer), **settings).text(text, "the text").whole


def save(model: LlamaForCausalLM, folder: Path) -> Path:
    """Save model and tokenizer as `from_pretrained` reads them."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def random_texts(count: int, length: int, seed: int = 0) -> list[str]:
    """Texts of words, some more frequent than others."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, len(WORDS) + 1)
    return [" ".join(rng.choice(WORDS, length, p=weight / weight.sum())) for _ in range(count)]


def random_ids(length: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Token ids of the small models."""
    return np.random.default_rng(seed).integers(2, VOCAB_SIZE, length)


def write_config(folder: Path, model: Path) -> Path:
    """A config that goes through every experiment in seconds: 12 prompts of 2 kinds, 4 of them held out."""
    texts = random_texts(12, 12)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    one_layer = {
        "kind": "one-layer",
        "vocab_size": 6,
        "dimension": 8,
        "observations": 2000,
        "prompt_length": 8,
        "repetitions": 2,
        "held_out_prompts": 500,
        "rollout_prompts": 3,
        "rollout_steps": 40,
        "rollout_seeds": 2,
    }
    config = {
        "name": "small",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "held_out": 0.34,
        "generation": {"max_new_tokens": 24, "batch_size": 5},
        "experiments": [
            one_layer,
            {"kind": "heads", "layers": [0, 2], "layers_per_unit": 1},
            {"kind": "generation", "rollout_seeds": 2},
        ],
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
