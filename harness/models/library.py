"""What transformers says while it reads a model: kept as notes where it would have gone to the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

transformers.utils.logging.set_verbosity_error()  # else its warnings come between the lines of a run, and many at once
transformers.utils.logging.disable_progress_bar()

DECIDED = ("LOAD REPORT", "but both are present in the checkpoints", "This checkpoint seem corrupted")
"""Warnings about weights that `weights` decides on itself, from what was loaded: refused, or noted by name."""


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if not any(part in text for part in DECIDED):
            self.heard[text] = None


@contextmanager
def heard_warnings(about: str) -> Iterator[list[str]]:
    """The warnings that transformers logs inside the block, as notes; nothing is printed.

    Args:
        about: what is read, to begin each note with.

    Yields:
        A list that is filled when the block ends.
    """
    logger, ear, notes = logging.getLogger("transformers"), _Ear(), list[str]()
    level, handlers, upwards = logger.level, logger.handlers[:], logger.propagate
    # a warning that is given once in a process would be missing from the notes of a second model
    type(logger).warning_once.cache_clear()  # type: ignore[attr-defined]
    logger.handlers, logger.propagate = [ear], False
    logger.setLevel(logging.WARNING)
    try:
        yield notes
    finally:
        logger.handlers, logger.propagate = handlers, upwards
        logger.setLevel(level)
        notes += [f"{about}: transformers says: {text[:300]}" for text in ear.heard]
