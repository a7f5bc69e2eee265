"""The context logit written out: one loop over all tokens, every statistic from its definition."""

from __future__ import annotations

import numpy as np


def followers(text, k):
    """Tokens that followed the last k tokens of a text earlier, in their order."""
    n = len(text)
    return [text[s + 1] for s in range(k - 1, n - 1) if n > k and text[s - k + 1 : s + 1] == text[n - k :]]


def longest_match(text, token):
    """Length of the longest suffix of a text that occurred earlier with this token behind it."""
    best = 0
    for s in range(len(text) - 1):
        length = 0
        while length <= s and text[s - length] == text[len(text) - 1 - length]:
            length += 1
        if text[s + 1] == token:
            best = max(best, length)
    return best


def statistic(name, text, token):
    """One statistic of one token of a context."""
    inner, gated, least = name.partition("-in-match-")
    if gated:
        return statistic(inner, text, token) * (max(longest_match(text, other) for other in set(text)) >= int(least))
    places = [s for s, other in enumerate(text) if other == token]
    plain = {
        "present": lambda: 1.0,
        "log-count": lambda: np.log(len(places)),
        "recency": lambda: np.log(len(text) - places[-1]),
        "longest-match": lambda: longest_match(text, token),
        "log-longest-match": lambda: np.log1p(longest_match(text, token)),
    }
    if name in ("suffix", "log-suffix"):
        length = longest_match(text, token)
        if not length or length < max(longest_match(text, other) for other in set(text)):
            return 0.0
        return 1.0 if name == "suffix" else np.log1p(length)
    squares = {"recency-squared": "recency", "match-squared": "log-longest-match"}
    if name in squares:
        return statistic(squares[name], text, token) ** 2
    if name in ("unigram", "base-by-match", "base-inside"):  # times what is read off the base
        return 1.0 if name != "base-by-match" else statistic("log-longest-match", text, token)
    if name in plain:
        return plain[name]()
    kind, _, order = name.rpartition("-")
    if kind == "recent":
        return np.log(sum(np.exp(-(len(text) - 1 - s) / int(order)) for s in places))
    found = followers(text, int(order))
    times = found.count(token)
    return {
        "followed-by": times / len(found) if found else 0.0,
        "log-followed-by": np.log1p(times),
        "shrunk-followed-by": times / (len(found) + 2),
        "latest-after": float(bool(found) and found[-1] == token),
    }[kind]


def similarity(text, token, embeddings):
    """Cosine of a token's embedding with the mean of those of the last 32 tokens of a text."""
    topic = np.mean([embeddings[other] for other in text[-32:]], axis=0, dtype=float)
    own = np.asarray(embeddings[token], dtype=float)
    return own @ topic / np.linalg.norm(own) / np.linalg.norm(topic)


def next_token(weights, log_row, text, closed=False, offset="none", log_unigram=None, embeddings=None):
    """[V] probabilities after a text, log_row [V] of log P0."""
    text = list(text)
    u = weights.get("base", 1.0) * np.asarray(log_row, dtype=float)
    after = followers(text, 1)
    for token in range(len(u)):
        if token not in text:
            u[token] = -np.inf if closed else u[token]
            continue
        static = {"unigram": log_unigram, "base-by-match": log_row, "base-inside": log_row}
        for name, weight in weights.items():
            if name == "similarity":
                u[token] += weight * similarity(text, token, embeddings)
            elif name != "base":
                of_base = static.get(name.partition("-in-match-")[0])
                scale = 1.0 if of_base is None else of_base[token]
                u[token] += weight * scale * statistic(name, text, token)
        if offset == "counts" or (offset == "followed-by-1" and not after):
            u[token] += np.log(text.count(token))
        elif offset == "followed-by-1":
            u[token] += np.log(after.count(token)) if token in after else -np.inf
    p = np.exp(u - u.max())
    return p / p.sum()
