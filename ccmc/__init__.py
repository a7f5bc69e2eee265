"""Context-conditioned Markov chains: the mathematics of one self-attention layer that samples its next token."""

from ccmc.attention import attention_from_chain, chain_from_attention
from ccmc.bilinear import BilinearFit, fit_bilinear
from ccmc.bootstrap import Bootstrap, bootstrap
from ccmc.chain import CCMC, AttentionCCMC, Chain
from ccmc.contexts import Contexts
from ccmc.fit import Fit, NoMaximumLikelihoodEstimate, PairFit, fit_mle, fit_pairs
from ccmc.identifiability import Identifiability, identifiability
from ccmc.observations import Observations
from ccmc.simulate import simulate

__version__ = "0.1.0"

__all__ = [
    "CCMC",
    "AttentionCCMC",
    "BilinearFit",
    "Bootstrap",
    "Chain",
    "Contexts",
    "Fit",
    "Identifiability",
    "NoMaximumLikelihoodEstimate",
    "Observations",
    "PairFit",
    "attention_from_chain",
    "bootstrap",
    "chain_from_attention",
    "fit_bilinear",
    "fit_mle",
    "fit_pairs",
    "identifiability",
    "simulate",
]
