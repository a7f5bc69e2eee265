"""Chains in place of attention while the model runs: what it loses, and what it then writes. Start at `plan`."""
