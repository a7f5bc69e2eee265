"""Context-conditioned Markov chains: the mathematics of one self-attention layer that samples its next token."""

from ccmc.attention import attention_from_chain, chain_from_attention
from ccmc.chain import CCMC, AttentionCCMC, Chain
from ccmc.contexts import Contexts
from ccmc.equilibria import Equilibrium, equilibria
from ccmc.fit import Fit, NoMaximumLikelihoodEstimate, PairFit, fit_mle, fit_pairs
from ccmc.identifiability import Identifiability, identifiability
from ccmc.mean_field import MeanField, mean_field
from ccmc.observations import Observations
from ccmc.positional import (
    AdditivePositionChain,
    DistanceChain,
    EmbeddedPositionChain,
    PositionalChain,
    RotaryChain,
)
from ccmc.simulate import simulate
from ccmc.winners import Alternative, Winners, winners

__version__ = "0.1.0"

__all__ = [
    "CCMC",
    "AdditivePositionChain",
    "Alternative",
    "AttentionCCMC",
    "Chain",
    "Contexts",
    "DistanceChain",
    "EmbeddedPositionChain",
    "Equilibrium",
    "Fit",
    "Identifiability",
    "MeanField",
    "NoMaximumLikelihoodEstimate",
    "Observations",
    "PairFit",
    "PositionalChain",
    "RotaryChain",
    "Winners",
    "attention_from_chain",
    "chain_from_attention",
    "equilibria",
    "fit_mle",
    "fit_pairs",
    "identifiability",
    "mean_field",
    "simulate",
    "winners",
]
