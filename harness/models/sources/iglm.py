"""IgLM, a language model of antibody sequences: its files made loadable.

The wheel carries a GPT-2 in an old format, whose config names end tokens that its 33-token vocabulary does not have,
and a vocabulary that the tokenizer of its own time reads and today's would read as unknown tokens throughout.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.core.registry import register
from harness.models.wheels import Wheel

BESIDE = ("config.json", "../vocab.txt")
"""Files of the wheel that are needed beside the weights, relative to them."""
ENDS = [2, 3]
"""[SEP], which ends the sequence, and [CLS], which ends what is filled in."""

_SPECIAL = {"bos_token_id": None, "eos_token_id": ENDS, "pad_token_id": 0}


def convert(weights: Path, target: Path) -> None:
    """Write IgLM as `from_pretrained` reads it: float32 safetensors, a config and a tokenizer that agree.

    Args:
        weights: pytorch_model.bin, with config.json and vocab.txt beside it.
        target: the folder to fill.

    Raises:
        ValueError: the weights do not fill the model.

    Source: Shuai, Ruffolo and Gray, "IgLM: Infilling language modeling for antibody sequence design", 2023.
    """
    import torch
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel

    transformers.utils.logging.disable_progress_bar()
    folder = weights.parent
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = GPT2Config(**{**written, **_SPECIAL})
    model = GPT2LMHeadModel(config)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    found = model.load_state_dict(state, strict=False)
    # causal masks were stored as weights once; the output layer is the embedding
    buffers = (".attn.bias", ".attn.masked_bias")
    unexpected = [key for key in found.unexpected_keys if not key.endswith(buffers)]
    absent = [key for key in found.missing_keys if key != "lm_head.weight"]
    if unexpected or absent:
        raise ValueError(f"IgLM weights do not fit: missing {absent[:3]}, unexpected {unexpected[:3]}")
    model.generation_config.update(**_SPECIAL)
    model.save_pretrained(target)
    save_tokenizer((folder / "vocab.txt").read_text(encoding="utf-8").split(), target)


def save_tokenizer(vocabulary: list[str], target: Path) -> None:
    """A tokenizer of single amino acids and of names in brackets, such as `[HEAVY][HUMAN]EVQ`.

    Args:
        vocabulary: the tokens in the order of their ids.
        target: the folder to save it in.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex(r"\[[A-Z]+\]|\S"), "removed", invert=True)
    plain.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="[UNK]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        eos_token="[SEP]",
    )
    fast.save_pretrained(target)


def _wheel(member: str, sha256: str) -> Wheel:
    return Wheel(
        project="iglm",
        version="0.1.0",
        wheel_sha256="6bb7b65c531583b10d3723dbfbc06e95b2cb30e3cc8cbf2fbc7eb22945e1c2be",
        member=member,
        member_sha256=sha256,
        beside=BESIDE,
        convert=convert,
    )


@register.model(
    "iglm-s",
    form="alias",
    license="JHU academic software licence: non-commercial use only",
    about="IgLM-S, antibody sequences, GPT-2 architecture, 1.4 M parameters, 33 tokens, window 512",
    cost="a wheel of 53 MB",
    source="PyPI wheel iglm 0.1.0; Shuai, Ruffolo and Gray 2023",
)
def iglm_s() -> Wheel:
    return _wheel(
        "iglm/trained_models/IgLM-S/pytorch_model.bin",
        "7c2a835d5c7d323c42d4a56925f26b682bf9a800d27cf0cf963da9b91f517ce4",
    )


@register.model(
    "iglm",
    form="alias",
    license="JHU academic software licence: non-commercial use only",
    about="IgLM, antibody sequences, GPT-2 architecture, 13 M parameters, 33 tokens, window 512",
    cost="a wheel of 53 MB",
    source="PyPI wheel iglm 0.1.0; Shuai, Ruffolo and Gray 2023",
)
def iglm() -> Wheel:
    return _wheel(
        "iglm/trained_models/IgLM/pytorch_model.bin",
        "8359bffa30b8ed2896ac7b87ea3c3dfbb7dc05d6012cdc51a9e8df023960e3a3",
    )
