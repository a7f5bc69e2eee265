"""What a plugin can add: a surrogate of heads, a surrogate of the next token, and a measure of continuations."""

import numpy as np

from harness import register
from harness.surrogates.base import HeadSurrogate, NextTokenSurrogate


@register.surrogate("recency", sees=("distance",), about="attends with 1 / (1 + distance)", source="this example")
class Recency(HeadSurrogate):
    def log_weights(self, text):
        """[n, positions] before normalisation; what a query does not see is left out by the harness."""
        distance = text.positions[:, None] - text.keys[None, :]
        return -np.log1p(np.abs(distance))


@register.surrogate(
    "recent-token", sees=("order",), parameters="1", rollout=True, about="recent tokens again", source="this example"
)
class RecentToken(NextTokenSurrogate):
    def fit(self, observations):
        def loss(rate):
            self.rate_ = rate
            return self.loss(observations)

        self.rate_ = min((0.5, 0.8, 0.9, 0.95, 0.99), key=loss)
        return self

    def next_token(self, types, counts, history):
        """[types] given how often each came and in which order."""
        weight = np.bincount(history, self.rate_ ** np.arange(len(history))[::-1], minlength=len(types))
        return weight / weight.sum()


@register.measure("distinct_32", unit="share", sees="continuation", about="distinct among the last 32 tokens")
def distinct_32(continuation):
    return len(np.unique(continuation[-32:])) / len(continuation[-32:])
