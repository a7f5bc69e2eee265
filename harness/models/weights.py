"""The weights of a model folder: loaded only where files and config agree, or with a note of every difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from harness.core.errors import UsageError, one_line
from harness.models.buffers import holds_what_the_model_computes, may_be_computed
from harness.models.config_file import called, read_config
from harness.models.folder_decoding import read_decoding
from harness.models.library import heard_warnings
from harness.models.placement import check_spread, map_of, restore_buffers, spread
from harness.models.tensor_files import FLOATS, INDEX, SINGLE, Tensor, few, read_folder, shown

LARGEST_EXCESS = 2**29
"""Numbers that a model may have beyond eight times those in its files, before it is refused unbuilt."""
ALLOW = "or go on with --set models.allow_mismatch=true"


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: causal language model, in evaluation mode.
        notes: what was set aside or does not fit, one line each.
    """

    model: Any
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Differences:
    """What files and config of a model do not agree on; names of tensors, sorted, as messages show them.

    Attributes:
        unexpected: in the files, and the model has no place for them.
        missing: of the model, and not in the files.
        reshaped: of another shape in the files than in the model, with both shapes.
        untied: pairs that the config ties, and that are different in the files.
        unread: in the files, and left aside because the model computes them itself or its class leaves them out.
    """

    unexpected: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    untied: tuple[str, ...]
    unread: tuple[str, ...]

    def sentences(self, allowed: bool) -> list[str]:
        """What differs, in words: as reasons to refuse, or, where it is allowed, with what was done about it."""
        head = any("lm_head" in name or "embed_out" in name for name in self.missing)
        tie = "; a tied output layer needs tie_word_embeddings true in config.json" if head else ""
        made_up = "random start values of seed 0, NOT trained, stand in"
        found = (
            (self.untied, "tied by the config and different in the files", "both are used as they are", ""),
            (self.missing, "missing from the files", made_up, tie),
            (self.reshaped, "of another shape in the files", made_up, ""),
            (self.unexpected, "in the files without a place in the model of config.json", "not used", ""),
        )
        return [
            f"{len(names)} {'weight is' if len(names) == 1 else 'weights are'} {what}: {few(names)}"
            + (f" ({done})" if allowed else hint)
            for names, what, done, hint in found
            if names
        ]


def _check_folder(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a folder that holds a whole model and nothing that transformers would read beside it."""
    if (path / "adapter_config.json").exists():
        raise UsageError(
            f"{name}: it holds an adapter (adapter_config.json), which changes a model; merge it into the model with "
            "merge_and_unload() of peft and save that"
        )
    if part := next((f.name for f in sorted(path.iterdir()) if re.match(r"shard-\d{5}-model-", f.name)), None):
        raise UsageError(f"{name}: {part} is a part of a distributed checkpoint; save the model with save_pretrained")
    return read_folder(path)


def _check_size(config: Any, tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse a config that describes a model far larger than its files, before memory is taken for it."""
    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        described = sum(one.numel() for one in (*built.parameters(), *built.buffers()))
    except Exception as error:  # each architecture refuses sizes in its own manner
        raise UsageError(f"{name}: config.json describes no model that can be built: {one_line(error)[:200]}") from None
    stored = sum(tensor.size for tensor in tensors.values())
    if described > 8 * stored + LARGEST_EXCESS:
        raise UsageError(
            f"{name}: config.json describes a model of {described:.3g} numbers, its files hold {stored:.3g}; they "
            "do not belong together"
        )


def _own_names(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensor of the files -> parameter of the model of that name; the files of a bare model leave its prefix out."""
    prefix = f"{model.base_model_prefix}."
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found = {}
    for key in tensors:
        name = next((one for one in (key, prefix + key, key.removeprefix(prefix)) if one in own), None)
        if name is not None:
            found[key] = name
    return found


def _check_stored(model: Any, tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights stored as whole numbers or in 8 bits, and two tensors of the files for one of the model."""
    taken: dict[str, str] = {}
    for key, own in sorted(_own_names(model, tensors).items()):
        if tensors[key].dtype not in FLOATS:
            raise UsageError(
                f"{name}: {shown(key)} is stored as {tensors[key].dtype}; quantised weights are not read, give them as "
                "float32, float16 or bfloat16"
            )
        if own in taken:  # which of them is loaded would be left to chance
            raise UsageError(f"{name}: its files hold both {shown(taken[own])} and {shown(key)}; remove one of them")
        taken[own] = key


def differences(model: Any, told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Differences:
    """What files and config of a loaded model do not agree on.

    Args:
        model: as it was loaded.
        told: the loading info of transformers.
        tensors: of the files.
    """
    unexpected, unread = set(told["unexpected_keys"]), set[str]()
    # transformers leaves these out of its loading info, by patterns that may fit other tensors too
    patterns = (*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq", r"position_ids$")
    own, used = _own_names(model, tensors), set(model.state_dict())
    for key in tensors:
        if key in unexpected or (key not in own and key not in used and any(re.search(one, key) for one in patterns)):
            whole_module = key not in unexpected and not may_be_computed(key)
            computed = may_be_computed(key) and holds_what_the_model_computes(model, key, tensors[key].file)
            (unread if whole_module or computed else unexpected).add(key)
            unexpected -= unread
    ties = set(model.get_expanded_tied_weights_keys(all_submodels=True).items())
    kept = set((model.all_tied_weights_keys or {}).items())
    reshaped = {str(key): (tuple(mine), tuple(wanted)) for key, mine, wanted in told["mismatched_keys"]}
    return Differences(
        unexpected=tuple(map(shown, sorted(unexpected))),
        missing=tuple(map(shown, sorted(set(told["missing_keys"]) - set(reshaped)))),
        reshaped=tuple(f"{shown(k)} {list(mine)} for {list(wanted)}" for k, (mine, wanted) in sorted(reshaped.items())),
        untied=tuple(f"{shown(target)} and {shown(source)}" for target, source in sorted(ties - kept)),
        unread=tuple(map(shown, sorted(unread))),
    )


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[tuple[str, int, int]]:
    """(name, how many numbers are NaN or infinite, of how many) for each tensor that has such.

    A sum over a tensor is finite only where all its numbers are, and is many times faster than asking each.
    """
    found = []
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum())):
            wrong = int((~torch.isfinite(tensor)).sum())
            if wrong:
                found.append((name, wrong, tensor.numel()))
    return found


def _check_finite(model: Any, name: str, what: str = "as float32") -> None:
    if wrong := not_finite(model.named_parameters()):
        first, count, size = wrong[0]
        others = len(wrong) - 1
        more = f", and {others} more {'weight has' if others == 1 else 'weights have'} such" if others else ""
        raise UsageError(
            f"{name}: {shown(first)} has {count:,} of {size:,} numbers that are NaN or infinite {what}{more}; "
            "the files are damaged, or the model was stored after training had diverged"
        )


def _from_files(
    path: Path, config: Any, name: str, dtype: str, device_map: str | None
) -> tuple[Any, Mapping[str, Any], list[str]]:
    """Model, loading info and warnings of transformers; what it makes up comes from seed 0 in every process."""
    placed = {} if device_map is None else {"device_map": device_map}
    try:
        with heard_warnings(name) as heard, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, told = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=getattr(torch, dtype),
                **placed,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                generation_config=GenerationConfig(**read_decoding(path, config.get_text_config().vocab_size).ids),
                ignore_mismatched_sizes=True,  # they are refused or noted by name
            )
    except Exception as error:  # files that cannot be read, kernels that are not installed here
        raise UsageError(f"{name}: its weights cannot be loaded: {one_line(error)[:200]}") from None
    return model, told, heard


@lru_cache(maxsize=1)
def read_model(path: Path, device: str, allow_mismatch: bool = False, dtype: str = "float32") -> LoadedModel:
    """The causal language model of a folder, in evaluation mode, with notes about its files.

    Args:
        path: folder with config.json and safetensors.
        device: of `placement.pick_device`. A model that is spread over several devices is read tensor by tensor onto
            them, in `dtype`; one of a single device is read as float32 first.
        allow_mismatch: go on where files and config do not agree, and note what differs. What is missing gets the start
            values of an untrained model, drawn from seed 0, so that they are the same in each process.
        dtype: of its weights in memory: float32, bfloat16 or float16. Buffers stay as they are: rotations by long
            distances need their bits.

    Raises:
        UsageError: files that cannot be read; files and config that do not agree; weights that are NaN or infinite.
    """
    name = f"model {called(path)!r}"
    config = read_config(path).whole
    tensors = _check_folder(path, name)
    _check_size(config, tensors, name)
    device_map = map_of(device)
    model, told, heard = _from_files(path, config, name, "float32" if device_map is None else dtype, device_map)
    check_spread(model, name)
    if device_map is not None and dtype != "float32":
        restore_buffers(model, config, {key: tensor.file for key, tensor in tensors.items()})
    _check_stored(model, tensors, name)
    differ = differences(model, told, tensors)
    notes = list(heard)
    if (path / SINGLE).is_file() and (path / INDEX).is_file():
        notes.append(f"{name}: {SINGLE} is read; {INDEX} beside it is not")
    if differ.unread:
        are = "tensor of its files is" if len(differ.unread) == 1 else "tensors of its files are"
        notes.append(f"{name}: {len(differ.unread)} {are} not needed: {few(differ.unread)}")
    said = differ.sentences(allow_mismatch)
    if said and not allow_mismatch:
        raise UsageError(f"{name}: {'; '.join(said)}; correct the files or config.json, {ALLOW}")
    if device_map is not None and (differ.missing or differ.reshaped) and spread(model):
        raise UsageError(f"{name}: start values that stand in for weights are drawn on the CPU: leave device_map out")
    notes += [f"{name}: {sentence}; allowed by models.allow_mismatch" for sentence in said]
    _check_finite(model, name, "as float32" if device_map is None else f"as {dtype}")
    if device_map is None and dtype != "float32":
        for weight in model.parameters():
            weight.data = weight.data.to(getattr(torch, dtype))
        _check_finite(model, name, f"as {dtype}")
        model.config.dtype = getattr(torch, dtype)
    model = model.eval().requires_grad_(False)
    return LoadedModel(model if device_map is not None else model.to(device), tuple(notes))
