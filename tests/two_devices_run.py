"""A run of a config whose model is on two devices that are not there (`two_devices`): `python ... CONFIG FOLDER`.

A process of its own: torch takes the kind of device for its accelerator from then on.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import torch

torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc] # wrapped tensors have no inference mode

import two_devices  # noqa: E402

import harness  # noqa: E402
from harness.models import loading  # noqa: E402


def main(config: str, folder: str) -> None:
    """Do the run.

    Args:
        config: its file.
        folder: where the run goes.
    """
    whole = loading.read_model

    @lru_cache(maxsize=1)
    def on_two(*where: Any) -> Any:
        whole.cache_clear()
        found = whole(*where)
        body = getattr(found.model, found.model.base_model_prefix)
        two_devices.spread(found.model, body.layers if hasattr(body, "layers") else body.h, 1)
        return found

    loading.read_model = on_two  # type: ignore[assignment]
    with two_devices.two_devices():
        harness.run(config, out=folder, executor="serial")


if __name__ == "__main__":
    main(*sys.argv[1:])
