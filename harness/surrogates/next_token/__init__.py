"""Surrogates of next-token distributions, one file each."""
