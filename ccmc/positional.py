"""Chains that know where tokens are: the score of a context token also depends on its position.

With x_1 ... x_L the context, i = x_L the query and s_l the score of position l, a position-aware chain emits

    p(j | X) = sum over positions l with x_l = j of exp(s_l) / sum over all l of exp(s_l),

one attention row, summed per token. Counts and query no longer suffice, so these chains take the tokens themselves.

- `AdditivePositionChain`: s_l = theta[i, x_l] + b[L, l]. Positions scale the transition probabilities,
  p(j | X) = P[i, j] v_j / sum_k P[i, k] v_k with v_j = sum over positions l of j of exp(b[L, l]).
- `EmbeddedPositionChain`: s_l = (e_l + u_l)^T W (e_L + u_L), token plus position embeddings, which is the same form
  with P[i] = softmax(E W (e_i + u_L)) and weights exp(u_l^T W (e_L + u_L)).
- `DistanceChain`: s_l = theta[i, x_l] + b[L - l].
- `RotaryChain`: queries and keys rotated by an angle in proportion to their position, so that s_l is a function of
  the two tokens and their distance.

Where positions carry nothing, each is the chain of `chain.py`. Everything is computed in the log domain.

Source: Ildiz et al. 2024, for the chain and for position embeddings; Su et al. 2021, for the rotation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.arrays import as_tokens
from ccmc._data.storage import load_tensors, save_tensors
from ccmc._data.types import FloatArray, IntArray
from ccmc.chain import CCMC
from ccmc.normalise import log_normalised, log_sums


class PositionalChain(ABC):
    """What every position-aware chain can do, given the scores of the positions of a context.

    Args:
        vocab_size: K, the number of tokens.
        window: the context is the last `window` tokens, or None for all. Positions are counted from the first token
            of the prompt all the same.

    Raises:
        ValueError: window is not a positive integer.
    """

    _stored: ClassVar[tuple[str, ...]]
    """Names of the arrays that a chain is made of, in the order of its arguments."""

    def __init__(self, vocab_size: int, window: int | None = None) -> None:
        if window is not None and (int(window) != window or window < 1):
            raise ValueError(f"window must be an integer of at least 1, got {window}")
        self.vocab_size = vocab_size
        self.window = window

    @abstractmethod
    def scores(self, tokens: IntArray) -> FloatArray:
        """Scores [L] of all positions of `tokens` [L], whose last token is the query; the window is ignored."""

    def log_next_token(self, prompt: ArrayLike) -> FloatArray:
        """Log-probabilities [K] of the token after a prompt [L]; minus infinity outside the context.

        Raises:
            ValueError: the prompt is empty, not one sequence, or holds a token outside the vocabulary.

        Source: Ildiz et al. 2024.
        """
        tokens = np.asarray(prompt)
        if tokens.ndim != 1 or len(tokens) == 0:
            raise ValueError(f"a prompt is one sequence of at least one token, got shape {tokens.shape}")
        tokens = as_tokens(tokens, self.vocab_size, "prompt")
        scores = self.scores(tokens)
        first = 0 if self.window is None else max(0, len(tokens) - self.window)
        tokens, scores = tokens[first:], scores[first:]
        # Positions of one token side by side, so that a token is one row of a flat array.
        order = np.argsort(tokens, kind="stable")
        tokens = tokens[order]
        first_of_token = np.empty(len(tokens), np.bool_)
        first_of_token[0] = True
        np.not_equal(tokens[1:], tokens[:-1], out=first_of_token[1:])
        starts = np.flatnonzero(first_of_token)
        log_p = np.full(self.vocab_size, -np.inf)
        log_p[tokens[starts]] = log_normalised(log_sums(scores[order], starts))
        return log_p

    def next_token(self, prompts: ArrayLike | Sequence[ArrayLike]) -> FloatArray:
        """Distribution of the next token.

        Args:
            prompts: one sequence of tokens [L], or several of any lengths.

        Returns:
            Probabilities [K], or [n, K] for n sequences.

        Raises:
            ValueError: a prompt is empty or holds a token outside the vocabulary.

        Source: Ildiz et al. 2024.
        """
        given: Any = prompts
        if len(given) == 0 or np.ndim(given[0]) == 0:
            return np.exp(self.log_next_token(given))
        return np.exp([self.log_next_token(prompt) for prompt in given])

    def log_likelihood(self, path: ArrayLike, start: int = 1) -> float:
        """Sum of log p over the tokens of a path [T] from the one after its first `start`, in nats."""
        tokens = np.asarray(path)
        if tokens.ndim != 1 or not 1 <= start < len(tokens):
            raise ValueError(f"start must be 1 ... one less than the path's length, got {start} and {tokens.shape}")
        as_tokens(tokens, self.vocab_size, "path")
        return float(sum(self.log_next_token(tokens[:length])[tokens[length]] for length in range(start, len(tokens))))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the chain as a safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in self._stored}
        save_tensors(path, type(self).__name__, arrays | {"options": self._options()})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a chain that `save` wrote."""
        stored = load_tensors(path, cls.__name__, (*cls._stored, "options"))
        build: Any = cls
        chain: Self = build(*(stored[name] for name in cls._stored), **cls._from_options(*stored["options"].tolist()))
        return chain

    def _options(self) -> FloatArray:
        """The other arguments as numbers, 0 for None."""
        return np.array([self.window or 0], dtype=np.float64)

    @classmethod
    def _from_options(cls, window: float, *others: float) -> dict[str, Any]:
        return {"window": int(window) or None}


class AdditivePositionChain(PositionalChain):
    """Scores of tokens plus scores of positions.

    Args:
        logits: [K, K] finite numbers, row = query.
        position_scores: [T, T] score of key position l (column) for query position L (row); 0-based, T the greatest
            length of a prompt. What lies past the query (l > L) is never read.
        window: see `PositionalChain`.

    Raises:
        ValueError: a shape is wrong or a number is not finite.

    Source: Ildiz et al. 2024.
    """

    _stored = ("logits", "position_scores")

    def __init__(self, logits: ArrayLike, position_scores: ArrayLike, window: int | None = None) -> None:
        self.logits = CCMC(logits).logits
        self.position_scores = _finite(position_scores, "position_scores", 2)
        if self.position_scores.shape[0] != self.position_scores.shape[1]:
            raise ValueError(f"position_scores must be square, got shape {self.position_scores.shape}")
        super().__init__(len(self.logits), window)

    def scores(self, tokens: IntArray) -> FloatArray:
        """theta[query, token] + b[L, l] at all positions."""
        length = _fitting(tokens, len(self.position_scores))
        theta = self.logits[tokens[-1], tokens]
        scores: FloatArray = theta + self.position_scores[length - 1, :length]
        return scores


class EmbeddedPositionChain(PositionalChain):
    """One attention layer on token plus position embeddings, its values the token embeddings.

    Args:
        E: [K, d] token embeddings.
        U: [T, d] position embeddings, T the greatest length of a prompt.
        W: [d, d] attention weights (key on the left, query on the right).
        window: see `PositionalChain`.

    Raises:
        ValueError: a shape is wrong or a number is not finite.

    Source: Ildiz et al. 2024.
    """

    _stored = ("E", "U", "W")

    def __init__(self, E: ArrayLike, U: ArrayLike, W: ArrayLike, window: int | None = None) -> None:
        self.E, self.U, self.W = _finite(E, "E", 2), _finite(U, "U", 2), _finite(W, "W", 2)
        d = self.E.shape[1]
        if self.U.shape[1] != d or self.W.shape != (d, d):
            raise ValueError(
                f"E is {self.E.shape}, so U must be [T, {d}] and W [{d}, {d}]: {self.U.shape, self.W.shape}"
            )
        super().__init__(len(self.E), window)

    def transition_at(self, position: int) -> FloatArray:
        """[K, K] P[i] = softmax(E W (e_i + u_L)): the base transition matrix of a query at position L (0-based)."""
        query = (self.E + self.U[position]) @ self.W.T
        return np.exp(log_normalised(query @ self.E.T))

    def log_position_weights(self, tokens: IntArray) -> FloatArray:
        """[L] u_l^T W (e_L + u_L): the logarithm of what each position is scaled by."""
        length = _fitting(tokens, len(self.U))
        weights: FloatArray = self.U[:length] @ (self.W @ (self.E[tokens[-1]] + self.U[length - 1]))
        return weights

    def scores(self, tokens: IntArray) -> FloatArray:
        """(e_l + u_l)^T W (e_L + u_L) at all positions."""
        length = _fitting(tokens, len(self.U))
        query = self.W @ (self.E[tokens[-1]] + self.U[length - 1])
        scores: FloatArray = self.E[tokens] @ query + self.log_position_weights(tokens)
        return scores


class DistanceChain(PositionalChain):
    """Scores of tokens plus a score of the distance to the query.

    Args:
        logits: [K, K] finite numbers, row = query.
        distance_bias: [D] score of the distances 0 (the query itself), 1, ... D - 1; greater ones take the last.
        window: see `PositionalChain`.

    Raises:
        ValueError: a shape is wrong or a number is not finite.

    Source: Ildiz et al. 2024, for the chain.
    """

    _stored = ("logits", "distance_bias")

    def __init__(self, logits: ArrayLike, distance_bias: ArrayLike, window: int | None = None) -> None:
        self.logits = CCMC(logits).logits
        self.distance_bias = _finite(distance_bias, "distance_bias", 1)
        super().__init__(len(self.logits), window)

    def scores(self, tokens: IntArray) -> FloatArray:
        """theta[query, token] + b[distance] at all positions."""
        distance = np.minimum(np.arange(len(tokens))[::-1], len(self.distance_bias) - 1)
        scores: FloatArray = self.logits[tokens[-1], tokens] + self.distance_bias[distance]
        return scores


class RotaryChain(PositionalChain):
    """Queries and keys turned by their positions: the score of a pair depends on the two tokens and their distance.

    Coordinates go in pairs, each turned by its own frequency; a pair with frequency 0 is not turned. Norms of queries
    and keys, if a model has them, are applied by the caller.

    Args:
        queries: [K, d] before rotation, one row per token, d even.
        keys: [K, d] before rotation.
        frequencies: [d / 2] angle per position, in radians.
        scale: factor on the products, such as 1 / sqrt(d).
        softcap: scores become softcap * tanh(score / softcap), or None.
        interleaved: pairs are coordinates (0, 1), (2, 3), ...; else (0, d / 2), (1, d / 2 + 1), ...
        window: see `PositionalChain`.

    Raises:
        ValueError: a shape is wrong, a number is not finite, or softcap is not positive.

    Source: Su et al. 2021; Ildiz et al. 2024, for the chain.
    """

    _stored = ("queries", "keys", "frequencies")

    def __init__(
        self,
        queries: ArrayLike,
        keys: ArrayLike,
        frequencies: ArrayLike,
        *,
        scale: float = 1.0,
        softcap: float | None = None,
        interleaved: bool = False,
        window: int | None = None,
    ) -> None:
        q, k = _finite(queries, "queries", 2), _finite(keys, "keys", 2)
        self.frequencies = _finite(frequencies, "frequencies", 1)
        if q.shape != k.shape or q.shape[1] != 2 * len(self.frequencies):
            raise ValueError(
                f"queries and keys must both be [K, d], d twice the number of frequencies ({len(self.frequencies)}), "
                f"got {q.shape} and {k.shape}"
            )
        if softcap is not None and not softcap > 0:
            raise ValueError(f"softcap must be positive, got {softcap}")
        # Kept in the order (first halves, second halves). A pair of coordinates is a complex number, and turning it by
        # an angle a is multiplying it by exp(1j a).
        order = np.arange(q.shape[1]).reshape(-1, 2).T.ravel() if interleaved else slice(None)
        self.queries, self.keys = q[:, order], k[:, order]
        self._queries, self._keys = _as_complex(self.queries), _as_complex(self.keys)
        self.scale, self.softcap = float(scale), softcap
        super().__init__(len(q), window)

    def logits_at(self, distance: int) -> FloatArray:
        """[K, K] theta[i, j, distance]: scores of keys j (columns) that lie `distance` before queries i (rows)."""
        turned = self._queries * np.exp(1j * distance * self.frequencies)
        return self._capped((turned @ self._keys.conj().T).real)

    def scores(self, tokens: IntArray) -> FloatArray:
        """theta[query, token, distance] at all positions."""
        distance = np.arange(len(tokens))[::-1]
        turned = self._queries[tokens[-1]] * np.exp(1j * distance[:, None] * self.frequencies)
        return self._capped(np.einsum("lf,lf->l", turned, self._keys[tokens].conj()).real)

    def _options(self) -> FloatArray:
        return np.array([self.window or 0, self.scale, self.softcap or 0], dtype=np.float64)

    @classmethod
    def _from_options(cls, window: float, *others: float) -> dict[str, Any]:
        scale, softcap = others
        return {"window": int(window) or None, "scale": scale, "softcap": softcap or None}

    def _capped(self, products: FloatArray) -> FloatArray:
        scores: FloatArray = self.scale * products
        return scores if self.softcap is None else self.softcap * np.tanh(scores / self.softcap)


def _as_complex(x: FloatArray) -> np.ndarray[Any, np.dtype[np.complex128]]:
    half = x.shape[1] // 2
    pairs: np.ndarray[Any, np.dtype[np.complex128]] = x[:, :half] + 1j * x[:, half:]
    return pairs


def _fitting(tokens: IntArray, longest: int) -> int:
    if len(tokens) > longest:
        raise ValueError(f"the prompt has {len(tokens)} tokens but there are scores for {longest} positions only")
    return len(tokens)


def _finite(values: ArrayLike, name: str, dimensions: int) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} must have {dimensions} dimension(s) and not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"{name}{where} is {array[tuple(where)]}: {name} are finite")
    return array
