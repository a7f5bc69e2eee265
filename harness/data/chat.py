"""A text as a user's turn of a model's chat template."""

from __future__ import annotations

from typing import Any

from harness.core.errors import UsageError, one_line


def render(tokenizer: Any, text: str) -> str:
    """What the chat template makes of a user's turn that the model answers.

    Args:
        tokenizer: with the template.
        text: the user's.

    Raises:
        UsageError: no template, or one that refuses the text or cannot be filled in.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("chat: the model's tokenizer has no chat template; leave chat out")
    turns = [{"role": "user", "content": text}]
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    except (TemplateError, ValueError, TypeError) as error:
        raise UsageError(f"chat: the model's chat template cannot be filled in: {one_line(error)[:160]}") from None
