"""One way to look at the attention of all heads over one text: time and peak memory, as a process of its own.

    python tests/benchmarks/head_passes.py FOLDER WAY LENGTH REPEATS   prints one line of JSON

WAY is plain, capture, score, eager, eager-sums or lens (TransformerLens, where it is installed).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def prose(tokenizer: Any, length: int) -> Any:
    """[T] ids of the prompts that come with the project, one after the other, written by people."""
    from harness.config.load import load_config
    from harness.data.prompts import load_prompts
    from harness.data.tokenisation import Reader

    reader, prompts = Reader(tokenizer, "model", len(tokenizer)), load_prompts(load_config("quickstart"))
    ids = [i for prompt in prompts for i in reader.text(prompt.text, prompt.id).whole]
    if len(ids) < length:
        raise ValueError(f"the prompts have {len(ids)} tokens, fewer than {length}")
    return np.array(ids[:length])


def capture_all(model: Any, ids: Any) -> None:
    """The harness's pass over a training text: sums over all heads, the pairs on disk."""
    from harness.data.texts import LocalVocabulary
    from harness.experiments._shared.head_fits import training_pass

    with tempfile.TemporaryFile() as file:
        training_pass(model, [ids], range(model.config.num_hidden_layers), LocalVocabulary([ids]), file)


def fitted_surrogates(heads: Any, text: Any, vocab_size: int, seed: int) -> dict[str, Any]:
    """Every surrogate of a layer, the fitted ones with random numbers at all pairs of the text instead of a fit."""
    from scipy import sparse

    from harness.experiments._shared.settings import default_surrogates
    from harness.surrogates._fitting.buckets import BUCKETS
    from harness.surrogates._fitting.sink_fit import SinkFit
    from harness.surrogates.base import Ingredients
    from harness.surrogates.make import make

    rng, number = np.random.default_rng(seed), heads.at_start.query.shape[0]
    query, key = text.pairs
    pairs = (text.types[query], text.types[key])
    made = {name: make(name, "heads", Ingredients(seed, heads)) for name in default_surrogates("heads")}
    pattern = sparse.csr_array((np.ones(len(query)), pairs), shape=(vocab_size, vocab_size))
    at, shape = (pattern.indices, pattern.indptr), pattern.shape
    for name in ("ccmc-fit", "pccmc-fit"):
        made[name].delta_ = [
            sparse.csr_array((rng.normal(0, 0.3, len(query)), *at), shape=shape) for _ in range(number)
        ]
        made[name].sink_ = SinkFit(np.zeros(number), np.ones(number), np.zeros((number, vocab_size)))
    fit = made["pccmc-fit"]
    fit.c_, (fit.a_, fit.b_) = np.ones(number), rng.normal(size=(2, number, BUCKETS))
    fit.effects_ = rng.normal(0, 0.01, (number, fit.features.size))
    made["distance"].profile_, made["distance"].sink_ = rng.normal(size=(number, BUCKETS)), np.zeros(number)
    return made


def scoring(model: Any, ids: Any) -> Callable[[], dict[int, Any]]:
    """The harness's pass over a held-out text with all surrogates, ready to be run; it returns scores by layer.

    What heads look at is summed too, as in a run.
    """
    from harness.attention import capture
    from harness.attention.static_layers import static_layers
    from harness.attention.windows import Windows
    from harness.data.texts import LocalVocabulary
    from harness.experiments._shared.head_fits import training_pass
    from harness.experiments._shared.head_scores import score_text
    from harness.measures.head_patterns import PatternSums

    layers, vocabulary = list(range(model.config.num_hidden_layers)), LocalVocabulary([ids])
    with tempfile.TemporaryFile() as file:
        sums, static = training_pass(model, [ids], layers, vocabulary, file)
        views = {layer: sums[layer].views[0] for layer in layers}
    heads = static_layers(model, static, layers, vocabulary, len(ids))
    made = {n: fitted_surrogates(heads[n], views[n].text, len(vocabulary), n) for n in layers}

    def score() -> dict[int, Any]:
        found, windows = {}, Windows(ids, vocabulary)

        def take(call: Any) -> None:
            view = windows.seen_by(call)
            patterns = PatternSums(view.text.tokens, call.query.shape[0], view.text.window, view.of_all_layers)
            found[call.layer] = score_text(call, view, made[call.layer], patterns)

        capture.listen(model, ids, layers, take)
        return found

    return score


def eager_attentions(model: Any, ids: Any) -> Any:
    """[1, H, T, T] of each layer, as transformers returns them when asked."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return model(torch.as_tensor(ids)[None], output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation(before)


def eager_sums(model: Any, ids: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a user needs for the sums of `capture_all` without the harness: squares by head, then plain torch.

    Returns:
        Per layer [H, U, U] sums per pair of (query, key) types, sorted, and [H, T - 1] per distance; the first position
        is left out of every row.
    """
    found, n = [], len(ids) - 1
    types, column = torch.unique(torch.as_tensor(ids)[1:], return_inverse=True)
    for attention in eager_attentions(model, ids):
        heads = attention.shape[1]
        pairs, distance = torch.zeros(heads, len(types), len(types)), torch.zeros(heads, n)
        for head, square in enumerate(attention[0]):
            rows = square[1:, 1:] / square[1:, 1:].sum(-1, keepdim=True)
            per_key = torch.zeros(len(types), n).index_add_(0, column, rows.T)  # adding rows is what torch does fast
            pairs[head].index_add_(0, column, per_key.T)
            wide = torch.nn.functional.pad(rows.flip(1), (0, n)).flatten()[: n * (2 * n - 1)]
            distance[head] = wide.view(n, 2 * n - 1).sum(0)[n - 1 :]  # each row one step to the right of the last
        found.append((pairs, distance))
    return found


def way(name: str, folder: Path, length: int) -> Callable[[], Any]:
    """What to time; the model is loaded and the text is read."""
    from harness.models import loading, tokenizers

    ids = prose(tokenizers.load_tokenizer(folder), length)
    tokens = torch.as_tensor(ids)[None]
    if name == "lens":
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
        wanted = lambda hook: hook.endswith("attn.hook_pattern")  # noqa: E731
        return lambda: bridge.run_with_cache(tokens, names_filter=wanted)
    model = loading.load_model(folder, "cpu")
    if name == "score":
        return scoring(model, ids)
    if name == "capture":
        return lambda: capture_all(model, ids)
    if name == "eager":
        return lambda: eager_attentions(model, ids)
    if name == "eager-sums":
        return lambda: eager_sums(model, ids)
    return lambda: model(tokens, use_cache=False).logits


def main(folder: str, name: str, length: str, repeats: str) -> None:
    """Time one way after a call that does not count: seconds of processor and clock, and peak memory in megabytes."""
    from harness.core.memory import peak_memory

    torch.set_num_threads(1)
    work, spent, passed = way(name, Path(folder), int(length)), [], []
    with torch.inference_mode():
        for _ in range(int(repeats) + 1):
            start, began = time.process_time(), time.perf_counter()
            work()
            spent.append(time.process_time() - start)
            passed.append(time.perf_counter() - began)
    peak = (peak_memory() or 0) / 2**20
    found = {"seconds": statistics.median(spent[1:]), "clock": statistics.median(passed[1:]), "peak": peak}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
