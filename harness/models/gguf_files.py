"""GGUF files: what they hold is checked before a model is built of it."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import UsageError, one_line

LARGEST_EXCESS = 2**29
"""Numbers that a model may have beyond twice those in its file, before it is refused unbuilt."""
MOST_LAYERS = 4096


def _stored(gguf: Path) -> int:
    """How many numbers the tensors of a file have."""
    from gguf import GGUFReader

    try:
        return sum(int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors)
    except Exception as error:  # the reader has no error of its own: each damage ends elsewhere in it
        raise UsageError(f"{gguf.name}: no usable GGUF file: {one_line(error)[:160] or type(error).__name__}") from None


def check_gguf(gguf: Path) -> None:
    """Refuse a file that is damaged, or that describes a model far larger than itself, before memory is taken for it.

    Raises:
        UsageError: says what is wrong.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    stored = _stored(gguf)
    try:
        config = AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name).get_text_config()
        layers = config.num_hidden_layers
        if type(layers) is not int or not 0 < layers <= MOST_LAYERS:
            raise ValueError(f"{layers!r:.40} layers, between 1 and {MOST_LAYERS} are read")
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        described = sum(one.numel() for one in built.parameters())
        if described > 2 * stored + LARGEST_EXCESS:
            raise ValueError(f"a model of {described:.3g} numbers, the file holds {stored:.3g}")
    except Exception as error:  # each architecture refuses sizes in its own manner
        raise UsageError(f"{gguf.name}: it describes no model that can be built: {one_line(error)[:200]}") from None
