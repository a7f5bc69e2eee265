"""Strategies with `generation.use_model_defaults`: fields of a model's folder, where the strategy is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.config.decoding import OPTIONS, Strategy, strategy_options
from harness.core.hashing import canonical_hash

SAMPLING_ONLY = ("top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS_ONLY = ("length_penalty", "early_stopping")
_AS_OPTION = {"no_repeat_ngram_size": "no_repeat_ngram"}


class Resolved(NamedTuple):
    """A strategy for one model.

    Attributes:
        name: in rows.
        temperature: None does not sample.
        options: those that strategies of a config have too, without temperature; surrogates follow them.
        fields: what the folder sets beside them; only the model follows these.
    """

    name: str
    temperature: float | None
    options: dict[str, Any]
    fields: dict[str, Any]


def resolve(strategy: Strategy, defaults: Mapping[str, Any]) -> Resolved:
    """A strategy with the fields of a model's folder; where both say something, the strategy decides.

    Whether there is sampling or a beam search is the strategy's alone: cuts of a folder act where the strategy samples,
    its length_penalty and early_stopping where there are beams.

    Args:
        strategy: of the config.
        defaults: fields that were taken from the folder, with the names of transformers; none: the strategy as it is.
    """
    given = strategy_options(strategy)
    sampled, beams = "temperature" in given, "beams" in given
    acting = {
        _AS_OPTION.get(name, name): value
        for name, value in defaults.items()
        if (sampled or name not in SAMPLING_ONLY) and (beams or name not in BEAMS_ONLY)
    }
    merged = {**acting, **given}
    options = {name: merged[name] for name in OPTIONS if name in merged}
    fields = {name: value for name, value in sorted(acting.items()) if name not in OPTIONS}
    parts = [] if sampled or beams else ["greedy"]
    parts += [f"{name}={value:g}" for name, value in options.items()]
    if fields:
        parts.append(f"model-defaults({','.join(_short(name, value) for name, value in fields.items())})")
    return Resolved(",".join(parts), options.pop("temperature", None), options, fields)


def _short(name: str, value: Any) -> str:
    """A field in the name of a strategy: numbers as they are, lists by their hash."""
    if isinstance(value, bool | str):
        return f"{name}={str(value).lower()}"
    return f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={canonical_hash(value)[:8]}"
