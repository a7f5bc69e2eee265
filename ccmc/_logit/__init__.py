"""What the context logit is made of: statistics of growing contexts, sums over choices, walks.

Start reading at `ccmc/context_logit.py`.
"""
