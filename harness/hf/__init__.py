"""Fitted chains as models of transformers: config.json and safetensors, loaded by the Auto classes.

`import harness.hf` registers `CCMCConfig` and `CCMCForCausalLM`; loading runs no code from a folder. Start reading at
`modeling.py`; `export.py` writes what a run has fitted. Surrogates are defined elsewhere.
"""

from harness.hf.configuration import CCMCConfig
from harness.hf.modeling import CCMCForCausalLM, ContextCache

__all__ = ["CCMCConfig", "CCMCForCausalLM", "ContextCache"]
