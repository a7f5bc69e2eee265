"""Names that are no alias: hub ids and folders. They are resolved in `harness.models.catalogue`."""

from __future__ import annotations

from harness.core.registry import register

register.model(
    "owner/name[@revision]",
    form="hub",
    license="as the hub says",
    about="any causal language model on the hub; only safetensors are loaded, never remote code",
    source="Hugging Face hub",
)
register.model(
    "folder[@checkpoint]",
    form="folder",
    license="the user's",
    about="any folder that transformers loads, or a checkpoint below it",
    source="this machine",
)
