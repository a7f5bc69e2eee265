"""Small text models that are trained here: one attention layer or a few, on texts that are given.

They stand between a chain and a language model: real text, a vocabulary of byte pairs, all that a transformer has or as
much of it as is wanted. Texts are split three ways, whole texts at a time: to learn from, to stop by, and to judge on.
How unigram and bigram of the same training texts predict the last part is said beside the model: `training.json`.

Source: byte-pair vocabulary, Sennrich et al. 2016; the models, `harness.models.one_layer_config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers

from ccmc import fit_bigram
from harness.core.records import Interval
from harness.core.seeds import derive_seed
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import IGNORED, Examples, Outcome, Recipe, store, train
from harness.stats.intervals import ratio_interval

REPORT = "training.json"
SHARES = (0.8, 0.1, 0.1)
"""Of the texts: learned from, stopped by, judged on."""
FEWEST = 20

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Shape:
    """What a text model is made of.

    Attributes:
        layers, heads, dimension: of the transformer.
        mlp: width of the MLP, 0 for none.
        positions: "rotary", or "none".
        vocabulary: byte pairs, at least 257.
        context: tokens of a window; the model reads no more.
    """

    layers: int = 1
    heads: int = 4
    dimension: int = 128
    mlp: int = 512
    positions: Literal["rotary", "none"] = "rotary"
    vocabulary: int = 512
    context: int = 512

    def config(self) -> OneLayerConfig:
        """Of the model; everything a transformer has but what is left out."""
        return OneLayerConfig(
            vocab_size=self.vocabulary, dimension=self.dimension, classifier="free", train_embeddings=True,
            values=True, norm=True, residual=True, mlp=self.mlp, heads=self.heads, layers=self.layers,
            positions=self.positions, max_positions=self.context, init_scale=1.0,
        )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What was trained, and how well it predicts texts that it has not seen.

    Attributes:
        tokens: part -> how many tokens it has: `train`, `stopping`, `held_out`.
        parameters: how many numbers were fitted.
        losses: `unigram`, `bigram`, `model` -> nats a token of the held-out texts, intervals over texts.
        outcome: of the training.
    """

    tokens: dict[str, int]
    parameters: int
    losses: dict[str, Interval]
    outcome: Outcome


def text_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """A tokenizer of byte pairs, learned from texts; every text has tokens, and gives itself back.

    Raises:
        ValueError: a vocabulary that does not hold all bytes, or texts too short for one of this size.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < 257:
        raise ValueError(f"a vocabulary of byte pairs has at least 257 tokens, got {vocabulary}")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(texts, trainer)
    if made.get_vocab_size() < vocabulary:
        raise ValueError(f"the texts give {made.get_vocab_size()} byte pairs, fewer than {vocabulary}; lower it")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def split_texts(texts: Sequence[str], origins: Sequence[str], seed: int) -> list[list[str]]:
    """Texts to learn from, to stop by and to judge on; those of one origin stay together.

    Raises:
        ValueError: too few origins.
    """
    known = sorted(set(origins))
    if len(known) < FEWEST:
        raise ValueError(f"at least {FEWEST} texts of different origin are needed, got {len(known)}")
    order = np.random.default_rng(derive_seed(seed, "text-model", "split")).permutation(len(known))
    ends = np.round(np.cumsum(SHARES) * len(known)).astype(int)
    part_of = {known[index]: int(np.searchsorted(ends, place, "right")) for place, index in enumerate(order.tolist())}
    return [[text for text, of in zip(texts, origins, strict=True) if part_of[of] == part] for part in range(3)]


def windows(texts: Sequence[IntArray], context: int) -> Examples:
    """Windows of `context` tokens with what follows each; a token is predicted once, shorter ends are padded."""
    pieces = [ids[start : start + context + 1] for ids in texts for start in range(0, len(ids) - 1, context)]
    tokens = torch.zeros(len(pieces), context, dtype=torch.long)
    labels = torch.full((len(pieces), context), IGNORED)
    for row, piece in enumerate(pieces):
        tokens[row, : len(piece) - 1] = torch.as_tensor(piece[:-1])
        labels[row, : len(piece) - 1] = torch.as_tensor(piece[1:])
    return Examples(tokens, labels=labels)


def train_text_model(
    texts: Sequence[str],
    origins: Sequence[str],
    shape: Shape,
    recipe: Recipe,
    seed: int,
    folder: Path,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> Trained:
    """Train a model and its tokenizer, and leave both in a folder of transformers.

    Args:
        texts: to learn from, to stop by and to judge on, split by the seed.
        origins: of each text: those of one origin, such as continuations of one prompt, are never split.
        shape: of the model.
        recipe: of the training.
        seed: of the split, the first weights and the batches.
        folder: gets the model, its tokenizer, `training.json` and `loss.csv`.
        progress: called with the share that is done.

    Raises:
        ValueError: too few or too short texts.
    """
    parts = split_texts(texts, origins, seed)
    tokenizer = text_tokenizer(parts[0], shape.vocabulary)
    ids = [[np.array(tokenizer.encode(text), dtype=np.int64) for text in part] for part in parts]
    ids = [[one for one in part if len(one) > 1] for part in ids]
    if not all(ids):
        raise ValueError("a part of the texts has no text of two tokens; give more or longer texts")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "text-model", "weights"))
        model: Any = OneLayerForCausalLM(shape.config())
    learn, stop = (windows(part, shape.context) for part in ids[:2])
    order = derive_seed(seed, "text-model", "order")
    outcome = train(model, learn, recipe, seed=order, held_out=stop, progress=progress)
    counts = dict(zip(("train", "stopping", "held_out"), (sum(map(len, part)) for part in ids), strict=True))
    found = Trained(counts, sum(p.numel() for p in model.parameters() if p.requires_grad),
                    _losses(model.eval(), ids[0], ids[2], shape), outcome)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    store(model, outcome.curve, folder, "")
    tokenizer.save_pretrained(folder)
    (folder / REPORT).write_text(json.dumps(_report(found, shape, seed), indent=1) + "\n", encoding="utf-8")
    return found


def _losses(model: Any, known: Sequence[IntArray], judged: Sequence[IntArray], shape: Shape) -> dict[str, Interval]:
    """Held-out nats a token, of the model and of what is simpler, over the same tokens."""
    bigram = fit_bigram(known, shape.vocabulary)
    sums: dict[str, list[float]] = {"unigram": [], "bigram": [], "model": []}
    for text in judged:
        examples = windows([text], shape.context)
        assert examples.labels is not None
        with torch.no_grad():
            log = torch.log_softmax(model(examples.tokens, logits_to_keep=0).logits.double(), -1)
        there = examples.labels != IGNORED
        log = log.gather(-1, examples.labels.clamp(min=0)[..., None])[..., 0]
        sums["model"].append(-float(log[there].sum()))
        sums["unigram"].append(-float(bigram.log_unigram[text[1:]].sum()))
        sums["bigram"].append(-float(bigram.log_at(text[:-1], text[1:]).sum()))
    sizes = [len(text) - 1 for text in judged]
    return {name: ratio_interval(total, sizes, seed=0) for name, total in sums.items()}


def _report(found: Trained, shape: Shape, seed: int) -> dict[str, Any]:
    losses = {name: {"value": one.value, "low": one.low, "high": one.high, "n": one.n}
              for name, one in found.losses.items()}  # fmt: skip
    best = {"best_step": found.outcome.best_step, "stopped_early": found.outcome.stopped_early}
    return {"shape": asdict(shape), "seed": seed, "tokens": found.tokens, "parameters": found.parameters, **best,
            "held_out_loss": losses}  # fmt: skip
