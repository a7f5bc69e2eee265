"""Context-conditioned Markov chains: the mathematics of one self-attention layer that samples its next token."""

__version__ = "0.1.0"
