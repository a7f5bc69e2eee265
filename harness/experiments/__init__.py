"""One folder per experiment; what several of them share is in `_shared`.

An experiment never imports another one. Start with `one_layer/`, the smallest.
"""
