"""Decoding fields of a model's folder that a run takes with `generation.use_model_defaults`: which, and what they do.

Every row of a batch is treated as if it were alone: what looks at the text so far sees no padding, and lengths are
counted from the end of the prompt, which is at one place for all rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers as hf
from transformers import LogitsProcessor

from harness.core.errors import UsageError
from harness.models.folder_decoding import FILE, FolderDecoding, listed
from harness.models.penalties import Unpadded

IGNORED = ("do_sample", "num_beams", "temperature", "max_length", "max_new_tokens", "use_cache")


def _number(low: float, high: float, above: bool = True) -> tuple[Callable[[Any, int], bool], str]:
    """A number between two others; above: not the lower one itself."""

    def fits(value: Any, size: int) -> bool:
        return type(value) in (int, float) and (low < value if above else low <= value) and value <= high

    return fits, f"a number {'above' if above else 'from'} {low:g} and up to {high:g}"


def _count(low: int, high: int) -> tuple[Callable[[Any, int], bool], str]:
    return lambda value, size: type(value) is int and low <= value <= high, f"a whole number of {low} to {high}"


def _is_ids(value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(type(t) is int and 0 <= t < size for t in value)


def _is_biases(value: Any, size: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            isinstance(pair, list) and len(pair) == 2 and _is_ids(pair[0], size) and _NUMBER(pair[1], size)
            for pair in value
        )
    )


def _is_decay(value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) == 2 and _COUNT(value[0], size) and _POSITIVE(value[1], size)


_NUMBER, _POSITIVE, _COUNT = _number(-1e6, 1e6)[0], _number(0, 1e6)[0], _count(0, 10**6)[0]
_IDS = (_is_ids, "a list of ids that the model has")
_END = (
    lambda value, size: _is_ids(value if isinstance(value, list) else [value], size),
    "an id that the model has, or a list of them",
)
TAKEN: dict[str, tuple[Callable[[Any, int], bool], str]] = {
    "repetition_penalty": _number(0, 10),
    "no_repeat_ngram_size": _count(2, 64),
    "bad_words_ids": (
        lambda value, size: isinstance(value, list) and len(value) > 0 and all(_is_ids(v, size) for v in value),
        "a list of lists of ids that the model has",
    ),
    "sequence_bias": (_is_biases, "a list of pairs of ids that the model has and a number"),
    "suppress_tokens": _IDS,
    "begin_suppress_tokens": _IDS,
    "min_length": _count(0, 10**6),
    "min_new_tokens": _count(0, 10**6),
    "exponential_decay_length_penalty": (_is_decay, "a pair of a whole number and a positive number"),
    "forced_bos_token_id": (lambda value, size: _is_ids([value], size), "an id that the model has"),
    "forced_eos_token_id": _END,
    "renormalize_logits": (lambda value, size: value is True, "true or false"),
    "top_k": _count(1, 10**7),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    **({"top_h": _number(0, 1)} if hasattr(hf, "TopHLogitsWarper") else {}),
    "typical_p": (lambda value, size: type(value) is float and 0 < value < 1, "a number between 0 and 1"),
    "epsilon_cutoff": (lambda value, size: type(value) is float and 0 < value < 1, "a number between 0 and 1"),
    "eta_cutoff": (lambda value, size: type(value) is float and 0 < value < 1, "a number between 0 and 1"),
    "length_penalty": _number(-100, 100),
    "early_stopping": (lambda value, size: type(value) is bool or value == "never", "true, false or never"),
}
"""Fields that are taken, each with what is a value of it (given the size of the vocabulary), and that in words."""


def take(said: FolderDecoding, path: Path, name: str, size: int) -> tuple[dict[str, Any], list[str]]:
    """The fields that a run takes, and the notes on what it leaves.

    Args:
        said: by the folder.
        path: of the folder.
        name: of the model.
        size: of its vocabulary.

    Raises:
        UsageError: a file that cannot be read, a field that cannot act here, or a value that is none of its field.
    """
    if said.file != FILE and (path / FILE).exists():
        raise UsageError(f"{name}: generation.use_model_defaults: {said.problems[-1]}; repair {FILE}, or set it false")
    for field, value in said.fields.items():
        shown = json.dumps(value, default=str)
        what = f"{name}: {said.file} sets {field}={shown if len(shown) <= 60 else shown[:57] + '...'}"
        if field in TAKEN and not TAKEN[field][0](value, size):
            raise UsageError(f"{what}, which is not {TAKEN[field][1]}; correct it, or set use_model_defaults: false")
        if field not in TAKEN and field not in IGNORED:
            raise UsageError(
                f"{what}, which generation.use_model_defaults does not support; take it out of the file, or set "
                "use_model_defaults: false"
            )
    taken = {field: value for field, value in said.fields.items() if field in TAKEN}
    left = {field: value for field, value in said.fields.items() if field in IGNORED}
    notes = replace(said, fields={}).set_aside(name)
    if taken:
        notes.append(f"{name}: {said.file} sets {listed(taken)}; taken, where a strategy says nothing else")
    if left:
        notes.append(
            f"{name}: {said.file} sets {listed(left)}; set aside, that is what `generation` of the config says"
        )
    return taken, notes


def holds(
    fields: Mapping[str, Any], starts: Sequence[int], width: int, most: int, ends: list[int], device: Any
) -> list[LogitsProcessor]:
    """The processors of fields that allow, forbid or favour tokens; a part of them concerns the end token only.

    Args:
        fields: of the folder; others are left alone.
        starts: where the prompt of each row of the batch begins.
        width: where all prompts end.
        most: tokens of a continuation, at most.
        ends: the end tokens; none: texts do not end.
        device: of the scores.
    """
    made: list[LogitsProcessor] = []
    if "sequence_bias" in fields:
        made.append(Unpadded(hf.SequenceBiasLogitsProcessor(fields["sequence_bias"]), starts))
    if "bad_words_ids" in fields:
        made.append(Unpadded(hf.NoBadWordsLogitsProcessor(fields["bad_words_ids"], ends or None), starts))
    if ends and "min_new_tokens" in fields:
        new = fields["min_new_tokens"]
        made.append(hf.MinNewTokensLengthLogitsProcessor(width, new, ends, device=device))
    elif ends and "min_length" in fields:  # of the whole text, as in transformers
        made.append(Unpadded(hf.MinLengthLogitsProcessor(fields["min_length"], ends, device=device), starts))
    if "forced_bos_token_id" in fields:
        made.append(Unpadded(hf.ForcedBOSTokenLogitsProcessor(fields["forced_bos_token_id"]), starts))
    if ends and "forced_eos_token_id" in fields:
        forced = fields["forced_eos_token_id"]
        made.append(hf.ForcedEOSTokenLogitsProcessor(width + most, forced, device=device))
    if ends and "exponential_decay_length_penalty" in fields:
        start, factor = fields["exponential_decay_length_penalty"]
        made.append(hf.ExponentialDecayLengthPenalty((start, factor), ends, width))
    if "suppress_tokens" in fields:
        made.append(hf.SuppressTokensLogitsProcessor(fields["suppress_tokens"], device=device))
    if "begin_suppress_tokens" in fields:
        made.append(hf.SuppressTokensAtBeginLogitsProcessor(fields["begin_suppress_tokens"], width, device=device))
    return made


def further_cuts(fields: Mapping[str, Any], device: Any) -> list[LogitsProcessor]:
    """The processors of typical_p, epsilon_cutoff, eta_cutoff and renormalize_logits, after those of a strategy."""
    made: list[LogitsProcessor] = []
    if "typical_p" in fields:
        made.append(hf.TypicalLogitsWarper(fields["typical_p"]))
    if "epsilon_cutoff" in fields:
        made.append(hf.EpsilonLogitsWarper(fields["epsilon_cutoff"]))
    if "eta_cutoff" in fields:
        made.append(hf.EtaLogitsWarper(fields["eta_cutoff"], device=device))
    if "renormalize_logits" in fields:
        made.append(hf.LogitNormalization())
    return made
