"""The verb that hands a folder to lm-evaluation-harness, which then knows models of chains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.core.errors import UsageError
from harness.report.terminal import say


def lm_eval(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder that ccmc export or save_pretrained wrote, or a hub id.")],
) -> None:
    """Run lm-evaluation-harness on a chain, or on any model of transformers.

    What follows is its own: --tasks, --limit, --batch_size, --output_path and all others.
    """
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError:
        raise UsageError("lm-eval is not installed: pip install 'ccmc-harness[lm-eval]'") from None
    import harness.hf  # noqa: F401 - registers the classes that lm-eval then finds

    if Path(model).is_dir():
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise UsageError(f"{model}: no model of transformers: {str(error).splitlines()[0][:160]}") from None
        if getattr(config, "closed", False):
            say("closed: tokens outside the context get -inf, and texts with one an infinite perplexity", err=True)
    from unittest.mock import patch

    given = ["lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}", *context.args]
    with patch.object(sys, "argv", given):
        cli_evaluate()


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "lm-eval",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="Example: ccmc lm-eval my-chain --tasks wikitext --limit 10",
    )(lm_eval)
