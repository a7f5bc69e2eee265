"""Is an error one of memory? Then less at once may do."""

from __future__ import annotations


def out_of_memory(error: BaseException) -> bool:
    """Did a computation fail for lack of memory, of the machine or of a GPU?"""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch on the CPU
