"""Names of heads by what they look at, from the scores of `head_patterns`."""

from __future__ import annotations

from collections.abc import Mapping

PATTERNS = {  # score -> the name that it gives to a head
    "previous_token_score": "previous-token",
    "induction_score": "induction",
    "duplicate_token_score": "duplicate-token",
}
KINDS = (*PATTERNS.values(), "sink", "content", "position", "mixed")
THRESHOLD = 0.4  # share of attention, the sink left out, that makes a pattern the name of a head
SINK = 0.5
CONTENT = 0.2


def kind_of(scores: Mapping[str, float]) -> str:
    """The name of a head with these scores.

    The pattern that holds most of the attention, if that is at least `THRESHOLD`; else `sink` where the first position
    holds half of it; else `content` or `position` by whether attention differs from text to text; else `mixed`.
    """
    pattern = max((name for name in PATTERNS if name in scores), key=lambda name: scores[name], default=None)
    if pattern is not None and scores[pattern] >= THRESHOLD:
        return PATTERNS[pattern]
    if scores.get("sink_share", 0.0) >= SINK:
        return "sink"
    if "content_score" not in scores:
        return "mixed"
    return "content" if scores["content_score"] >= CONTENT else "position"
