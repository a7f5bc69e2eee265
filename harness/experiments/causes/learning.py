"""The unit that learns from training texts: kinds of heads, mean outputs by query token, and sizes of MLP outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.attention.capture import IntArray, LayerCall, attention_modules, attention_rows, listen
from harness.attention.interventions import (
    Counts,
    Intervention,
    MeanOutputs,
    MLPNoise,
    OutputTable,
    Penalty,
    Recency,
)
from harness.attention.loop_store import read_arrays, write_arrays
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments.causes.settings import COUNTS, KINDS, NOISE, RECENCY, random_name
from harness.experiments.causes.texts import LEARN
from harness.measures.head_kinds import PATTERNS, kind_of
from harness.measures.head_patterns import PatternSums
from harness.runs.units import Work

Head = tuple[int, int]


def learn(work: Work) -> pd.DataFrame:
    """Do the unit: `sets.json` (name -> layer -> heads), `outputs-NN.npz` of each layer and `mlp.json`."""
    from harness.attention.intervention_tables import mean_outputs_by_token, mlp_scales
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    texts = [c.tokens[: s["max_length"]] for c in texts_of(work, LEARN)]
    texts = [tokens for tokens in texts if len(tokens) > 2]
    layers = list(attention_modules(model)) if s["layers"] == "all" else list(s["layers"])
    scores = head_scores(model, texts, layers, lambda share, what: work.progress(0.6 * share, what))
    sets = sets_of_heads(scores, s["random_like"], s["seed"], s["top_heads"])
    rows = Rows(experiment="causes", model=s["model"], revision=s["revision"], split="train", surrogate="model")
    queries = sum(len(tokens) - 1 for tokens in texts)
    for (layer, head), own in scores.items():
        for metric, value in own.items():
            rows.add(metric, value, layer=layer, head=head, n=queries)
    for name, heads in sets.items():
        for layer in sorted({layer for layer, _ in heads}):
            count = sum(one == layer for one, _ in heads)
            rows.add("heads_changed", count, layer=layer, condition={"intervention": name}, n=len(heads))
        if not heads:
            rows.add("heads_changed", 0, condition={"intervention": name}, n=1)
    work.progress(0.6, "averaging the outputs of heads")
    of_layer = by_layer(head for heads in sets.values() for head in heads)
    if of_layer:
        for layer, table in mean_outputs_by_token(model, texts, of_layer).items():
            arrays = {"heads": np.array(table.heads), "ids": table.ids, "values": table.values.astype(np.float32)}
            write_arrays(work.folder / f"outputs-{layer:02}.npz", arrays)
    scales = mlp_scales(model, texts) if s["noise"] else {}
    (work.folder / "mlp.json").write_text(json.dumps(scales) + "\n", encoding="utf-8")
    (work.folder / "sets.json").write_text(json.dumps(sets) + "\n", encoding="utf-8")
    return rows.frame()


def texts_of(work: Work, part: str) -> list[Continuation]:
    """The texts of one part, by `work.settings["parts"]`, of all inputs that hold texts."""
    folders = [folder for folder in work.inputs if (folder / "trajectories.parquet").exists()]
    parts: dict[str, list[str]] = work.settings["parts"]
    return [c for folder in folders for c in read_continuations(folder) if part in parts.get(c.prompt, [])]


def head_scores(
    model: Any, texts: Sequence[IntArray], layers: Sequence[int], progress: Any = lambda share, what: None
) -> dict[Head, dict[str, float]]:
    """(layer, head) -> the scores that its kind is decided by, over texts; a score without a query is left out."""
    sink: dict[int, Any] = {}
    sums: dict[tuple[int, str], Any] = {}
    asked: dict[str, int] = {}

    def read(call: LayerCall, tokens: IntArray) -> None:
        rows = attention_rows(call)[:, 1:]  # [H, T - 1, T], queries down
        sink[call.layer] = sink.get(call.layer, 0.0) + rows[:, :, 0].sum(1).cpu().numpy()
        rest = rows[:, :, 1:]
        weight = (rest / rest.sum(-1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)).transpose(1, 2)
        patterns = PatternSums(tokens, len(rows), call.window)
        patterns.add(weight, 1, 1)
        for name, (values, _, n) in patterns.scores().items():
            sums[call.layer, name] = sums.get((call.layer, name), 0.0) + values * n
            asked[name] = asked.get(name, 0) + (n if call.layer == layers[0] else 0)

    for number, tokens in enumerate(texts):
        progress(number / len(texts), f"reading heads, text {number + 1} of {len(texts)}")
        listen(model, tokens, layers, lambda call, tokens=tokens: read(call, tokens))  # type: ignore[misc]
    queries = sum(len(tokens) - 1 for tokens in texts)
    found: dict[Head, dict[str, float]] = {}
    for layer in layers:
        for head in range(len(sink[layer])):
            own = {"sink_share": float(sink[layer][head]) / queries}
            own |= {name: float(sums[layer, name][head]) / asked[name] for name in PATTERNS if (layer, name) in sums}
            found[layer, head] = own
    return found


def sets_of_heads(
    scores: dict[Head, dict[str, float]], random_like: Sequence[str], seed: int, top: int | None = None
) -> dict[str, list[Head]]:
    """Kind -> its heads, and for some kinds as many others of the same layers, drawn at random.

    Where a layer has too few others, further ones are drawn from the layers next to it.

    Args:
        scores: of `head_scores`.
        random_like: kinds that get random heads beside them.
        seed: of the draws.
        top: so many heads with the highest score of each kind; None: those that the score makes a head of the kind.
    """
    found: dict[str, list[Head]] = {kind: [] for kind in KINDS}
    if top is None:
        for head, own in scores.items():
            kind = kind_of(own)
            if kind in found:
                found[kind].append(head)
    else:
        for score, kind in (*PATTERNS.items(), ("sink_share", "sink")):
            known = [head for head, own in scores.items() if score in own]
            found[kind] = sorted(sorted(known, key=lambda head: -scores[head][score])[:top])
    for kind in random_like:
        rng = np.random.default_rng(derive_seed(seed, "causes", "random heads", kind))
        free = [head for head in scores if head not in set(found[kind])]
        drawn: list[Head] = []
        for layer, _ in found[kind]:
            near = min((abs(head[0] - layer) for head in free), default=None)
            nearest = [head for head in free if abs(head[0] - layer) == near]
            if nearest:
                drawn.append(nearest[int(rng.integers(len(nearest)))])
                free.remove(drawn[-1])
        found[random_name(kind)] = sorted(drawn)
    return found


def by_layer(heads: Any) -> dict[int, list[int]]:
    """Layer -> heads, each once, in order."""
    found: dict[int, set[int]] = {}
    for layer, head in heads:
        found.setdefault(int(layer), set()).add(int(head))
    return {layer: sorted(own) for layer, own in sorted(found.items())}


def read_change(model: Any, folders: Sequence[Path], name: str, layers: Any, seed: int) -> Intervention | None:
    """An intervention from what was learned; None where the model has no head of the kind.

    Args:
        model: which runs.
        folders: of units; one of them is that of `learn`.
        name: of the intervention.
        layers: "all", or whose heads lose counts or recency.
        seed: of noise.
    """
    if name in {COUNTS, RECENCY}:
        chosen = dict.fromkeys(attention_modules(model) if layers == "all" else layers)
        return Counts(chosen) if name == COUNTS else Recency(chosen)
    if name.endswith("-penalty"):
        return Penalty("repetition" if name.startswith("repetition") else "frequency")
    folder = next(one for one in folders if (one / "sets.json").exists())
    if name == NOISE:
        scale = json.loads((folder / "mlp.json").read_text(encoding="utf-8"))
        return MLPNoise({int(layer): value for layer, value in scale.items()}, derive_seed(seed, "causes", "noise"))
    heads = by_layer(json.loads((folder / "sets.json").read_text(encoding="utf-8"))[name])
    if not heads:
        return None
    tables = {}
    for layer, own in heads.items():
        arrays = read_arrays(folder / f"outputs-{layer:02}.npz")
        places = np.searchsorted(arrays["heads"], own)
        tables[layer] = OutputTable(own, arrays["ids"], arrays["values"][places])
    return MeanOutputs(tables)
