"""One file per surrogate: `heads/` for attention heads, `next_token/` for language models.

Each class declares itself with `@register.surrogate` and is made through `make.py`. What several share is in
`_fitting/`; what they are fitted to is in `observations.py`, what they may read of a context in `statistics.py`.
Nothing here knows an experiment, and nobody else keeps a list of surrogates: `harness.core.registry` has it.
Start with `base.py`, then `next_token/counts.py` and `heads/distance.py`.
"""
