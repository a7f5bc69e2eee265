"""Context-conditioned Markov chains: the mathematics of one self-attention layer that samples its next token.

Public files hold one idea each; start reading at `chain.py`. What they share lies in private folders: `_data` (contexts
as arrays), `_fit` (solvers), `_sim` (walks and flows). Imports go from public files to private folders, never back.
Needs numpy, scipy and numba (safetensors to save); never torch, transformers or harness. See README.md in this folder.
"""

from ccmc.attention import attention_from_chain, chain_from_attention
from ccmc.base import BaseTransition
from ccmc.bases import TextBases, fit_bigram, smooth_unigram
from ccmc.bilinear import BilinearFit, fit_bilinear
from ccmc.bootstrap import Bootstrap, bootstrap
from ccmc.chain import CCMC, AttentionCCMC, Chain
from ccmc.choice import ChoiceRows, LogitFit, fit_context_logit
from ccmc.context_logit import ContextLogit, NumberedText
from ccmc.context_rows import ContextTable, context_rows
from ccmc.contexts import Contexts
from ccmc.equilibria import Equilibrium, equilibria
from ccmc.fit import Fit, NoMaximumLikelihoodEstimate, PairFit, fit_mle, fit_pairs
from ccmc.identifiability import Identifiability, identifiability
from ccmc.mean_field import MeanField, mean_field
from ccmc.normalise import log_normalised, log_sums, normalised
from ccmc.observations import Observations
from ccmc.positional import (
    AdditivePositionChain,
    DistanceChain,
    EmbeddedPositionChain,
    PositionalChain,
    RotaryChain,
)
from ccmc.reader import ContextReader
from ccmc.regimes import RegimeFit, RegimeLogit, RegimeRows, fit_regimes
from ccmc.simulate import simulate
from ccmc.winners import Alternative, Winners, winners

__version__ = "0.2.0"

__all__ = [
    "CCMC",
    "AdditivePositionChain",
    "Alternative",
    "AttentionCCMC",
    "BaseTransition",
    "BilinearFit",
    "Bootstrap",
    "Chain",
    "ChoiceRows",
    "ContextLogit",
    "ContextReader",
    "ContextTable",
    "Contexts",
    "DistanceChain",
    "EmbeddedPositionChain",
    "Equilibrium",
    "Fit",
    "Identifiability",
    "LogitFit",
    "MeanField",
    "NoMaximumLikelihoodEstimate",
    "NumberedText",
    "Observations",
    "PairFit",
    "PositionalChain",
    "RegimeFit",
    "RegimeLogit",
    "RegimeRows",
    "RotaryChain",
    "TextBases",
    "Winners",
    "attention_from_chain",
    "bootstrap",
    "chain_from_attention",
    "context_rows",
    "equilibria",
    "fit_bigram",
    "fit_bilinear",
    "fit_context_logit",
    "fit_mle",
    "fit_pairs",
    "fit_regimes",
    "identifiability",
    "log_normalised",
    "log_sums",
    "mean_field",
    "normalised",
    "simulate",
    "smooth_unigram",
    "winners",
]
