"""Contexts as arrays: checks, counts, pairs that occur, compact rows, prefixes of sequences, files; compiling kernels.

Functions take and return arrays or small dataclasses. Imports nothing of the package outside this folder.
"""
