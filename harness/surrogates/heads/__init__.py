"""Surrogates of attention heads, one file each."""
