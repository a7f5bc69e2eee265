"""Model cards of exported surrogates: what every one of them says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.runs.run import Run
from harness.stats.intervals import mean_interval


def card(run: Run, surrogate: str, model: str, config: Any, lines: Sequence[str]) -> str:
    """The README.md of an exported surrogate.

    Args:
        run: that fitted it.
        surrogate: its name.
        model: whose output it was fitted to.
        config: a `CCMCConfig`.
        lines: paragraphs about this one.
    """
    closed = ["It is closed: tokens outside the context get -inf, and the loss of a text with one is infinite."]
    parts = [
        "---\nlibrary_name: transformers\ntags: [ccmc, markov-chain, text-generation]\n---",
        f"# {surrogate} of {model}",
        f"{config.about}.",
        "Load it after `import harness.hf` with `AutoModelForCausalLM.from_pretrained(folder)`; no code of this\n"
        "folder runs. Logits are log probabilities.",
        *lines,
        *(closed if config.closed else []),
        f"Made from `{run.name}` (config {run.manifest['config_hash'][:8]}). What it was fitted to is the output of "
        f"{model}: the terms of that model go with it.",
    ]
    return "\n\n".join(parts) + "\n"


def held_out_mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """A mean over texts with its interval, such as `1.23 [1.1, 1.4]`."""
    found = mean_interval(values, seed=0)
    bounds = "" if found.low is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{np.mean(values):.3g}{bounds}"
