"""Contexts as arrays: counts, rows, columns, prefixes and the pairs that occur, and how kernels are compiled."""
