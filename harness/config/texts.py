"""Which texts an experiment reads, where it does not read what the model wrote itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.config.strict import Growing


class Dataset(Growing):
    """A dataset: a hub id, or a local .txt, .json, .jsonl, .csv or .parquet file."""

    later: ClassVar[frozenset[str]] = frozenset({"subset", "streaming"})

    dataset: str = Field(min_length=1, description="a hub id, or a local .txt, .json, .jsonl, .csv or .parquet file")
    subset: str | None = Field(default=None, description="of a hub dataset that has several")
    split: str = Field(default="train", description="such as `train` or `train[:100]`; a local file is one split")
    column: str = Field(default="text", description="the column that holds the text")
    streaming: bool = Field(default=False, description="read from the start, and no further than needed")


class Prose(Dataset):
    """Texts that people wrote."""

    streaming: bool = Field(default=True, description="read from the start, and no further than needed")
    documents: int = Field(default=160, ge=2, description="so many different ones from the start, empty ones left out")
    sample_by: Literal["line", "paragraph", "document"] = Field(
        default="paragraph", description="what a document is in a .txt file"
    )


class GivenTexts(Prose):
    """Texts for heads to be read on instead of the model's own."""

    windows: int | None = Field(
        default=1, ge=1, description="a document longer than max_length is cut into at most so many; null: all"
    )
    min_tokens: int = Field(default=16, ge=3, description="shorter pieces are left out")
